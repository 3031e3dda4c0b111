"""Instructions about an image, answered in free text.

Source: Bitton et al., "VisIT-Bench: A Benchmark for Vision-Language Instruction Following" (arXiv
2308.06595). Its instructions are sent unchanged; answers of GPT-4 or of people in the data set can be
compared as ``replay:COLUMN``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from snellen.prompts import fill
from snellen.protocols.base import PROTOCOLS, Protocol, check_placeholders, free_text, positive
from snellen.protocols.free_text import FreeTextProtocol
from snellen.types import Examination, Prediction, Sample, ask

__all__ = ["Instruct"]


@PROTOCOLS.register("instruct")
@dataclass(frozen=True, kw_only=True)
class Instruct(FreeTextProtocol, Protocol):
    """Follow an instruction about the image; similarity to reference answers, overlap, a judge.

    Options: ``prompt`` with ``{question}``, the instruction; ``max_tokens``; ``metrics``, ``embedding``,
    ``clip``, ``judge`` and ``rubric`` as for caption.
    """

    name: ClassVar[str] = "instruct"
    prompt: str = "{question}"
    max_tokens: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        check_placeholders("prompt", self.prompt, "question")
        positive("max_tokens", self.max_tokens)

    def missing_fields(self, sample: Sample) -> str | None:
        return None if sample.question is not None else "an instruction (a question)"

    def examine(self, sample: Sample) -> Examination:
        """One request."""
        text = fill(self.prompt, question=sample.question or "")
        (reply,) = yield [ask(sample.images, text, max_tokens=self.max_tokens)]
        said, outcome, reason = free_text(reply)
        return Prediction(sample.id, said, outcome=outcome, reason=reason, questions=1)
