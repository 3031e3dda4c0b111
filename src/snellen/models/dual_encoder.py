"""Dual encoders (CLIP, SigLIP): class names as captions, ranked by cosine with the image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from snellen.errors import BadOption
from snellen.models.huggingface import Dtype
from snellen.models.huggingface.local import CheckpointModel
from snellen.registry import MODELS
from snellen.types import Kind, Request, Response, Score

if TYPE_CHECKING:
    import torch

    from snellen.models.huggingface.checkpoint import Checkpoint

__all__ = ["DualEncoder", "clip"]

TEMPLATES: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of a {}",),
    "plain": ("{}",),
}


@MODELS.register("clip", example="clip:ORG/NAME or clip:FOLDER")
def clip(
    checkpoint: str,
    *,
    revision: str | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    template: str = "photo",
) -> DualEncoder:
    """A dual encoder (CLIP, SigLIP …): ranks class names by cosine with the image.

    Options: ``template``: ``photo`` ("a photo of a {}"), ``plain`` (the name alone), or templates of
    your own with ``{}``, separated by ``|``, whose text features are averaged; ``revision``, ``dtype``
    and ``device`` as for hf.

    Raises:
        MissingExtra, ModelError: as for hf.
        BadOption: a template without ``{}``.
    """
    from snellen.models.huggingface.checkpoint import Checkpoint

    found = Checkpoint.find(f"clip:{checkpoint}", checkpoint, revision, dtype, device)
    return DualEncoder(found, template)


class DualEncoder(CheckpointModel):
    """See :func:`clip`. Text features are computed once for each label set.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision"
    (arXiv 2103.00020): an ensemble averages the unit vectors of its templates and is made a unit
    vector again.
    """

    kinds = frozenset({Kind.SCORE})
    text_only = False

    def __init__(self, checkpoint: Checkpoint, template: str = "photo") -> None:
        super().__init__(checkpoint)
        self.templates = TEMPLATES.get(template) or tuple(template.split("|"))
        if not all("{}" in t for t in self.templates):
            raise BadOption(
                f"template={template!r} is not allowed: {', '.join(TEMPLATES)}, or texts with {{}} for "
                "the class name, separated by |."
            )
        self._texts: dict[tuple[str, ...], torch.Tensor] = {}

    def identity(self) -> Mapping[str, Any]:
        return {
            "kind": "dual encoder",
            **self.checkpoint.identity(),
            "templates": list(self.templates),
        }

    def load_parts(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoProcessor

        return self.checkpoint.load_processor(AutoProcessor), self.checkpoint.load(AutoModel)

    def close(self) -> None:
        super().close()
        self._texts.clear()

    def group(self, request: Request) -> Hashable:
        return (request.kind, request.continuations, len(request.images))

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        import torch

        self.load()
        with torch.inference_mode():
            texts = self._text_features(requests[0].continuations)
            return self.fitting(requests, lambda rows: self._compare(rows, texts))

    def _compare(self, requests: Sequence[Request], texts: torch.Tensor) -> list[Response]:
        pixels = [request.images[-1].pixels for request in requests]
        inputs = self._processor.image_processor(pixels, return_tensors="pt")
        inputs = inputs.to(self._model.device, self._model.dtype)
        images = _unit(self._model.get_image_features(**inputs))
        cosines = (images @ texts.T).double().tolist()
        return [Response(scores=tuple(map(Score, row))) for row in cosines]

    def _text_features(self, names: tuple[str, ...]) -> torch.Tensor:
        """Unit vectors, [names, width], on the model's device."""
        if names not in self._texts:
            features: Any = 0
            for template in self.templates:
                texts = [template.replace("{}", name) for name in names]
                features = features + self._embed(texts)
            self._texts[names] = features / features.norm(dim=-1, keepdim=True)
        return self._texts[names]

    def _embed(self, texts: list[str]) -> torch.Tensor:
        import torch

        # SigLIP was trained on texts padded to their full length, and knows no mask.
        padding: Literal["max_length"] | bool = True
        if self._model.config.model_type.startswith("siglip"):
            padding = "max_length"
        chunks = []
        for start in range(0, len(texts), 256):
            inputs = self._processor.tokenizer(
                texts[start : start + 256],
                padding=padding,
                truncation=True,
                max_length=self._model.config.get_text_config().max_position_embeddings,
                return_tensors="pt",
            ).to(self._model.device)
            chunks.append(_unit(self._model.get_text_features(**inputs)))
        return torch.cat(chunks)


def _unit(features: Any) -> torch.Tensor:
    """Features (or an output that holds them) made unit vectors."""
    vectors: torch.Tensor = getattr(features, "pooler_output", features)
    unit: torch.Tensor = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit
