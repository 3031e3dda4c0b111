"""A checkpoint that reads prompts with images: chat template, tokens, the processor's tensors."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    """One line of a batch: a request's prompt, with one of its continuations where it is scored."""

    request: Request
    prompt: str
    continuation: str = ""


class PromptedModel(CheckpointModel):
    """Renders prompts and makes tensors of them."""

    _chat: ChatRenderer
    _tokenizer: Any

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        # Fast tokenizers are not safe between threads, and images to come are read in another.
        self._words = threading.RLock()

    @property
    def shares_vision(self) -> bool:
        """Whether a batch about the same images computes their features once."""
        return False

    @property
    def decoder(self) -> Any:
        """The model of transformers."""
        self.load()
        return self._model

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.decoder.device
        return device

    @property
    def architecture(self) -> str:
        """Its ``model_type``."""
        return str(self.decoder.config.model_type)

    def prompt(self, messages: Sequence[Message]) -> str:
        """Messages as the chat template renders them."""
        return self._chat.prompt(messages)

    def tokens(self, prompt: str) -> list[int]:
        """A prompt's tokens, images as their marks."""
        special = self._chat.adds_special_tokens(prompt)
        with self._words:
            ids: list[int] = self._tokenizer(prompt, add_special_tokens=special).input_ids
        return ids

    def process(self, prompt: str, images: Sequence[Image]) -> Any:
        """The processor's tensors for one prompt."""
        return self.process_all([(prompt, images)], "right")

    def _inputs(self, rows: Sequence[PromptRow], padding_side: str) -> Any:
        """The processor's tensors for these rows, on the model's device and in its precision."""
        shown = [(row.prompt + row.continuation, row.request.images) for row in rows]
        inputs = self.on_device(self.process_all(shown, padding_side))
        self.refuse_what_is_too_long(int(inputs["attention_mask"].sum(1).max()))
        seen = {tuple(image.sha256 for image in images) for _, images in shown}
        if len(rows) > 1 and len(seen) == 1 and seen != {()} and self.shares_vision:
            return encoded_once(self._model, inputs, len(rows))
        return inputs

    def process_all(self, shown: Sequence[tuple[str, Sequence[Image]]], padding_side: str) -> Any:
        """The processor's tensors for prompts with their images, as one batch."""
        texts, images = [text for text, _ in shown], [of_prompt for _, of_prompt in shown]
        most = max(map(len, images))
        if most > 1 and self.architecture in ONE_IMAGE:
            raise ValueError(f"{most} images, and {self.architecture} takes one")
        pixels = [[image.pixels for image in of_prompt] for of_prompt in images]
        with self._words:
            tensors = self._processor(
                text=texts,
                images=pixels if any(pixels) else None,
                padding=True,
                padding_side=padding_side,
                add_special_tokens=self._chat.adds_special_tokens(texts[0]),
                return_tensors="pt",
            )
        tensors.pop("labels", None)  # PaliGemma's, of training
        return tensors

    def on_device(self, inputs: Any) -> Any:
        """Tensors on the model's device and, where they are numbers of a picture, in its precision."""
        return inputs.to(self.device, self._model.dtype)

    def refuse_what_is_too_long(self, length: int) -> None:
        """Beyond its context a model answers all the same, and answers nonsense.

        Raises:
            ValueError: a prompt of so many tokens is too long.
        """
        text = self._model.config.get_text_config(decoder=True)
        context = getattr(text, "max_position_embeddings", None)
        if context and length > context:
            raise ValueError(f"a prompt of {length} tokens, and the model's context is {context}")
