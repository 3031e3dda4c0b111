"""Ask a checkpoint through the interface of the code that comes with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar

from snellen.models.huggingface.base import CheckpointModel
from snellen.models.huggingface.checkpoint import Checkpoint
from snellen.models.huggingface.generation import sampling
from snellen.types import Decoding, Kind, Message, Outcome, Request, Response

__all__ = ["FAMILIES", "CodeReply", "CustomCodeModel", "Family", "check_asks", "options", "question"]

#: The class that asks the checkpoints of a model type.
FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "internvl_chat": "internvl:InternVL",
        "minicpmv": "minicpmv:MiniCPMV",
        "molmo": "molmo:Molmo",
        "ovis": "ovis:Ovis",
        "phi3_v": "phi3v:Phi3V",
    }
)


@dataclass(frozen=True, slots=True)
class CodeReply:
    """What a family's code returned: the answer's text or its tokens, and what is known of the prompt."""

    text: str | None = None
    ids: Sequence[int] = ()
    prompt: str = ""
    prompt_tokens: int = 0


class Family(ABC):
    """The interface of one family's code.

    Attributes:
        auto: the class of transformers through which the model is loaded.
        reads: the class through which its processor, or its tokenizer, is loaded; None: the model has them.
    """

    auto: ClassVar[str] = "AutoModelForCausalLM"
    reads: ClassVar[str | None] = "AutoProcessor"

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, whose ``eos_token_id`` ends an answer."""
        return getattr(self.processor, "tokenizer", self.processor)

    @abstractmethod
    def answer(self, messages: Sequence[Message], pixels: Sequence[Any], decoding: Decoding) -> CodeReply:
        """CodeReply one conversation about pictures (of Pillow), in the order of the messages' images.

        Raises:
            ValueError: the code does not take such a conversation.
        """


def check_asks(messages: Sequence[Message]) -> None:
    """Refuse a conversation that does not end with a user's turn.

    Raises:
        ValueError: it ends with another.
    """
    if not messages or messages[-1].role != "user":
        raise ValueError("this checkpoint's own code does not continue an answer")


def question(messages: Sequence[Message], image: str) -> str:
    """Return the text of a single question, after a line for each image.

    Args:
        messages: a user's turn, perhaps after a system's, which comes first in the text.
        image: the line, in which ``{}`` is the image's number; empty: without lines.

    Raises:
        ValueError: there are more turns.
    """
    if [message.role for message in messages if message.role != "system"] != ["user"]:
        raise ValueError("this checkpoint's own code takes one question, not a conversation of several turns")
    images = sum(len(message.images) for message in messages)
    lines = "".join(f"{image.format(number + 1)}\n" for number in range(images)) if image else ""
    return lines + "\n\n".join(message.text for message in messages)


class CustomCodeModel(CheckpointModel):
    """A checkpoint of one of the :data:`FAMILIES`. Their interfaces answer one question at a time, and give
    no likelihoods.
    """

    kinds = frozenset({Kind.GENERATE})
    hint = "Checkpoints with code of their own generate only; one that transformers has can do more."

    def __init__(self, checkpoint: Checkpoint, model_type: str) -> None:
        super().__init__(checkpoint)
        module, _, name = FAMILIES[model_type].partition(":")
        package = __name__.rpartition(".")[0]
        self._family_type: type[Family] = getattr(import_module(f"{package}.{module}"), name)
        self.family: Family | None = None

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "custom-code", **self.checkpoint.identity()}

    def load_parts(self) -> tuple[Any, Any]:
        import transformers

        reads = self._family_type.reads
        processor = self.checkpoint.load_processor(getattr(transformers, reads)) if reads else None
        model = self.checkpoint.load(getattr(transformers, self._family_type.auto))
        self.family = self._family_type(model, processor)
        return processor, model

    def close(self) -> None:
        self.family = None
        super().close()

    def together(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[place] for place in range(len(requests))]

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        self.load()
        return self.fitting(requests, lambda rows: [self._answer(row) for row in rows])

    def _answer(self, request: Request) -> Response:
        import torch

        assert self.family is not None
        pixels = [self.checkpoint.image_size.pixels(image) for image in request.images]
        if request.decoding.temperature > 0:
            torch.manual_seed(request.decoding.draw)
        with torch.inference_mode():
            answer = self.family.answer(request.messages, pixels, request.decoding)
        return self._response(answer, self.family.tokenizer, request.decoding.max_tokens)

    def _response(self, answer: CodeReply, tokenizer: Any, most: int) -> Response:
        """Count the answer's tokens: those that its code returned or, if that is a text, the text's."""
        ids, text = list(answer.ids), answer.text
        if text is None:
            text = tokenizer.decode(ids, skip_special_tokens=True)
        else:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        known = Response(
            text=text.strip(),
            prompt=answer.prompt,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=len(ids),
        )
        if len(ids) < most or tokenizer.eos_token_id in ids:
            return known
        return replace(known, outcome=Outcome.TRUNCATED, reason=f"cut off after {len(ids)} tokens")


def options(decoding: Decoding) -> dict[str, Any]:
    """Return the options of ``generate``: greedy, whatever the code's own defaults are, or sampled."""
    return {
        "max_new_tokens": decoding.max_tokens,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        **sampling(decoding),
    }
