"""Confidence intervals and paired tests. Pure functions.

A *cluster* is a group of samples drawn together, such as all samples of one image. Samples within a
cluster are not independent, so intervals and tests count clusters rather than samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    Values = NDArray[np.float64]

__all__ = [
    "LEVEL",
    "Estimate",
    "Paired",
    "holm",
    "log_sum",
    "mcnemar",
    "mean",
    "paired",
    "rate",
    "samples_needed",
    "stratified",
    "wilson",
]

#: The confidence level of every interval, and the power of sample-size estimates.
LEVEL = 0.95
POWER = 0.80
#: With fewer clusters, the normal approximation of clustered errors is not used.
FEW_CLUSTERS = 40
#: With fewer clusters in a stratum, its variance is unknown.
FEW_IN_STRATUM = 3
PERMUTATIONS = 10_000
#: The most clusters for which all flips are enumerated.
EXACT_FLIPS = 13


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95% confidence interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Return ``{value, low, high}``; an unbounded end is None."""
        return {key: end if math.isfinite(end) else None for key, end in asdict(self).items()}


def wilson(successes: int, n: int) -> Estimate:
    """Compute a rate with Wilson's score interval.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22
    (1927), through scipy.

    Raises:
        ValueError: n is not positive, or successes is not within 0 … n.
    """
    from scipy.stats import binomtest

    if not 0 <= successes <= n or not n:  # newer versions of scipy return NaN
        raise ValueError(f"{successes} of {n} is not a rate")
    interval = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    # At its ends the interval is closed exactly, which older versions of scipy round.
    low, high = (0.0 if not successes else interval.low), (1.0 if successes == n else interval.high)
    return Estimate(successes / n, float(low), float(high))


def _wilson(p: float, n: float, quantile: float | None = None) -> Estimate:
    """Compute Wilson's interval for a share and a sample size that may be fractional, with the normal
    quantile or another one.
    """
    from scipy.stats import norm

    q = float(norm.ppf((1 + LEVEL) / 2) if quantile is None else quantile) ** 2
    center = (p + q / (2 * n)) / (1 + q / n)
    half = math.sqrt(q * p * (1 - p) / n + q**2 / (4 * n**2)) / (1 + q / n)
    # Exact at the ends, where rounding depends on the version of numpy.
    return Estimate(p, max(0.0, center - half) if p else 0.0, min(1.0, center + half) if p < 1 else 1.0)


def rate(right: Sequence[bool], clusters: Sequence[Any]) -> Estimate:
    """Compute a rate with an interval that accounts for clusters: Wilson's if every cluster is one sample,
    otherwise Wilson's with the effective sample size and Student's t instead of the normal quantile.

    The effective sample size is n over the design effect: the clustered variance of the mean (Miller,
    "Adding error bars to evals", arXiv 2411.00640, eq. 4) over the variance of independent samples.
    Source of the modified interval: N. Dean and M. Pagano, "Evaluating confidence interval methods for
    binomial proportions in clustered surveys", J. Surv. Stat. Methodol. 3 (2015).
    """
    import numpy as np
    from scipy.stats import t

    x = np.asarray(right, dtype=float)
    sums, sizes = _by_cluster(x, clusters)
    n, groups = len(x), len(sizes)
    if groups == n:
        return wilson(int(x.sum()), n)
    p = float(x.mean())
    if groups < 2:  # a single image says nothing about others
        return Estimate(p, 0.0, 1.0)
    independent = p * (1 - p) / n
    clustered = groups / (groups - 1) * float(((sums - p * sizes) ** 2).sum()) / n**2
    # If all samples agree, the design effect is unknown: take the largest possible.
    effect = clustered / independent if independent > 0 and clustered > 0 else n / groups
    return _wilson(p, min(n / effect, float(n)), float(t.ppf((1 + LEVEL) / 2, groups - 1)))


def mean(values: Sequence[float], clusters: Sequence[Any], low: float = 0.0, high: float = 1.0) -> Estimate:
    """Compute a mean with its interval: that of :func:`rate` if all values are 0 or 1, otherwise the
    clustered t interval (Miller, arXiv 2411.00640, eq. 4), clipped to the range of values. If all values
    from 0 to 1 are equal, so that t has no width, Wilson's is used; a single cluster gives the whole
    range.

    Args:
        low, high: the range of possible values.

    Raises:
        ValueError: there are no values.
    """
    import numpy as np

    if not len(values):
        raise ValueError("the mean of an empty list is undefined")
    shares = (low, high) == (0.0, 1.0)
    if shares and set(values) <= {0, 1}:
        return rate([value == 1 for value in values], clusters)
    x = np.asarray(values, dtype=float)
    center, spread, _, sums = _clustered(x, clusters)
    if shares and len(sums) > 1 and x.min() == x.max():
        # As wide as for this many clusters with values of 0 or 1, which vary the most.
        return _wilson(center, len(sums))
    return Estimate(center, max(low, center - spread), min(high, center + spread))


