"""Sentence embeddings: how near two texts are in meaning. Loads its model when first asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.errors import ModelError, reason_of, require
from snellen.hub import settle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MINILM", "Embedder", "embedder"]

#: Wang et al., "MiniLM" (arXiv 2002.10957), fine-tuned on a billion pairs of sentences.
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


class Embedder:
    """A sentence-transformers model.

    Args:
        name: Hub id or folder.

    Raises:
        MissingExtra: sentence-transformers is not installed.
        ModelError: the model is neither on disk nor to be had from the Hub.
    """

    def __init__(self, name: str) -> None:
        package = require("sentence_transformers", "local", "Mapping answers by embedding")
        settle()
        try:
            self._model: Any = package.SentenceTransformer(name, device="cpu")
        except Exception as error:
            raise ModelError(
                f"The embedding model {name!r} cannot be loaded ({reason_of(error)}). "
                f"While online, fetch it with: hf download {name} ; "
                f"or give a folder: embedding={Path('path/to/model')}"
            ) from error
        self._known: dict[tuple[str, ...], NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, [len(texts), width]."""
        vectors: NDArray[np.float32] = self._model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False
        )
        return vectors

    def nearest(self, text: str, names: tuple[str, ...]) -> tuple[str, float]:
        """The name of the highest cosine with a text, and that cosine. Names are embedded once."""
        if names not in self._known:
            self._known[names] = self.embed(names)
        cosines = self._known[names] @ self.embed([text])[0]
        best = int(cosines.argmax())
        return names[best], float(cosines[best])


@lru_cache(maxsize=4)
def embedder(name: str) -> Embedder:
    """The one embedder of this name in this process."""
    return Embedder(name)
