"""Phi-3-vision and Phi-3.5-vision (microsoft/Phi-3-vision-128k-instruct and others)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snellen.models.huggingface.custom_code.base import CodeReply, Family, check_asks, options
from snellen.types import Decoding, Message

__all__ = ["Phi3V"]


class Phi3V(Family):
    """A processor that takes one prompt, in which images are numbered: ``<|image_1|>``."""

    def answer(self, messages: Sequence[Message], pixels: Sequence[Any], decoding: Decoding) -> CodeReply:
        check_asks(messages)
        number, turns = 0, []
        for message in messages:
            text = ""
            for part in message.content:
                number += not isinstance(part, str)
                text += part if isinstance(part, str) else f"<|image_{number}|>\n"
            turns.append({"role": message.role, "content": text})
        prompt = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        inputs = self.processor(prompt, list(pixels) or None, return_tensors="pt")
        inputs = inputs.to(self.model.device, self.model.dtype)
        end = self.tokenizer.eos_token_id
        output = self.model.generate(**inputs, eos_token_id=end, pad_token_id=end, **options(decoding))
        length = inputs["input_ids"].shape[1]
        return CodeReply(ids=output[0, length:].tolist(), prompt=prompt, prompt_tokens=length)
