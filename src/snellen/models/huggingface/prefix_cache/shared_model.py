"""What prefix sharing and its self-check need from a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from snellen.types import Decoding, Message, Request, Response

if TYPE_CHECKING:
    import torch

    from snellen.images import Image

__all__ = ["SharedModel"]


class SharedModel(Protocol):
    """What prefix sharing needs from a model."""

    name: str
    batch_size: int

    @property
    def decoder(self) -> Any:
        """The loaded transformers model."""

    @property
    def device(self) -> torch.device:
        """Its device."""

    @property
    def architecture(self) -> str:
        """Its ``model_type``."""

    def identity(self) -> Mapping[str, Any]:
        """Return everything that can change an answer."""

    def prompt(self, messages: Sequence[Message]) -> str:
        """Render messages with the chat template."""

    def tokens(self, prompt: str) -> list[int]:
        """Return a prompt's tokens, with image placeholders."""

    def process(self, prompt: str, images: Sequence[Image]) -> Any:
        """Return the processor's tensors for one prompt."""

    def process_all(self, shown: Sequence[tuple[str, Sequence[Image]]], padding_side: str) -> Any:
        """Return the processor's tensors for prompts with their images, as one batch."""

    def on_device(self, inputs: Any) -> Any:
        """Return tensors on the model's device, in its precision."""

    def plainly(self, requests: Sequence[Request]) -> list[Response]:
        """Answer in batches that share nothing."""

    def tails(self, request: Request, prompt: str) -> tuple[list[list[int]], int]:
        """Return the tokens of each continuation, and how many of the prompt's tokens they replace."""

    def refuse_what_is_too_long(self, length: int) -> None:
        """Refuse a prompt beyond the model's context."""

    def generation_config(self, decoding: Decoding) -> Any:
        """Return the generation configuration for decoding parameters."""

    def ends(self, config: Any) -> frozenset[int]:
        """Return the tokens that end an answer."""

    def response(self, ids: list[int], prompt_tokens: int, config: Any, prompt: str) -> Response:
        """Build a response from generated tokens."""
