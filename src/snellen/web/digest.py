"""A run's samples in memory, as far as pages filter, count and sort them; kept until the run changes."""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from snellen.metrics.classification import Confusion, per_class
from snellen.reports.page import matrix_of
from snellen.runs.run import Run

__all__ = ["Digest", "Kept", "SampleBrief", "brief"]

K = TypeVar("K")
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values that take long to compute, by key, each computed once however many ask for it at a time.

    Args:
        most: the number of values kept; those not used for longest go first.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()
        self._under_way: dict[K, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: K, compute: Callable[[], V]) -> V:
        """Return the value of a key, computed by the first who asks for it while the others wait."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            turn = self._under_way.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if key in self._values:
                    return self._values[key]
            try:
                value = compute()
                with self._lock:
                    self._values[key] = value
                    if len(self._values) > self._most:
                        self._values.popitem(last=False)
            finally:
                with self._lock:
                    self._under_way.pop(key, None)
        return value


@dataclass(frozen=True, slots=True)
class SampleBrief:
    """What lists of samples need of one.

    Attributes:
        score: the primary score; None if unknown.
        right: see :meth:`snellen.runs.run.Run.verdict`.
        confidence: the share of rounds that voted for the prediction, or the margin between its score and the
            next one's; None if the protocol has neither.
        image: the SHA-256 of its first image.
    """

    position: int
    id: str
    label: str | None
    prediction: str
    outcome: str
    reason: str
    score: float | None
    right: bool | None
    confidence: float | None
    image: str | None


@dataclass(frozen=True)
class Digest:
    """A run at one moment.

    Attributes:
        samples: in the order of the data set.
        classes: per class, the lowest F1 first; empty if the run does not classify.
        matrix: the confusion matrix; None if there is none, or it is too large to read.
        confused: the most confused pairs, with counts.
        searches: ids of samples by text that was searched for.
    """

    samples: Sequence[SampleBrief]
    classes: Sequence[dict[str, Any]] = ()
    matrix: dict[str, Any] | None = None
    confused: Sequence[tuple[str, str, int]] = ()
    searches: Kept[str, frozenset[str]] = field(default_factory=lambda: Kept(32))

    @classmethod
    def of(cls, run: Run) -> Digest:
        """Read a run."""
        samples = [brief(run, row) for row in run.findings()]
        known = [sample for sample in samples if sample.label is not None]
        if not run.classifies or not known:
            return cls(samples)
        truth, predicted = [str(sample.label) for sample in known], [sample.prediction for sample in known]
        return cls(
            samples,
            sorted(per_class(truth, predicted), key=lambda row: (row["f1"], row["class"])),
            matrix_of(truth, predicted),
            Confusion.of(truth, predicted).confused(),
        )


def brief(run: Run, row: Mapping[str, Any]) -> SampleBrief:
    """Return what lists need of a sample (a row of :meth:`snellen.runs.run.Run.findings`)."""
    return SampleBrief(
        position=row["position"],
        id=row["id"],
        label=row["label"],
        prediction=row["prediction"],
        outcome=row["outcome"],
        reason=row["reason"] or "",
        score=run.score_of(row),
        right=run.verdict(row),
        confidence=_confidence(row["details"], row["prediction"]),
        image=row["images"][0] if row["images"] else None,
    )


def _confidence(details: Mapping[str, Any], prediction: str) -> float | None:
    """Return how sure a prediction is (see :class:`SampleBrief`)."""
    votes, scores = details.get("votes"), details.get("scores")
    if isinstance(votes, list) and votes:
        return Counter(votes)[prediction] / len(votes)
    if isinstance(scores, dict) and len(scores) > 1:
        best, second = sorted(scores.values(), reverse=True)[:2]
        return best - second if math.isfinite(second) else math.inf
    return None
