"""Compute all metrics of a run from its predictions."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from sys import intern
from typing import Any, Protocol

from snellen.metrics.classification import RATES, headline
from snellen.metrics.registry import METRICS
from snellen.metrics.stats import mean
from snellen.types import Outcome

__all__ = ["cluster_of", "summarize"]

#: With more categories, they are taken for names of samples rather than of groups.
CATEGORIES = 200


def cluster_of(images: Sequence[str], sample: str) -> int:
    """Return a sample's cluster as a number: its images, or itself if it has none."""
    return hash(tuple(images) or sample)


class Scored(Protocol):
    """What a summary needs from a protocol."""

    @property
    def primary(self) -> str:
        """The score that runs are ranked by."""

    @property
    def classifies(self) -> bool:
        """Whether it predicts one of the data set's classes."""

    def summary(self, details: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Compute metrics from the details of predictions."""


class _Marks:
    """Accumulates the scores given by protocols, and correctness by category."""

    def __init__(self, protocol: Scored) -> None:
        self.protocol = protocol
        self.scores: dict[str, tuple[array[float], list[int]]] = {}
        self.categories: dict[str, array[float]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one sample."""
        for name, value in row["metrics"].items():
            values, owners = self.scores.setdefault(name, (array("d"), []))
            values.append(value)
            owners.append(cluster_of(row["images"], row["id"]))
        right = row["metrics"].get(self.protocol.primary)
        if self.protocol.classifies and row["label"] is not None:
            right = float(row["label"] == row["prediction"])
        if right is not None and (category := row.get("category")) is not None:
            self.categories.setdefault(intern(str(category)), array("d")).append(right)

    def figures(self) -> tuple[dict[str, Any], list[str]]:
        """Return means with their intervals, the primary score by category, and the names of the means."""
        means: dict[str, Any] = {}
        for name, (values, owners) in self.scores.items():
            metric = METRICS[name]
            means[name] = {**mean(values, owners, metric.low, metric.high).as_dict(), "n": len(values)}
        if 1 < len(self.categories) <= CATEGORIES:
            means["by_category"] = {
                name: {"value": sum(values) / len(values), "n": len(values)}
                for name, values in sorted(self.categories.items())
            }
        return means, list(self.scores)


#: The columns of which a run's sums are metrics.
SUMMED = ("questions", "prompt_tokens", "completion_tokens", "cached_tokens")


def summarize(
    rows: Iterable[Mapping[str, Any]], details: Iterable[Mapping[str, Any]], protocol: Scored
) -> dict[str, Any]:
    """Compute the metrics of a run, also by category if the data set has categories.

    ``primary`` names the score that runs are ranked by; ``scores`` lists all means over samples. Bounds
    are the primary score if every sample whose outcome is not ok had the lowest score, and if each had
    the highest.

    Args:
        rows: see :meth:`snellen.storage.store.Store.rows`; read once, keeping only a few numbers of each.
        details: of the predictions, read once.
        protocol: summarizes its own details.
    """
    import numpy as np

    outcomes: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    latencies = array("d")
    truth: list[str] = []
    predicted: list[str] = []
    hits: list[bool] = []
    clusters: list[int] = []
    ranked = False
    lost = 0
    marks = _Marks(protocol)
    for row in rows:
        marks.add(row)
        outcomes[row["outcome"]] += 1
        latencies.extend(row["latencies"])
        sums["requests"] += len(row["latencies"])
        for name in SUMMED:
            sums[name] += row[name]
        if row["label"] is None or not protocol.classifies:
            continue
        truth.append(intern(row["label"]))
        predicted.append(intern(row["prediction"]))
        hits.append(row["label"] in row["ranking"][:5])
        clusters.append(cluster_of(row["images"], row["id"]))
        ranked = ranked or len(row["ranking"]) > 5  # of five classes, one of the top five is certain
        lost += row["outcome"] != Outcome.OK
    figures: dict[str, Any] = {"n": sum(outcomes.values()), "primary": protocol.primary, "scores": []}
    if truth:
        right = sum(t == p for t, p in zip(truth, predicted, strict=True))
        figures |= headline(truth, predicted, hits if ranked else None, clusters)
        figures["clusters"] = len(set(clusters))
        figures["accuracy_bounds"] = {"low": right / len(truth), "high": (right + lost) / len(truth)}
        figures["scores"] = [name for name in RATES if figures[name]]
    means, names = marks.figures()
    figures |= means
    figures["scores"] += names
    return figures | {
        "outcomes": {str(outcome): outcomes[outcome] for outcome in Outcome},
        **{name: sums[name] for name in ("requests", *SUMMED)},
        "latency_median": float(np.median(latencies)) if latencies else None,
        "latency_p95": float(np.quantile(latencies, 0.95)) if latencies else None,
        "protocol": protocol.summary(details),
    }
