"""Rank: score every class name against the image; top-1 and top-5.

For a generative model the score is the log-likelihood of the name given image and prompt (Zhang et al.,
arXiv 2405.18415, "probabilistic inference": the sum of log P(token) of each class name); for a dual
encoder, the cosine of image and text (Radford et al., arXiv 2103.00020); for a classifier, its
log-probability. ``pmi`` is the prior-free variant (Holtzman et al., arXiv 2104.08315): what the image
adds to the name's likelihood under the prompt alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from snellen.parsing import ParseFailure
from snellen.prompts import OPEN_WORLD
from snellen.protocols.base import (
    PROTOCOLS,
    Normalise,
    Protocol,
    check_count,
    check_placeholders,
    failed,
    limit_candidates,
    per_length,
)
from snellen.types import Examination, Kind, Message, Outcome, Prediction, Request, Sample, Score

__all__ = ["Rank"]

#: The number of top names kept with a prediction.
KEPT = 10


@PROTOCOLS.register("rank")
@dataclass(frozen=True, kw_only=True)
class Rank(Protocol):
    """Score every class name and take the best; top-1 and top-5.

    Options: ``candidates``: the number of names to rank, the true one and random others (by ``seed``;
    default: all); ``normalize`` a log-likelihood by nothing (``sum``), ``tokens`` or UTF-8 ``bytes`` of
    the name; ``pmi=true`` subtracts the name's log-likelihood without the image; ``prompt``; ``prefix``,
    the start of the answer ("The photo features a"). Similarities of dual encoders and classifiers'
    logits are never normalized, and have no prior to subtract.

    Ties keep the order of the label set. A name without a score (a class that a classifier does not know)
    is not ranked.
    """

    name: ClassVar[str] = "rank"
    kind: ClassVar[Kind] = Kind.SCORE
    candidates: int | None = None
    normalize: Normalise = "sum"
    pmi: bool = False
    prompt: str = OPEN_WORLD[0]
    prefix: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        check_placeholders("prompt", self.prompt)
        check_count("candidates", self.candidates)

    @property
    def without_image(self) -> bool:
        return self.pmi

    def examine(self, sample: Sample) -> Examination:
        """One request with all names; with ``pmi``, a second one without the image."""
        sample = limit_candidates(sample, self.candidates, self.seed)
        requests = [self._request(sample, (*sample.images, self.prompt))]
        if self.pmi:
            requests.append(self._request(sample, (self.prompt,)))
        replies = yield requests
        values = self._values(sample.labels, replies[0].scores)
        if self.pmi:
            prior = self._values(sample.labels, replies[1].scores)
            values = [value - before for value, before in zip(values, prior, strict=True)]
        if any(math.isnan(value) for value in values):
            return Prediction(
                sample.id, outcome=Outcome.ERROR, reason="the model returned a score that is not a number"
            )
        scored = [
            (value, name) for value, name in zip(values, sample.labels, strict=True) if value > -math.inf
        ]
        if not scored:
            failure = ParseFailure("the model knows none of the class names")
            return failed(sample, failure, 1)
        scored.sort(key=lambda pair: -pair[0])  # stable: ties keep the labels' order
        ranking = tuple(name for _, name in scored[:KEPT])
        details = {"scores": {name: value for value, name in scored[:KEPT]}}
        return Prediction(sample.id, ranking[0], questions=1, ranking=ranking, details=details)

    def _request(self, sample: Sample, content: tuple[object, ...]) -> Request:
        messages = [Message("user", content)]  # type: ignore[arg-type]
        if self.prefix:
            messages.append(Message("assistant", (self.prefix,)))
        return Request(tuple(messages), Kind.SCORE, continuations=sample.labels)

    def _values(self, names: tuple[str, ...], scores: tuple[Score, ...]) -> list[float]:
        pairs = zip(names, scores, strict=True)
        return [per_length(score, name, self.normalize) for name, score in pairs]
