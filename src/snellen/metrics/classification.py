"""Classification metrics: accuracy, balanced accuracy, precision, recall, F1.

Every denominator counts all samples. A sample without a prediction is a miss for its class and a false
positive for none. Averages run over the classes that occur among references or predictions, and a ratio
without a denominator is 0, as in scikit-learn (with ``zero_division=0``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snellen.metrics.stats import Estimate, rate, stratified

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    Values = NDArray[np.float64]

__all__ = ["PER_CLASS", "RATES", "Confusion", "are_unequal", "headline", "per_class"]

#: The classification metrics that have an interval.
RATES = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "top5")
#: Those that have one only if each class has enough images.
PER_CLASS = ("balanced_accuracy", "macro_f1", "weighted_f1")
#: Classes are unequal if the largest has more than this many times the samples of the smallest.
UNEQUAL = 1.5


def are_unequal(sizes: Collection[int]) -> bool:
    """Return whether classes of these sizes are so unequal that they should count alike.

    >>> are_unequal([3, 2]), are_unequal([4, 2])
    (False, True)
    """
    return max(sizes) > UNEQUAL * min(sizes)


@dataclass(frozen=True)
class Confusion:
    """A sparse confusion matrix.

    Attributes:
        labels: the classes that occur among references or predictions, sorted.
        truth, predicted: class indices of the cells that occur; -1 for no prediction.
        counts: the number of samples in each cell.
        clusters: counts by cluster, a sparse array [clusters, cells]; None if every cluster is one sample.
    """

    labels: tuple[str, ...]
    truth: Counts
    predicted: Counts
    counts: Counts
    clusters: Any = None

    @classmethod
    def of(cls, truth: Sequence[str], predicted: Sequence[str], clusters: Sequence[Any] = ()) -> Confusion:
        """Count pairs; an empty prediction means none."""
        import numpy as np

        labels = tuple(sorted({*truth, *predicted} - {""}))
        index = {"": -1, **{label: i for i, label in enumerate(labels)}}
        cells: dict[tuple[int, int], int] = {}
        for t, p in zip(truth, predicted, strict=True):
            cell = (index[t], index[p])
            cells[cell] = cells.get(cell, 0) + 1
        rows = np.array([(t, p, n) for (t, p), n in sorted(cells.items())], dtype=np.int64)
        rows = rows.reshape(-1, 3)
        table = None
        if len(set(clusters)) < len(clusters):
            place = {cell: i for i, cell in enumerate(sorted(cells))}
            columns = [place[index[t], index[p]] for t, p in zip(truth, predicted, strict=True)]
            table = _by_cluster(clusters, columns, len(place))
        return cls(labels, rows[:, 0], rows[:, 1], rows[:, 2], table)

    def scores(self) -> dict[str, Values]:
        """Return precision, recall, F1, support and number of predictions of each class, each [classes]."""
        import numpy as np

        def total(column: Counts, keep: NDArray[np.bool_]) -> Values:
            counts = self.counts[keep].astype(float)
            return np.bincount(column[keep], weights=counts, minlength=len(self.labels)).astype(float)

        hits = total(self.truth, self.truth == self.predicted)
        truths, guesses = total(self.truth, self.truth >= 0), total(self.predicted, self.predicted >= 0)
        return {
            "precision": _ratio(hits, guesses),
            "recall": _ratio(hits, truths),
            "f1": _ratio(2 * hits, truths + guesses),
            "support": truths,
            "guesses": guesses,
        }

    def average(self, figure: str, how: str) -> float:
        """Average a class metric: ``macro`` over the classes that occur, ``weighted`` by support, ``true``
        over the classes that occur among references.
        """
        table = self.scores()
        return float(table[figure] @ _weights(table, how))

    def estimate(self, figure: str, how: str) -> Estimate:
        """Return the average of recall or F1 with its interval, whose ends are nan with fewer than three
        images of a class (see :func:`snellen.metrics.stats.stratified`).
        """
        import numpy as np

        table = self.scores()
        weights = _weights(table, how)
        share = np.append(weights, 0.0)  # the last: of no prediction
        support, guesses = table["support"], np.append(table["guesses"], 0.0)
        right = self.truth == self.predicted
        if figure == "recall":
            influence = right * share[self.truth] / support[self.truth]
        else:
            # F1 is 2 hits / (references + predictions); the number of references is fixed.
            total, f1 = np.append(support, 1.0) + guesses, np.append(table["f1"], 0.0)
            gained = 2 * right * share[self.truth] / total[self.truth]
            influence = gained - share[self.predicted] * f1[self.predicted] / total[self.predicted]
        used = support > 0
        value, top = float(table[figure] @ weights), float(weights[used].sum())
        effective = float(top**2 / (weights[used] ** 2 / support[used]).sum())
        if 0 < value < top:  # classes that are never true take their share of the range
            effective *= (1 - value) / (top - value)
        return stratified(value, self.counts, influence, self.truth, effective, self.clusters)

    def confused(self, most: int = 10) -> list[tuple[str, str, int]]:
        """Return the most frequent wrong (truth, prediction, count); prediction "" means none."""
        names = (*self.labels, "")
        cells = [
            (names[t], names[p], int(n))
            for t, p, n in zip(self.truth, self.predicted, self.counts, strict=True)
            if t != p
        ]
        return sorted(cells, key=lambda cell: (-cell[2], cell))[:most]


def _by_cluster(clusters: Sequence[Any], columns: list[int], cells: int) -> Any:
    """Count the samples of each cluster in each cell, sparse [clusters, cells]."""
    import numpy as np
    from scipy.sparse import csr_array

    number: dict[Any, int] = {}
    rows = [number.setdefault(cluster, len(number)) for cluster in clusters]
    ones = np.ones(len(rows), dtype=np.int64)
    return csr_array((ones, (rows, columns)), shape=(len(number), cells))


def _weights(table: dict[str, Values], how: str) -> Values:
    """Return the weight of each class in an average, [classes]."""
    support = table["support"]
    weights = {
        "macro": (support + table["guesses"] > 0).astype(float),
        "true": (support > 0).astype(float),
        "weighted": support,
    }[how]
    normalized: Values = weights / weights.sum()
    return normalized


def _ratio(above: Values, below: Values) -> Values:
    import numpy as np

    ratio: Values = np.divide(above, below, out=np.zeros_like(above, dtype=float), where=below > 0)
    return ratio


def headline(
    truth: Sequence[str],
    predicted: Sequence[str],
    hits5: Sequence[bool] | None = None,
    clusters: Sequence[Any] = (),
) -> dict[str, Any]:
    """Compute the metrics of a classification run; those with an interval as ``{value, low, high}``.

    ``hits5`` says for each sample whether the true class is among the top five; ``top5`` is None if
    nothing was ranked. Samples of one cluster (one image) are not independent, which intervals account
    for; without ``clusters``, each sample is its own cluster.
    """
    clusters = clusters or range(len(truth))
    right = [t == p for t, p in zip(truth, predicted, strict=True)]
    table = Confusion.of(truth, predicted, clusters)
    accuracy = rate(right, clusters)
    sizes = set(Counter(truth).values())
    # With equally many samples of each class, it is the accuracy.
    balanced = table.estimate("recall", "true")
    if len(sizes) == 1 and math.isfinite(balanced.low):
        balanced = accuracy
    top5 = None if hits5 is None else rate(hits5, clusters).as_dict()
    return {
        "accuracy": accuracy.as_dict(),
        "balanced_accuracy": balanced.as_dict(),
        "macro_f1": table.estimate("f1", "macro").as_dict(),
        "weighted_f1": table.estimate("f1", "weighted").as_dict(),
        "macro_precision": table.average("precision", "macro"),
        "macro_recall": table.average("recall", "macro"),
        "weighted_precision": table.average("precision", "weighted"),
        "weighted_recall": table.average("recall", "weighted"),
        "top5": top5,
    }


def per_class(truth: Sequence[str], predicted: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each class that occurs, sorted by name."""
    table = Confusion.of(truth, predicted)
    scores = table.scores()
    return [
        {
            "class": label,
            "precision": float(scores["precision"][i]),
            "recall": float(scores["recall"][i]),
            "f1": float(scores["f1"][i]),
            "support": int(scores["support"][i]),
        }
        for i, label in enumerate(table.labels)
    ]
