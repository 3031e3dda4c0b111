"""Open world: a free answer, mapped to the label set afterwards.

Source: Zhang et al., "Why are Visually-Grounded Language Models Bad at Image Classification?" (arXiv
2405.18415): correct if the class name occurs in the answer. Here, names match whole words only, the
longest first, and negations and answers that name several classes are failures (see
:mod:`snellen.parsing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from snellen.errors import BadOption
from snellen.parsing import ParsedAnswer, ParseFailure, strip_thinking
from snellen.prompts import COT, OPEN_WORLD, fill
from snellen.protocols.base import (
    PROTOCOLS,
    Protocol,
    check_placeholders,
    failed,
    positive,
    read_label,
    unanswered,
)
from snellen.scorers.similarity import MINILM, embedder
from snellen.types import Examination, Outcome, Prediction, Sample, ask

__all__ = ["OpenWorld"]


@PROTOCOLS.register("open-world")
@dataclass(frozen=True, kw_only=True)
class OpenWorld(Protocol):
    """Ask for the object without listing the classes; find the class in the free answer.

    Options: ``prompt``; ``cot=true`` asks for a chain of thought and parses its last "Answer: …";
    ``map=embedding`` takes the nearest class name by sentence embedding if the answer contains none
    (``embedding``: the model;
    ``min_similarity``: the smallest cosine accepted); ``max_tokens``.
    """

    name: ClassVar[str] = "open-world"
    prompt: str = OPEN_WORLD[0]
    cot: bool = False
    map: Literal["words", "embedding"] = "words"
    embedding: str = MINILM
    min_similarity: float = -1.0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        check_placeholders("prompt", self.prompt)
        if not -1 <= self.min_similarity <= 1:
            raise BadOption(f"min_similarity={self.min_similarity} is not allowed; allowed: -1 to 1.")
        if self.max_tokens is not None:
            positive("max_tokens", self.max_tokens)

    @property
    def multi_query(self) -> bool:
        return False

    def prepare(self) -> None:
        """Load the embedding model, if needed."""
        if self.map == "embedding":
            embedder(self.embedding)

    def examine(self, sample: Sample) -> Examination:
        """One question."""
        limit = self.max_tokens or (512 if self.cot else 64)
        text = self.prompt + (" " + fill(COT, what="the name") if self.cot else "")
        (reply,) = yield [ask(sample.images, text, max_tokens=limit)]
        nothing = unanswered(reply) if self.cot else None
        reading: ParsedAnswer[str] = read_label(reply, sample) if nothing is None else ParsedAnswer(nothing)
        answer, rule = reading.value, [reading.rule]
        if isinstance(answer, str):
            return Prediction(sample.id, answer, questions=1, details={"mapped_by": "words", "rule": rule})
        if self.map == "words" or answer.outcome is Outcome.REFUSED:
            return failed(sample, answer, 1, rule=rule)
        return self._nearest(sample, strip_thinking(reply.text).strip(), answer)

    def _nearest(self, sample: Sample, text: str, failure: ParseFailure) -> Prediction:
        if not text:
            return failed(sample, failure, 1, rule=[None])
        name, similarity = embedder(self.embedding).nearest(text, sample.labels)
        details = {"mapped_by": "embedding", "similarity": similarity, "rule": ["embedding"]}
        if similarity < self.min_similarity:
            reason = f"the nearest class name is {name!r} at a cosine of {similarity:.3f}"
            return failed(sample, ParseFailure(reason), 1, **details)
        return Prediction(sample.id, name, questions=1, details=details)

    def summary(self, details: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Count predictions made by embedding."""
        if self.map == "words":
            return {}
        return {"mapped_by_embedding": sum(d.get("mapped_by") == "embedding" for d in details)}
