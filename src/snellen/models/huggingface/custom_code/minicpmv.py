"""MiniCPM-V 2.5 and 2.6 (openbmb/MiniCPM-V-2_6 and others)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snellen.models.huggingface.custom_code.base import CodeReply, Family, check_asks, options
from snellen.types import Decoding, Message

__all__ = ["MiniCPMV"]


class MiniCPMV(Family):
    """``model.chat(image=None, msgs=…, tokenizer=…, processor=…)``, with images among the messages' texts.

    Unless told otherwise, it searches with three beams and penalizes repetitions.
    """

    auto = "AutoModel"

    def answer(self, messages: Sequence[Message], pixels: Sequence[Any], decoding: Decoding) -> CodeReply:
        check_asks(messages)
        left = iter(pixels)
        system = "\n\n".join(message.text for message in messages if message.role == "system")
        turns = [
            {
                "role": message.role,
                "content": [part if isinstance(part, str) else next(left) for part in message.content],
            }
            for message in messages
            if message.role != "system"
        ]
        chosen = options(decoding)
        text = self.model.chat(
            image=None,
            msgs=turns,
            tokenizer=self.tokenizer,
            processor=self.processor,
            sampling=chosen.pop("do_sample"),
            **({"system_prompt": system} if system else {}),
            **chosen,
        )
        return CodeReply(text)
