"""Dual encoders (CLIP, SigLIP): class names as captions, ranked by cosine with the image."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from snellen.errors import BadOption, UnknownName
from snellen.models.base import MODELS
from snellen.models.huggingface.base import CheckpointModel
from snellen.models.huggingface.options import Dtype
from snellen.models.suggest import suggest
from snellen.types import Kind, Request, Response, Score

if TYPE_CHECKING:
    import torch

    from snellen.models.huggingface.checkpoint import Checkpoint

__all__ = ["DualEncoder", "clip", "unit"]

log = logging.getLogger(__name__)

#: The 80 templates of Radford et al. for ImageNet (arXiv 2103.00020, sec. 3.1.4), one per line.
IMAGENET = """\
a bad photo of a {}.
a photo of many {}.
a sculpture of a {}.
a photo of the hard to see {}.
a low resolution photo of the {}.
a rendering of a {}.
graffiti of a {}.
a bad photo of the {}.
a cropped photo of the {}.
a tattoo of a {}.
the embroidered {}.
a photo of a hard to see {}.
a bright photo of a {}.
a photo of a clean {}.
a photo of a dirty {}.
a dark photo of the {}.
a drawing of a {}.
a photo of my {}.
the plastic {}.
a photo of the cool {}.
a close-up photo of a {}.
a black and white photo of the {}.
a painting of the {}.
a painting of a {}.
a pixelated photo of the {}.
a sculpture of the {}.
a bright photo of the {}.
a cropped photo of a {}.
a plastic {}.
a photo of the dirty {}.
a jpeg corrupted photo of a {}.
a blurry photo of the {}.
a photo of the {}.
a good photo of the {}.
a rendering of the {}.
a {} in a video game.
a photo of one {}.
a doodle of a {}.
a close-up photo of the {}.
a photo of a {}.
the origami {}.
the {} in a video game.
a sketch of a {}.
a doodle of the {}.
a origami {}.
a low resolution photo of a {}.
the toy {}.
a rendition of the {}.
a photo of the clean {}.
a photo of a large {}.
a rendition of a {}.
a photo of a nice {}.
a photo of a weird {}.
a blurry photo of a {}.
a cartoon {}.
art of a {}.
a sketch of the {}.
a embroidered {}.
a pixelated photo of a {}.
itap of the {}.
a jpeg corrupted photo of the {}.
a good photo of a {}.
a plushie {}.
a photo of the nice {}.
a photo of the small {}.
a photo of the weird {}.
the cartoon {}.
art of the {}.
a drawing of the {}.
a photo of the large {}.
a black and white photo of a {}.
the plushie {}.
a dark photo of a {}.
itap of a {}.
graffiti of the {}.
a toy {}.
itap of my {}.
a photo of a cool {}.
a photo of a small {}.
a tattoo of the {}.
"""
TEMPLATES: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of a {}",),
    "plain": ("{}",),
    "imagenet": tuple(IMAGENET.splitlines()),
}


#: The most cached text features: captions are used only once.
KEPT = 20_000


@MODELS.register("clip", example="clip:ORG/NAME or clip:FOLDER")
def clip(
    checkpoint: str,
    *,
    revision: str | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    template: str = "photo",
    max_side: int | None = None,
) -> DualEncoder:
    """A dual encoder (CLIP, SigLIP …): ranks class names by cosine with the image.

    Options: ``template``: ``photo`` ("a photo of a {}"), ``plain`` (only the name), ``imagenet`` (the
    ensemble of 80 templates of the CLIP paper), or your own templates with ``{}``, separated by ``|``,
    whose text features are averaged; ``max_side``, ``revision``, ``dtype`` and ``device`` as for hf.

    Raises:
        MissingExtra, ModelError: as for hf.
        BadOption: a template without ``{}``.
    """
    from snellen.models.huggingface.checkpoint import Checkpoint
    from snellen.models.huggingface.image_size import ImageSize

    if not checkpoint:
        raise UnknownName(
            f"clip: names no checkpoint. Did you mean {' or '.join(map(repr, suggest('clip')))}?"
        )
    weights = Checkpoint.find(f"clip:{checkpoint}", checkpoint, revision=revision, dtype=dtype, device=device)
    return DualEncoder(weights.showing(ImageSize(max_side=max_side)), template)


class DualEncoder(CheckpointModel):
    """See :func:`clip`. Text features are computed once per class name.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (arXiv
    2103.00020): an ensemble averages the unit vectors of its templates and normalizes the result.
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
        self._texts: dict[str, torch.Tensor] = {}
        self._cut: list[str] = []
        self._same: list[list[str]] = []

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
            texts = self.text_features(requests[0].continuations)
            return self.fitting(requests, lambda rows: self._compare(rows, texts))

    def _compare(self, requests: Sequence[Request], texts: torch.Tensor) -> list[Response]:
        import torch

        pixels = [self.checkpoint.image_size.pixels(image) for request in requests for image in request.shown]
        inputs = self._processor.image_processor(pixels, return_tensors="pt")
        inputs = inputs.to(self._model.device, self._model.dtype)
        frames = unit(self._model.get_image_features(**inputs))
        # The frames of a video are averaged; an image is one frame.
        parts = torch.split(frames, [len(request.shown) for request in requests])
        images = torch.stack([part[0] if len(part) == 1 else unit(part.mean(0)) for part in parts])
        cosines = (images @ texts.T).cpu().double().tolist()
        return [Response(scores=tuple(map(Score, row))) for row in cosines]

    def text_features(self, names: tuple[str, ...]) -> torch.Tensor:
        """Return unit vectors, [names, width], on the model's device."""
        import torch

        if len(self._texts) > KEPT:
            self._texts.clear()
        missing = [name for name in dict.fromkeys(names) if name not in self._texts]
        if missing:
            features: Any = 0
            for template in self.templates:
                features = features + self.embed([template.replace("{}", name) for name in missing])
            self._tell_what_is_cut(missing)
            self._texts |= zip(missing, features / features.norm(dim=-1, keepdim=True), strict=True)
        return torch.stack([self._texts[name] for name in names])

    def _tell_what_is_cut(self, names: Sequence[str]) -> None:
        """Warn of names that the text encoder cuts, and of those that it then takes for the same."""
        texts = [self.templates[0].replace("{}", name) for name in names]
        limit = self._model.config.get_text_config().max_position_embeddings
        rows = self._processor.tokenizer(texts)["input_ids"]
        cut = [name for name, row in zip(names, rows, strict=True) if len(row) > limit]
        if not cut:
            return
        read: dict[tuple[int, ...], list[str]] = {}
        for name, row in zip(names, rows, strict=True):
            read.setdefault(tuple(row[: limit - 1]), []).append(name)
        same = [group for group in read.values() if len(group) > 1]
        self._cut += cut
        self._same += same
        log.warning(
            "%s: %d class names are longer than the %d tokens that it reads, and are cut (%s)%s",
            self.name, len(cut), limit, "; ".join(cut[:3]),
            f". It cannot tell these apart: {' = '.join(same[0][:3])}" if same else "",
        )  # fmt: skip

    def metadata(self) -> Mapping[str, Any]:
        """As for any checkpoint, and the class names that were cut, and those that it cannot tell apart."""
        cut = {"names_cut": list(self._cut), "names_alike": [list(group) for group in self._same]}
        return {**super().metadata(), **(cut if self._cut else {})}

    def embed(self, texts: list[str]) -> torch.Tensor:
        import torch

        # SigLIP was trained on texts padded to full length, without a mask.
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
            chunks.append(unit(self._model.get_text_features(**inputs)))
        return torch.cat(chunks)


def unit(features: Any) -> torch.Tensor:
    """Normalize features (or an output that contains them) to unit length."""
    vectors: torch.Tensor = getattr(features, "pooler_output", features)
    unit: torch.Tensor = vectors / vectors.norm(dim=-1, keepdim=True)
    return unit
