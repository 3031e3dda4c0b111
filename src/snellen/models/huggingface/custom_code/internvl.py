"""InternVL 1.5 to 3 in their original form (OpenGVLab/InternVL2-8B and others)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snellen.models.huggingface.custom_code.base import CodeReply, Family, options, question
from snellen.types import Decoding, Message

__all__ = ["InternVL"]

#: Of ImageNet, by which its vision tower was trained.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class InternVL(Family):
    """``model.chat(tokenizer, pixel_values, question, generation_config, num_patches_list=…)``.

    Its code leaves tiling to the caller. Its model card's is that of GOT-OCR 2 in transformers: the grid of
    1 to ``max_dynamic_patch`` tiles whose shape is nearest, and the whole picture as one more tile.
    """

    auto = "AutoModel"
    reads = "AutoTokenizer"

    def answer(self, messages: Sequence[Message], pixels: Sequence[Any], decoding: Decoding) -> CodeReply:
        asked = question(messages, "<image>" if len(pixels) == 1 else "Image-{}: <image>")
        counts, tiles = self._tiles(pixels) if pixels else (None, None)
        text = self.model.chat(
            self.processor, tiles, asked, options(decoding), history=None, num_patches_list=counts
        )
        return CodeReply(text, prompt=asked)

    def _tiles(self, pixels: Sequence[Any]) -> tuple[list[int], Any]:
        from transformers import GotOcr2ImageProcessorPil

        config = self.model.config
        side = config.force_image_size or config.vision_config.image_size
        cut = GotOcr2ImageProcessorPil(
            size={"height": side, "width": side},
            crop_to_patches=config.dynamic_image_size,
            min_patches=config.min_dynamic_patch,
            max_patches=config.max_dynamic_patch,
            image_mean=MEAN,
            image_std=STD,
        )
        tensors = cut(images=list(pixels), return_tensors="pt")
        tiles = tensors["pixel_values"].to(self.model.device, self.model.dtype)
        return list(map(int, tensors["num_patches"])), tiles
