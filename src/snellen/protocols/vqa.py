"""Visual question answering: short free answers against those of annotators.

Sources: the wording is that of LLaVA-1.5 (Liu et al., arXiv 2310.03744); those of the metrics stand in
:mod:`snellen.metrics.answers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from snellen.errors import require
from snellen.metrics.answers import METRICS, anls, exact_match
from snellen.parsing import ParseFailure
from snellen.prompts import SHORT_ANSWER, fill
from snellen.protocols.base import PROTOCOLS, Protocol, failed, positive, read_short, slots
from snellen.scorers.base import Scorer
from snellen.scorers.judge import Judge
from snellen.types import Examination, Prediction, Sample, ask

__all__ = ["VQA"]


@PROTOCOLS.register("vqa")
@dataclass(frozen=True, kw_only=True)
class VQA(Protocol):
    """Ask a question and score the short answer: exact match, VQA accuracy, relaxed accuracy, ANLS, numbers.

    Options: ``metric``: ``exact``, ``vqa`` (ten annotators), ``relaxed`` (5 % off, charts), ``anls``
    (documents), ``number`` (to the decimals of the truth), ``contains`` or ``open`` (exact or number);
    ``prompt`` with ``{question}``; ``max_tokens``; ``judge``: a model that grades the answers, too.
    """

    name: ClassVar[str] = "vqa"
    classifies: ClassVar[bool] = False
    metric: Literal["exact", "vqa", "relaxed", "anls", "number", "contains", "open"] = "exact"
    prompt: str = SHORT_ANSWER
    max_tokens: int = 32
    judge: str | None = None

    def __post_init__(self) -> None:
        slots("prompt", self.prompt, "question")
        positive("max_tokens", self.max_tokens)

    @property
    def multi_query(self) -> bool:
        return False

    @property
    def primary(self) -> str:
        return METRICS[self.metric][0]

    def prepare(self) -> None:
        """Look for what the metric needs."""
        if METRICS[self.metric][1] is anls:
            require("rapidfuzz.distance", "metrics", "ANLS")

    def missing_fields(self, sample: Sample) -> str | None:
        return None if sample.question is not None else "a question"

    def truth(self, sample: Sample) -> str | None:
        return " / ".join(dict.fromkeys(sample.references)) or None

    def examine(self, sample: Sample) -> Examination:
        """One question."""
        text = fill(self.prompt, question=sample.question or "")
        (reply,) = yield [ask(sample.images, text, max_tokens=self.max_tokens)]
        answer = read_short(reply)
        if isinstance(answer, ParseFailure):
            return failed(sample, answer, 1)
        return Prediction(sample.id, answer, questions=1)

    def score_sample(self, sample: Sample, prediction: Prediction) -> dict[str, float]:
        """The metric, and exact match beside it; none where the truth is not known."""
        if not sample.references:
            return {}
        said = prediction.label
        name, rule = METRICS[self.metric]
        mark = rule(said, sample.references) if said else 0.0
        return {name: mark, "exact_match": exact_match(said, sample.references) if said else 0.0}

    def scorers(self) -> Sequence[Scorer]:
        return [Judge(self.judge)] if self.judge else []
