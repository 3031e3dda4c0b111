"""Intervals: how far a figure measured on a sample may lie from the truth. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LEVEL", "Estimate", "bootstrap", "wilson"]

#: The confidence level of every interval.
LEVEL = 0.95
REPLICATES = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """``{value, low, high}``."""
        return asdict(self)


def wilson(successes: int, n: int) -> Estimate:
    """A rate with Wilson's score interval.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927), through scipy.

    Raises:
        ValueError: n is not positive, or successes is not within 0 … n.
    """
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high))


def bootstrap(
    counts: NDArray[np.int64],
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Estimate:
    """A statistic of a table of counts with its percentile bootstrap interval.

    Drawing n samples again with replacement and counting them anew is drawing the counts from a
    multinomial distribution over the observed cells, which is what is done.

    Source: B. Efron, "Bootstrap methods: another look at the jackknife", Ann. Statist. 7 (1979).

    Args:
        counts: how many samples fell into each cell, [cells].
        statistic: from counts [replicates, cells] to values [replicates].
        seed: of the draws.
    """
    import numpy as np

    n = int(counts.sum())
    rng = np.random.default_rng(seed)
    values = []
    # In chunks: a table of many cells times all replicates is large.
    chunk = max(1, min(replicates, 2_000_000 // max(1, len(counts))))
    for start in range(0, replicates, chunk):
        size = min(chunk, replicates - start)
        values.append(statistic(rng.multinomial(n, counts / n, size=size)))
    low, high = np.quantile(np.concatenate(values), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    point = float(statistic(counts[None])[0])
    return Estimate(point, min(float(low), point), max(float(high), point))
