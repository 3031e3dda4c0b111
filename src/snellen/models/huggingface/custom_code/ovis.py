"""Ovis 1.5, 1.6 and 2 in their original form (AIDC-AI/Ovis1.6-Gemma2-9B and others)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snellen.models.huggingface.custom_code.base import CodeReply, Family, options, question
from snellen.types import Decoding, Message

__all__ = ["Ovis"]


class Ovis(Family):
    """``model.preprocess_inputs(query, images)`` and ``model.generate``, which returns new tokens alone."""

    reads = None

    @property
    def tokenizer(self) -> Any:
        return self.model.get_text_tokenizer()

    def answer(self, messages: Sequence[Message], pixels: Sequence[Any], decoding: Decoding) -> CodeReply:
        asked = question(messages, "<image>" if len(pixels) == 1 else "Image {}: <image>")
        prompt, ids, values = self.model.preprocess_inputs(asked, list(pixels))
        ids = ids.unsqueeze(0).to(self.model.device)
        if values is not None:
            vision = self.model.get_visual_tokenizer()
            values = values.to(dtype=vision.dtype, device=vision.device)
        tokenizer = self.tokenizer
        output = self.model.generate(
            ids,
            pixel_values=[values],
            attention_mask=ids != tokenizer.pad_token_id,
            eos_token_id=self.model.generation_config.eos_token_id or tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **options(decoding),
        )
        return CodeReply(ids=output[0].tolist(), prompt=prompt, prompt_tokens=ids.shape[1])
