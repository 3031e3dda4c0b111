"""Image classifiers with a fixed set of classes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.errors import DataError
from snellen.models.base import MODELS
from snellen.models.huggingface.base import CheckpointModel
from snellen.models.huggingface.options import Dtype
from snellen.parsing import tokens
from snellen.types import Kind, Request, Response, Score

if TYPE_CHECKING:
    from snellen.models.huggingface.checkpoint import Checkpoint

__all__ = ["Classifier", "classifier", "match", "read_mapping"]


@MODELS.register("classifier", example="classifier:ORG/NAME or classifier:FOLDER")
def classifier(
    checkpoint: str,
    *,
    revision: str | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    mapping: str | None = None,
    max_side: int | None = None,
) -> Classifier:
    """An image classifier: ranks the classes that it knows.

    Its labels are mapped to the data set's by name (any of ImageNet's comma-separated ones, ignoring
    case, hyphens and underscores). Options: ``mapping``, a JSON file ``{"class of the data set": ["label
    of the model", …]}`` for those that differ; ``max_side``, ``revision``, ``dtype`` and ``device`` as for
    hf.

    Raises:
        MissingExtra, ModelError: as for hf.
        DataError: the mapping file cannot be read.
    """
    from snellen.models.huggingface.checkpoint import Checkpoint
    from snellen.models.huggingface.image_size import ImageSize

    weights = Checkpoint.find(
        f"classifier:{checkpoint}", checkpoint, revision=revision, dtype=dtype, device=device
    )
    return Classifier(replace(weights, image_size=ImageSize(max_side=max_side)), read_mapping(mapping))


def read_mapping(file: str | None) -> dict[str, list[str]]:
    """Read a file that maps class names to model labels; empty if there is none.

    Raises:
        DataError: it cannot be read.
    """
    if file is None:
        return {}
    try:
        raw = json.loads(Path(file).read_text(encoding="utf-8"))
        return {k: [v] if isinstance(v, str) else list(map(str, v)) for k, v in raw.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f'mapping={file}: expected a JSON file of {{"class": ["model label", …]}} ({error}).'
        ) from error


class Classifier(CheckpointModel):
    """See :func:`classifier`. A class's score is the log of the summed probability of all model labels
    mapped to it; a class without any has the score -inf and is reported.
    """

    kinds = frozenset({Kind.SCORE})
    text_only = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        mapping: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(checkpoint)
        self.mapping = dict(mapping or {})
        self._known: dict[tuple[str, ...], list[list[int]]] = {}

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "classifier", **self.checkpoint.identity(), "mapping": self.mapping}

    def load_parts(self) -> tuple[Any, Any]:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        processor = self.checkpoint.load_processor(AutoImageProcessor)
        return processor, self.checkpoint.load(AutoModelForImageClassification)

    def metadata(self) -> Mapping[str, Any]:
        unmapped = {
            name: None
            for names, ids in self._known.items()
            for name, i in zip(names, ids, strict=True)
            if not i
        }
        return {**super().metadata(), "unmapped_classes": list(unmapped)}

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        import torch

        self.load()
        with torch.inference_mode():
            return self.fitting(requests, self.classify)

    def classify(self, requests: Sequence[Request]) -> list[Response]:
        import torch

        pixels = [self.checkpoint.image_size.pixels(image) for request in requests for image in request.shown]
        inputs = self._processor(pixels, return_tensors="pt")
        logits = self._model(**inputs.to(self._model.device, self._model.dtype)).logits
        # The logits of a video's frames are averaged; an image is one frame.
        parts = torch.split(logits.cpu().double(), [len(request.shown) for request in requests])
        log_probability = [part.mean(0).log_softmax(-1) for part in parts]
        responses = []
        for request, row in zip(requests, log_probability, strict=True):
            ids = self._ids(request.continuations)
            values = [float(row[i].logsumexp(0)) if i else -math.inf for i in ids]
            responses.append(Response(scores=tuple(map(Score, values))))
        return responses

    def _ids(self, names: tuple[str, ...]) -> list[list[int]]:
        if names not in self._known:
            own = {int(i): str(label) for i, label in self._model.config.id2label.items()}
            self._known[names] = match(names, own, self.mapping)
        return self._known[names]


def match(
    names: Sequence[str], own: Mapping[int, str], mapping: Mapping[str, Sequence[str]]
) -> list[list[int]]:
    """Return the ids of the model's labels for each name: those in the mapping, or else those with this name
    among their comma-separated names.

    >>> match(["polar bear"], {0: "ice bear, Polar_Bear", 1: "bear"}, {})
    [[0]]
    """
    by_name: dict[tuple[str, ...], list[int]] = {}
    for i, label in own.items():
        for part in {tokens(part) for part in (label, *label.split(","))}:
            by_name.setdefault(part, []).append(i)
    places = []
    for name in names:
        wanted = mapping.get(name, [name])
        places.append(sorted({i for label in wanted for i in by_name.get(tokens(label), [])}))
    return places
