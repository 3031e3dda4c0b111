"""A checkpoint that reads prompts with images: chat template, tokens, the processor's tensors."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snellen.models.base import PromptSize
from snellen.models.huggingface.architectures import ONE_IMAGE
from snellen.models.huggingface.base import CheckpointModel
from snellen.models.huggingface.chat import ChatRenderer
from snellen.models.huggingface.checkpoint import Checkpoint
from snellen.models.huggingface.prefix_cache.strategy import encoded_once
from snellen.types import Message, Request

if TYPE_CHECKING:
    import torch

    from snellen.images import Image

__all__ = ["PromptRow", "PromptedModel"]


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One row of a batch: a request's prompt, with one of its continuations if it is scored."""

    request: Request
    prompt: str
    continuation: str = ""


class PromptedModel(CheckpointModel):
    """Renders prompts and converts them to tensors."""

    _chat: ChatRenderer
    _tokenizer: Any

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        # Fast tokenizers are not thread-safe, and images are prefetched in another thread.
        self._words = threading.RLock()

    @property
    def shares_vision(self) -> bool:
        """Whether a batch about the same images computes their features once."""
        return False

    @property
    def decoder(self) -> Any:
        """The transformers model."""
        self.load()
        return self._model

    @property
    def processor(self) -> Any:
        """The processor of transformers."""
        self.load()
        return self._processor

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        self.load()
        return self._tokenizer

    @property
    def chat(self) -> ChatRenderer:
        """What renders messages with its chat template."""
        self.load()
        return self._chat

    @property
    def device(self) -> torch.device:
        """Its device."""
        device: torch.device = self.decoder.device
        return device

    @property
    def architecture(self) -> str:
        """Its ``model_type``."""
        return str(self.decoder.config.model_type)

    def prompt(self, messages: Sequence[Message]) -> str:
        """Render messages with the chat template."""
        return self._chat.prompt(messages)

    def tokens(self, prompt: str) -> list[int]:
        """Return a prompt's tokens, with image placeholders."""
        special = self._chat.adds_special_tokens(prompt)
        with self._words:
            ids: list[int] = self._tokenizer(prompt, add_special_tokens=special).input_ids
        return ids

    def process(self, prompt: str, images: Sequence[Image]) -> Any:
        """Return the processor's tensors for one prompt."""
        return self.process_all([(prompt, images)], "right")

    def inputs_of(self, rows: Sequence[PromptRow], padding_side: str) -> Any:
        """Return the processor's tensors for these rows, on the model's device and in its precision."""
        shown = [(row.prompt + row.continuation, row.request.images) for row in rows]
        inputs = self.on_device(self.process_all(shown, padding_side))
        self.refuse_what_is_too_long(int(inputs["attention_mask"].sum(1).max()))
        seen = {tuple(image.sha256 for image in images) for _, images in shown}
        if len(rows) > 1 and len(seen) == 1 and seen != {()} and self.shares_vision:
            return encoded_once(self._model, inputs, len(rows))
        return inputs

    def process_all(self, shown: Sequence[tuple[str, Sequence[Image]]], padding_side: str) -> Any:
        """Return the processor's tensors for prompts with their images, as one batch."""
        texts, images = [text for text, _ in shown], [of_prompt for _, of_prompt in shown]
        most = max(map(len, images))
        if most > 1 and self.architecture in ONE_IMAGE:
            raise ValueError(f"{most} images, but {self.architecture} accepts only one")
        pixels = [[self.checkpoint.image_size.pixels(image) for image in of_prompt] for of_prompt in images]
        with self._words:
            tensors = self._processor(
                text=texts,
                images=pixels if any(pixels) else None,
                padding=True,
                padding_side=padding_side,
                add_special_tokens=self._chat.adds_special_tokens(texts[0]),
                return_tensors="pt",
            )
        tensors.pop("labels", None)  # PaliGemma's, for training
        return tensors

    def on_device(self, inputs: Any) -> Any:
        """Return tensors on the model's device and, for pixel values, in its precision."""
        return inputs.to(self.device, self._model.dtype)

    def prompt_size(self, request: Request) -> PromptSize:
        self.load()
        prompt = self.prompt(request.messages)
        tokens = int(self.process(prompt, request.images)["input_ids"].shape[1])
        return PromptSize(prompt, len(self.tokens(prompt)), tokens, self._context)

    @property
    def _context(self) -> int | None:
        """The most tokens that it was made for, if known."""
        text = self._model.config.get_text_config(decoder=True)
        context = getattr(text, "max_position_embeddings", None)
        return context or None

    def refuse_what_is_too_long(self, length: int) -> None:
        """Refuse a prompt beyond the model's context, for which it would answer nonsense.

        Raises:
            ValueError: a prompt with this many tokens is too long.
        """
        context = self._context
        if context and length > context:
            raise ValueError(f"a prompt of {length} tokens, but the model's context is {context}")
