"""Visual question answering: short free-form answers against those of annotators.

Sources: the prompt is that of LLaVA-1.5 (Liu et al., arXiv 2310.03744); see
:mod:`snellen.metrics.answers` for the metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from snellen.metrics.answers import exact_match
from snellen.metrics.registry import METRICS, Metric
from snellen.parsing import ParseFailure
from snellen.parsing.text import strip_thinking
from snellen.prompts import SHORT_ANSWER, fill
from snellen.protocols.base import PROTOCOLS, ROOM, Protocol, check_placeholders, failed, positive, read_short
from snellen.scorers.base import Scorer
from snellen.scorers.extractor import Extractor
from snellen.scorers.judge import Judge
from snellen.types import Examination, Outcome, Prediction, Sample, ask

__all__ = ["VQA"]


@PROTOCOLS.register("vqa")
@dataclass(frozen=True, kw_only=True)
class VQA(Protocol):
    """Ask a question and score the short answer: exact match, VQA accuracy, relaxed accuracy, ANLS, numbers.

    Options: ``metric``: ``exact``, ``vqa`` (ten annotators), ``textvqa`` (the same as TextVQA
    normalizes answers), ``relaxed`` (within 5%, for charts),
    ``anls`` (documents), ``number`` (to the reference's decimals), ``contains``, ``open`` (exact or
    number), ``ocrbench-v2`` (the rules of that benchmark), or another registered one
    (:mod:`snellen.metrics.registry`); ``prompt`` with ``{question}``;
    ``max_tokens``; ``judge``: a model that also grades the answers; ``extractor``: a model that reads those
    that no rule reads.
    """

    name: ClassVar[str] = "vqa"
    classifies: ClassVar[bool] = False
    metric: str = "exact"
    prompt: str = SHORT_ANSWER
    max_tokens: int = ROOM
    judge: str | None = None
    extractor: str | None = None

    def __post_init__(self) -> None:
        check_placeholders("prompt", self.prompt, "question")
        positive("max_tokens", self.max_tokens)
        METRICS.by_option(self.name, self.metric)

    @property
    def multi_query(self) -> bool:
        return False

    @property
    def primary(self) -> str:
        return self._metric.name

    @property
    def _metric(self) -> Metric:
        return METRICS.by_option(self.name, self.metric)

    def prepare(self) -> None:
        """Check the requirements of the metric."""
        if self._metric.check is not None:
            self._metric.check()

    def missing_fields(self, sample: Sample) -> str | None:
        lacking = [f"the column {name!r}" for name in self._metric.columns if name not in sample.meta]
        return "a question" if sample.question is None else " and ".join(lacking) or None

    def truth(self, sample: Sample) -> str | None:
        # For such a rule, equal references may be sides of a box.
        known = sample.references if self._metric.sample_rule else dict.fromkeys(sample.references)
        return " / ".join(known) or None

    def examine(self, sample: Sample) -> Examination:
        """One question."""
        text = fill(self.prompt, question=sample.question or "")
        (reply,) = yield [ask(sample.images, text, max_tokens=self.max_tokens)]
        if self._metric.sample_rule is not None:
            # Whatever came is scored, also what was cut off and what sounds like a refusal, as pages may.
            text, outcome = strip_thinking(reply.text).strip(), reply.outcome
            reason = reply.reason
            if not text and outcome is Outcome.OK:
                outcome, reason = Outcome.UNPARSED, "empty answer"
            return Prediction(sample.id, text, outcome=outcome, reason=reason, questions=1)
        # A metric that looks for the truth in the answer is for transcriptions.
        reading = read_short(reply, verbatim=self.metric == "contains", numeric=self.metric == "number")
        answer, rule = reading.value, [reading.rule]
        if isinstance(answer, ParseFailure):
            return failed(sample, answer, 1, rule=rule)
        return Prediction(sample.id, answer, questions=1, details={"rule": rule})

    def score_sample(self, sample: Sample, prediction: Prediction) -> dict[str, float]:
        """Score by the metric and by exact match; nothing if the answer is unknown."""
        said = prediction.label
        if (sample_rule := self._metric.sample_rule) is not None:
            score = sample_rule(said, sample)
            return {} if score is None else {self.primary: score if said else 0.0}
        if not sample.references:
            return {}
        rule = self._metric.rule
        mark = rule(said, sample.references) if said and rule is not None else 0.0
        return {self.primary: mark, "exact_match": exact_match(said, sample.references) if said else 0.0}

    def scorers(self) -> Sequence[Scorer]:
        judges: list[Scorer] = [Judge(self.judge)] if self.judge else []
        form = "the short answer (a word, a number or a phrase)"
        return [*judges, Extractor(self.extractor, self, form)] if self.extractor else judges
