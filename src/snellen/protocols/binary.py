"""Binary: yes/no, class by class, stopping at the first yes.

Source: "Best Vision Language Models (VLMs) for Image Classification: Performance Benchmarks" (Clarifai,
2025): one question per class except the background, at most (number of classes - 1) questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from snellen.metrics.stats import log_sum
from snellen.parsing import ParsedAnswer, ParseFailure
from snellen.prompts import BINARY, fill
from snellen.protocols.base import (
    PROTOCOLS,
    Protocol,
    check_placeholders,
    failed,
    most_frequent,
    positive,
    read_yes_no,
    shuffled,
)
from snellen.types import Examination, Kind, Prediction, Request, Response, Sample, ask

__all__ = ["Binary"]


#: The continuations to score when likelihoods are compared.
YES, NO = ("Yes", "yes"), ("No", "no")


@PROTOCOLS.register("binary")
@dataclass(frozen=True, kw_only=True)
class Binary(Protocol):
    """Ask for each class whether it is in the image; the first yes decides.

    Options: ``order`` of the classes (shuffled by seed and sample, or fixed); ``request_batch``, the
    number of questions sent at once (more may be wasted, but the prediction is the same; by default as
    many as the model answers for little more than one); ``read``, whether to parse the answer (``text``)
    or compare the ``likelihood`` of Yes and No (in any case) as the next word; ``prompt`` with
    ``{name}``; ``max_tokens``; ``seed``.

    If every answer is no, the prediction is the background class, or none if the data set has no such
    class. An unparsed answer is not a "no": unless a later yes decides, the sample has no prediction.
    """

    name: ClassVar[str] = "binary"
    takes_shots: ClassVar[bool] = False
    order: Literal["shuffled", "fixed"] = "shuffled"
    request_batch: int | None = None
    read: Literal["text", "likelihood"] = "text"
    prompt: str = BINARY
    max_tokens: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.request_batch is not None:
            positive("request_batch", self.request_batch)
        positive("max_tokens", self.max_tokens)
        check_placeholders("prompt", self.prompt, "name")

    @property
    def requires(self) -> Kind:
        return Kind.CHOOSE if self.read == "likelihood" else Kind.GENERATE

    def batched(self, request_batch: int) -> Binary:
        return self if self.request_batch is not None else replace(self, request_batch=request_batch)

    def examine(self, sample: Sample) -> Examination:
        """Batches of questions until the first yes. ``questions`` counts up to it."""
        names = [name for name in sample.labels if name != sample.background]
        if self.order == "shuffled":
            names = shuffled(names, self.seed, sample)
        failures: list[ParseFailure] = []
        rules: list[str | None] = []
        request_batch = self.request_batch or 1
        for start in range(0, len(names), request_batch):
            batch = names[start : start + request_batch]
            replies = yield [self._ask(sample, name) for name in batch]
            for number, (name, reply) in enumerate(zip(batch, replies, strict=True), start + 1):
                reading = self._read(reply, name)
                answer = reading.value
                rules.append(reading.rule)
                if answer is True:
                    details = {"unparsed_answers": len(failures), "rule": rules}
                    return Prediction(sample.id, name, questions=number, details=details)
                if isinstance(answer, ParseFailure):
                    failures.append(answer)
        details = {"unparsed_answers": len(failures), "rule": rules}
        if failures:
            return failed(sample, most_frequent(failures), len(names), **details)
        return Prediction(sample.id, sample.background or "", questions=len(names), details=details)

    def _ask(self, sample: Sample, name: str) -> Request:
        question = fill(self.prompt, name=name)
        if self.read == "text":
            return ask(sample.images, question, max_tokens=self.max_tokens)
        return ask(sample.images, question, kind=Kind.SCORE, continuations=YES + NO)

    def _read(self, reply: Response, name: str) -> ParsedAnswer[bool]:
        if self.read == "text":
            return read_yes_no(reply, fill(self.prompt, name=name))
        values = [score.value for score in reply.scores]
        yes, no = (log_sum(values[:2]), log_sum(values[2:]))
        if yes == no:
            return ParsedAnswer(
                ParseFailure("neither yes nor no is more likely, or among the returned tokens")
            )
        return ParsedAnswer(yes > no, "likelihood")

    def summary(self, details: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Count unparsed answers over all questions up to the stop."""
        return {"answers_unparsed": sum(row.get("unparsed_answers", 0) for row in details)}
