"""Molmo, the first (allenai/Molmo-7B-D-0924 and others)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snellen.models.huggingface.custom_code.base import CodeReply, Family, options, question
from snellen.types import Decoding, Message

__all__ = ["Molmo"]


class Molmo(Family):
    """``processor.process(images, text)`` and ``model.generate_from_batch``; the processor adds the turns."""

    def answer(self, messages: Sequence[Message], pixels: Sequence[Any], decoding: Decoding) -> CodeReply:
        from transformers import GenerationConfig

        asked = question(messages, "")
        tensors = self.processor.process(images=list(pixels) or None, text=asked)
        batch = {name: self._on_device(tensor).unsqueeze(0) for name, tensor in tensors.items()}
        output = self.model.generate_from_batch(
            batch,
            GenerationConfig(stop_strings="<|endoftext|>", **options(decoding)),
            tokenizer=self.tokenizer,
        )
        length = batch["input_ids"].shape[1]
        return CodeReply(ids=output[0, length:].tolist(), prompt=asked, prompt_tokens=length)

    def _on_device(self, tensor: Any) -> Any:
        moved = tensor.to(self.model.device)
        return moved.to(self.model.dtype) if moved.is_floating_point() else moved