def _clustered(x: Values, clusters: Sequence[Any]) -> tuple[float, float, float, Values]:
    """Return the mean, half its interval, its clustered standard error, and the sums of the clusters. With a
    single cluster, half the interval is infinite and the error nan.
    """
    import numpy as np
    from scipy.stats import t

    sums, sizes = _by_cluster(x, clusters)
    groups, center = len(sizes), float(x.mean())
    if groups < 2:
        return center, math.inf, math.nan, sums
    squares = float(((sums - center * sizes) ** 2).sum())
    error = float(np.sqrt(groups / (groups - 1) * squares) / len(x))
    return center, float(t.ppf((1 + LEVEL) / 2, groups - 1)) * error, error, sums


def _by_cluster(x: Values, clusters: Sequence[Any]) -> tuple[Values, Values]:
    """Return the sum and size of each cluster."""
    import numpy as np

    index: dict[Any, int] = {}
    number = np.array([index.setdefault(c, len(index)) for c in clusters], dtype=np.intp)
    sums = np.bincount(number, weights=x, minlength=len(index)).astype(np.float64)
    return sums, np.bincount(number, minlength=len(index)).astype(np.float64)


def stratified(
    value: float,
    counts: Counts,
    influence: Values,
    strata: Counts,
    effective: float,
    clusters: Any = None,
) -> Estimate:
    """Compute the interval of a share that depends on how the samples of each stratum (class) are counted in
    cells: Wilson's with the effective sample size and Student's t.

    The effective sample size is that of a rate with the same variance, at most ``effective``. The variance
    is that of the linearized share, within strata and between clusters, where a stratum of n clusters is
    corrected by n / (n - 1). Without variance, it is ``effective``. With fewer than three clusters in a
    stratum, the variance is unknown, and the ends are nan.

    Sources: K. M. Wolter, "Introduction to variance estimation", 2nd ed. (2007), ch. 6 (Taylor series); the
    modified Wilson interval as for :func:`rate`.

    Args:
        value: the share.
        counts: the number of samples in each cell, [cells].
        influence: by how much one more sample in a cell changes the share, [cells].
        strata: the stratum of each cell, [cells].
        effective: the sample size if all strata were alike.
        clusters: counts by cluster, a sparse array [clusters, cells], if clusters hold several samples.
    """
    import numpy as np
    from scipy.stats import t

    _, stratum = np.unique(strata, return_inverse=True)
    sizes = np.bincount(stratum, weights=counts)
    units = sizes
    if clusters is not None:
        units = ((clusters @ np.eye(len(sizes))[stratum]) > 0).sum(0)
    if units.min() < FEW_IN_STRATUM:
        return Estimate(value, math.nan, math.nan)
    means = np.bincount(stratum, weights=counts * influence) / sizes
    deviations = (influence - means[stratum]) * np.sqrt(units / (units - 1))[stratum]
    n, least = float(sizes.sum()), effective
    if clusters is None:
        variance, freedom = float(counts @ deviations**2), n - len(sizes)
    else:
        sums = clusters @ deviations
        variance, freedom = float(sums @ sums), len(sums) - 1.0
        least *= len(sums) / n
    size = min(value * (1 - value) / variance, effective) if variance > 0 and 0 < value < 1 else least
    return _wilson(value, size, float(t.ppf((1 + LEVEL) / 2, freedom)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """A comparison of two runs on the same samples.

    Attributes:
        difference: of the means, first minus second, with a clustered t interval.
        only_first, only_second: samples that only one got right, or on which it scored higher.
        n, clusters: the number of samples and clusters.
        p: two-sided.
        test: the test behind p: mcnemar, sign-flip or clustered-t.
        detectable: the smallest true difference that this many samples detect with 80% power.
    """

    difference: Estimate
    only_first: int
    only_second: int
    n: int
    clusters: int
    p: float
    test: str
    detectable: float

    def real(self, p: float | None = None) -> bool:
        """Return whether the difference is significant at the 5% level: the one rule of all verdicts.

        Args:
            p: adjusted for several comparisons; by default its own.
        """
        excluded = self.difference.low > 0 or self.difference.high < 0
        return excluded and (self.p if p is None else p) < 1 - LEVEL

    @property
    def win_rate(self) -> float:
        """The share of samples on which the first does better; ties count half."""
        return 0.5 + (self.only_first - self.only_second) / (2 * self.n)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "win_rate": self.win_rate}


def paired(first: Sequence[float], second: Sequence[float], clusters: Sequence[Any]) -> Paired:
    """Compare two runs sample by sample: right or wrong (1 or 0), or any score where higher is better.

    The difference's error is clustered (Miller, arXiv 2411.00640, sec. 4, "paired differences"), with
    Student's t. p is McNemar's exact test (Q. McNemar, Psychometrika 12, 1947) if every cluster is one
    sample and every score is 0 or 1; otherwise, with fewer than 40 clusters or a constant difference, a
    sign-flip permutation test over cluster sums (exact up to 2^13 flips, then 10,000 seeded ones);
    otherwise the clustered t-test. Where p does not exclude 0, neither does the interval: it is widened to 0.

    If all samples differ by the same amount (zero, for example), their spread does not estimate the
    error. For right and wrong, half a sample is then added to each cell of the two-by-two table (Agresti
    and Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in
    Medicine 24, 2005).

    Raises:
        ValueError: no samples, or different numbers of samples.
    """
    import numpy as np
    from scipy.stats import t

    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if len(a) != len(b) or len(a) != len(clusters) or not len(a):
        raise ValueError("paired samples must be equally many, and at least one")
    d = a - b
    n = len(d)
    center, spread, error, sums = _clustered(d, clusters)
    groups = len(sums)
    binary = {*a.tolist(), *b.tolist()} <= {0, 1}
    only_first, only_second = int((d > 0).sum()), int((d < 0).sum())
    if groups == n and binary:
        test, p = "mcnemar", mcnemar(only_first, only_second)
    elif groups < FEW_CLUSTERS or error == 0:
        test, p = "sign-flip", _sign_flip(sums)
    else:
        test, p = "clustered-t", float(2 * t.sf(abs(center) / error, groups - 1))
    quantiles = float(t.ppf((1 + LEVEL) / 2, max(1, groups - 1)) + t.ppf(POWER, max(1, groups - 1)))
    low, high = center - spread, center + spread
    if binary and error == 0:
        gained, lost = (((center == side) * groups + 0.5) / (groups + 2) for side in (1, -1))
        error = math.sqrt((gained + lost - (gained - lost) ** 2) / (groups + 2))
        spread = float(t.ppf((1 + LEVEL) / 2, max(1, groups - 1))) * error
        low, high = min(center, gained - lost - spread), max(center, gained - lost + spread)
    if p >= 1 - LEVEL:  # an interval that excludes what the test does not would be a second verdict
        low, high = min(low, 0.0), max(high, 0.0)
    if binary:
        low, high = max(-1.0, low), min(1.0, high)
    estimate = Estimate(center, low, high)
    return Paired(
        difference=estimate,
        only_first=only_first,
        only_second=only_second,
        n=n,
        clusters=groups,
        p=p,
        test=test,
        detectable=quantiles * error,
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return McNemar's exact test: the two-sided p of the discordant pairs under a fair coin."""
    from scipy.stats import binomtest

    n = only_first + only_second
    return float(binomtest(only_first, n, 0.5).pvalue) if n else 1.0


def _sign_flip(sums: Values) -> float:
    """Return the share of sign flips of the clusters whose sum is at least as far from 0 as the observed
    one.
    """
    import numpy as np
    from scipy.stats import permutation_test

    moved = sums[sums != 0]
    if len(moved) < 2:  # both signs are equally far from 0
        return 1.0
    exact = len(moved) <= EXACT_FLIPS
    flips = permutation_test(
        (moved,),
        np.sum,
        permutation_type="samples",  # signs of one sample
        n_resamples=2**EXACT_FLIPS if exact else PERMUTATIONS,
        batch=max(1, 2_000_000 // len(moved)),
        rng=np.random.default_rng(0),
    )
    return float(flips.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple comparisons.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def samples_needed(difference: float, discordant: float) -> int:
    """Compute the sample size that a paired comparison needs to detect a difference (5% level, 80% power).

    Source: R. J. Connor, "Sample size for testing differences in proportions for the paired-sample
    design", Biometrics 43 (1987).

    Args:
        difference: of the two rates, above 0.
        discordant: the share of samples that exactly one gets right, from ``difference`` to 1.

    Raises:
        ValueError: a value out of range.
    """
    from math import ceil, sqrt

    from scipy.stats import norm

    if not 0 < difference <= discordant <= 1:
        raise ValueError("0 < difference <= discordant <= 1 is required")
    alpha, beta = (float(norm.ppf(q)) for q in ((1 + LEVEL) / 2, POWER))
    root = alpha * sqrt(discordant) + beta * sqrt(discordant - difference**2)
    return ceil((root / difference) ** 2)


def log_sum(values: Sequence[float]) -> float:
    """Return the log of the sum of exponentials, for log-likelihoods of disjoint events; -inf if empty.

    >>> log_sum([math.log(0.2), math.log(0.3)]) == math.log(0.5)
    True
    """
    top = max(values, default=-math.inf)
    return top if top == -math.inf else top + math.log(math.fsum(math.exp(v - top) for v in values))
