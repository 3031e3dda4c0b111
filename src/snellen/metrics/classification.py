"""Classification metrics: accuracy, balanced accuracy, precision, recall, F1.

Every denominator counts all samples. A sample without a prediction is a miss for its class and a false
positive for none. Averages run over the classes that occur among references or predictions, and a ratio
without a denominator is 0, as in scikit-learn (with ``zero_division=0``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snellen.metrics.stats import Estimate, bootstrap, rate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    Values = NDArray[np.float64]

__all__ = ["RATES", "Confusion", "headline", "per_class"]

#: The classification metrics that have an interval.
RATES = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "top5")


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

    def tallies(self, counts: Counts) -> tuple[Values, Values, Values]:
        """Return true positives, references and predictions of each class, each [replicates, classes]."""
        from scipy.sparse import csr_array

        def total(column: Counts, keep: NDArray[np.bool_]) -> Any:
            shape = (counts.shape[1], len(self.labels))
            cells = keep.nonzero()[0]
            member = csr_array((keep[cells].astype(float), (cells, column[cells])), shape=shape)
            return counts @ member

        right = self.truth == self.predicted
        return (
            total(self.truth, right),
            total(self.truth, self.truth >= 0),
            total(self.predicted, self.predicted >= 0),
        )

    def scores(self, counts: Counts | None = None) -> dict[str, Values]:
        """Return precision, recall, F1 and support of each class, each [replicates, classes]."""
        hits, truths, guesses = self.tallies(self.counts[None] if counts is None else counts)
        return {
            "precision": _ratio(hits, guesses),
            "recall": _ratio(hits, truths),
            "f1": _ratio(2 * hits, truths + guesses),
            "support": truths,
            "occurs": truths + guesses,
        }

    def average(self, figure: str, how: str, counts: Counts | None = None) -> Values:
        """Average a class metric: ``macro`` over the classes that occur, ``weighted`` by support, ``true``
        over the classes that occur among references. [replicates]
        """
        table = self.scores(counts)
        weights = {
            "macro": (table["occurs"] > 0).astype(float),
            "true": (table["support"] > 0).astype(float),
            "weighted": table["support"],
        }[how]
        return _ratio((table[figure] * weights).sum(1), weights.sum(1))

    def estimate(self, figure: str, how: str, seed: int = 0) -> Estimate:
        """Return an averaged metric with its bootstrap interval."""
        return bootstrap(
            self.counts, lambda counts: self.average(figure, how, counts), seed, clusters=self.clusters
        )

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


def _ratio(above: Values, below: Values) -> Values:
    import numpy as np

    ratio: Values = np.divide(above, below, out=np.zeros_like(above, dtype=float), where=below > 0)
    return ratio


def headline(
    truth: Sequence[str],
    predicted: Sequence[str],
    hits5: Sequence[bool] | None = None,
    clusters: Sequence[Any] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the metrics of a classification run; those with an interval as ``{value, low, high}``.

    ``hits5`` says for each sample whether the true class is among the top five; ``top5`` is None if
    nothing was ranked. Samples of one cluster (one image) are not independent, which intervals account
    for; without ``clusters``, each sample is its own cluster.
    """
    clusters = clusters or range(len(truth))
    right = [t == p for t, p in zip(truth, predicted, strict=True)]
    table = Confusion.of(truth, predicted, clusters)
    top5 = None if hits5 is None else rate(hits5, clusters).as_dict()
    return {
        "accuracy": rate(right, clusters).as_dict(),
        "balanced_accuracy": table.estimate("recall", "true", seed).as_dict(),
        "macro_f1": table.estimate("f1", "macro", seed).as_dict(),
        "weighted_f1": table.estimate("f1", "weighted", seed).as_dict(),
        "macro_precision": float(table.average("precision", "macro")[0]),
        "macro_recall": float(table.average("recall", "macro")[0]),
        "weighted_precision": float(table.average("precision", "weighted")[0]),
        "weighted_recall": float(table.average("recall", "weighted")[0]),
        "top5": top5,
    }


def per_class(truth: Sequence[str], predicted: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of each class that occurs, sorted by name."""
    table = Confusion.of(truth, predicted)
    scores = table.scores()
    return [
        {
            "class": label,
            "precision": float(scores["precision"][0, i]),
            "recall": float(scores["recall"][0, i]),
            "f1": float(scores["f1"][0, i]),
            "support": int(scores["support"][0, i]),
        }
        for i, label in enumerate(table.labels)
    ]
