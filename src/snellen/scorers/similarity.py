"""Sentence embeddings: how similar two texts are in meaning. The model is loaded on first use.

The figures of the study (aryankargwal/vlm-benchmarks: Pixtral 12B against GPT-4 and people) are the share
of similarities above 0.8, which it calls win rate, and the mean of the 1, 5 and 10 highest similarities
of the whole data set, which it calls top-k; both are reported under its name. Ours are the mean
similarity with its interval, and the paired win rate against another set of answers (``snellen
compare``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen._util.files import hash_files
from snellen._util.hub import check_hub
from snellen.errors import ModelError, reason_of, require
from snellen.scorers.base import AskModel, SamplePrediction, Scorer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MINILM", "Embedder", "Similarity", "embedder", "study_figures"]

#: Wang et al., "MiniLM" (arXiv 2002.10957), fine-tuned on a billion pairs of sentences.
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


#: Files that can change a vector.
HASHED = (".json", ".safetensors", ".bin", ".txt")


class Embedder:
    """A sentence-transformers model.

    Args:
        name: Hub id or folder.

    Raises:
        MissingExtra: sentence-transformers is not installed.
        ModelError: the model is neither on disk nor available from the Hub.
    """

    def __init__(self, name: str) -> None:
        package = require("sentence_transformers", "local", "Comparing texts by embedding")
        check_hub()
        try:
            self._model: Any = package.SentenceTransformer(name, device="cpu")
        except Exception as error:
            raise ModelError(
                f"The embedding model {name!r} cannot be loaded ({reason_of(error)}). "
                f"While online, download it with: hf download {name} ; "
                f"or set a folder: embedding={Path('path/to/model')}"
            ) from error
        self._folder = Path(name)
        self._known: dict[tuple[str, ...], NDArray[np.float32]] = {}

    @cached_property
    def digest(self) -> str:
        """Identify the model's version: the Hub's commit, or a hash of its files."""
        if not self._folder.is_dir():
            config = getattr(getattr(self._model[0], "auto_model", None), "config", None)
            return str(getattr(config, "_commit_hash", None))
        files = self._folder.rglob("*")
        return hash_files(self._folder, (p for p in files if p.is_file() and p.suffix in HASHED))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors, [len(texts), width]."""
        vectors: NDArray[np.float32] = self._model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False
        )
        return vectors

    def nearest(self, text: str, names: tuple[str, ...]) -> tuple[str, float]:
        """Return the name with the highest cosine to a text, and the cosine. Names are embedded once."""
        if names not in self._known:
            self._known[names] = self.embed(names)
        cosines = self._known[names] @ self.embed([text])[0]
        best = int(cosines.argmax())
        return names[best], float(cosines[best])


@lru_cache(maxsize=4)
def embedder(name: str) -> Embedder:
    """Return this process's only embedder with this name."""
    return Embedder(name)


#: The similarity above which the study counts an answer as a win.
WIN = 0.8


@dataclass(frozen=True)
class Similarity(Scorer):
    """The cosine of the embeddings of an answer and of its closest reference.

    Args:
        name: the embedding model.
        of: returns the texts of a prediction and of its sample to compare; (answer, references).
        score_name: the name of the score.
    """

    name: str = MINILM
    of: Callable[[SamplePrediction], tuple[str, Sequence[str]]] = lambda one: (
        one.answer,
        one.sample.references,
    )
    score_name: str = "similarity"

    def check(self) -> None:
        embedder(self.name)

    def identity(self) -> dict[str, Any]:
        return {self.name: embedder(self.name).digest}

    async def score(self, predictions: Sequence[SamplePrediction], ask: AskModel) -> list[dict[str, float]]:
        import numpy as np

        texts = [self.of(prediction) for prediction in predictions]
        unique = list(dict.fromkeys(t for answer, more in texts for t in (answer, *more) if t))
        place = {text: i for i, text in enumerate(unique)}
        vectors = await asyncio.to_thread(embedder(self.name).embed, unique) if unique else np.zeros((0, 1))
        scores: list[dict[str, float]] = []
        for answer, references in texts:
            known = [place[text] for text in references if text]
            if not known:
                scores.append({})  # there is no reference
                continue
            best = float((vectors[known] @ vectors[place[answer]]).max()) if answer else 0.0
            scores.append({self.score_name: min(1.0, max(-1.0, best))})
        return scores

    def overall(
        self, predictions: Sequence[SamplePrediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        values = [score[self.score_name] for score in scores if self.score_name in score]
        prefix = "study" if self.score_name == "similarity" else f"{self.score_name}_study"
        return {f"{prefix}_{name}": value for name, value in study_figures(values).items()}


def study_figures(similarities: Sequence[float]) -> dict[str, float]:
    """Return the win rate above 0.8, and the mean of the 1, 5 and 10 highest; 0 if there are fewer.

    Source: the notebooks of github.com/aryankargwal/vlm-benchmarks.

    >>> study_figures([0.9, 0.5])
    {'win_rate': 0.5, 'top_1': 0.9, 'top_5': 0.0, 'top_10': 0.0}
    """
    if not similarities:
        return {}
    best = sorted(similarities, reverse=True)
    top = {f"top_{k}": sum(best[:k]) / k if len(best) >= k else 0.0 for k in (1, 5, 10)}
    return {"win_rate": sum(value > WIN for value in best) / len(best), **top}
