"""Render messages with a checkpoint's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snellen.models.marks import literal
from snellen.types import Message

__all__ = ["ChatRenderer"]

_MARK = "@@answer@@"
#: Some templates include today's date; a fixed one keeps prompts reproducible.
DATE = "1 January 2025"


class ChatRenderer:
    """Renders conversations with a processor's chat template.

    A checkpoint without one gets the plain form: its image token (if it has one) and the text.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._has_template = any(getattr(p, "chat_template", None) for p in (processor, self._tokenizer))
        self._image_token = ""
        if not self._has_template and not _inserts_images(processor):
            self._image_token = str(getattr(processor, "image_token", None) or "")
        self.separator = self._find_separator()

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the text up to the start of the answer; a started answer is its end."""
        begun = ""
        if messages[-1].role == "assistant":
            *messages, last = messages
            begun = self.separator + literal(last.text)
        return self._render(messages, add_generation_prompt=True) + begun

    def continuation(self, messages: Sequence[Message], text: str) -> str:
        """Return a continuation as it follows :meth:`prompt`: after a space, if there is one."""
        begun = messages[-1].role == "assistant"
        return (" " if begun else self.separator) + literal(text)

    def lesson(self, messages: Sequence[Message], answer: str) -> tuple[str, str]:
        """Return a prompt, and the text to train on: the answer with its end token."""
        end = str(self._tokenizer.eos_token or "")
        after = ""
        if self._has_template:
            turns = [*messages, Message("assistant", (_MARK,))]
            after = self._render(turns, add_generation_prompt=False).partition(_MARK)[2]
        tail = after[: after.index(end) + len(end)] if end and end in after else after.rstrip() + end
        return self.prompt(messages), self.continuation(messages, answer) + tail

    def adds_special_tokens(self, prompt: str) -> bool:
        """Return whether the tokenizer must add its own special tokens, as decided by transformers: not if
        the template already starts with the first of them.
        """
        bos = self._tokenizer.bos_token
        return not (bos is not None and prompt.startswith(bos))

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        if getattr(self._processor, "chat_template", None):
            turns = [{"role": m.role, "content": [_part(part) for part in m.content]} for m in messages]
            return str(
                self._processor.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=add_generation_prompt, date_string=DATE
                )
            )
        plain = [{"role": m.role, "content": self._plain(m)} for m in messages]
        if getattr(self._tokenizer, "chat_template", None):
            return str(
                self._tokenizer.apply_chat_template(
                    plain, tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
        return "\n".join(turn["content"] for turn in plain)

    def _plain(self, message: Message) -> str:
        mark = f"{self._image_token}\n" if self._image_token else ""
        return "".join(literal(part) if isinstance(part, str) else mark for part in message.content)

    def _find_separator(self) -> str:
        """Find what the template puts between the generation prompt and the answer."""
        if not self._has_template:
            return " "
        user = Message("user", ("?",))
        prompt = self._render([user], add_generation_prompt=True)
        rendered = self._render([user, Message("assistant", (_MARK,))], add_generation_prompt=False)
        before, mark, _ = rendered.partition(_MARK)
        if mark and before.startswith(prompt):
            return before[len(prompt) :]
        return "" if prompt[-1:].isspace() or prompt.endswith(">") else " "


def _inserts_images(processor: Any) -> bool:
    """Return whether the processor inserts an image's tokens by itself (BLIP-2, PaliGemma, Kosmos-2)."""
    from PIL import Image

    try:
        probe = [
            processor(text=["?"], images=images, return_tensors="pt")["input_ids"].shape[1]
            for images in ([[Image.new("RGB", (32, 32))]], None)
        ]
    except Exception:  # it needs the token in the text, or does not work without an image
        try:
            alone = processor(text=["?"], images=[[Image.new("RGB", (32, 32))]], return_tensors="pt")
        except Exception:
            return False
        plain = getattr(processor, "tokenizer", processor)(["?"])["input_ids"]
        return int(alone["input_ids"].shape[1]) > len(plain[0]) + 2
    return bool(probe[0] > probe[1])


def _part(part: Any) -> dict[str, Any]:
    return {"type": "text", "text": literal(part)} if isinstance(part, str) else {"type": "image"}
