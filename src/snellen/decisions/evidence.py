"""Evidence that holds at every look: e-processes and confidence sequences for paired differences.

An e-process is a non-negative process that, under its null hypothesis, has an expected value of at most
one whenever one stops. By Ville's inequality it ever reaches 1/a with a probability of at most a, so that a
race may look after every image, pause, resume, and ask the models that it likes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    #: Numbers, one after each image.
    Series = np.ndarray[Any, Any]

__all__ = ["images_needed", "log_capital", "log_sign_test", "upper_bound"]

#: The shares of the largest allowed bet: a mixture over them needs no guess of the effect's size.
BETS = tuple(2.0 ** (-k / 2) for k in range(1, 25))
#: Halvings of the interval in which a bound is sought.
STEPS = 32


def log_sign_test(wins: Series | int, losses: Series | int) -> Series:
    """Return the log e-value for "the first is right more often", of images on which exactly one is right.

    Under "not more often", wins are at most fair coin flips; the e-process is their likelihood ratio, mixed
    uniformly over chances above one half. Its closed form is twice a Beta function times the tail of the Beta
    distribution beyond one half, which is a binomial probability.

    Args:
        wins, losses: counts so far, as numbers or arrays of one shape.

    Source: the sequential form of McNemar's test; the mixture is Robbins's (Annals of Mathematical Statistics
    41, 1970).

    >>> round(float(log_sign_test(0, 0)), 9), round(float(log_sign_test(10, 0)), 2)
    (0.0, 5.23)
    """
    import numpy as np
    from scipy.special import betaln
    from scipy.stats import binom

    n = np.asarray(wins) + np.asarray(losses)
    tail = binom.logcdf(wins, n + 1, 0.5)
    value: Series = np.log(2) + betaln(np.asarray(wins) + 1, np.asarray(losses) + 1) + tail + n * np.log(2)
    return value


def log_capital(gains: Series, low: float, high: float, *, population: int | None = None) -> Series:
    """Return log e-values, one after each image, against "the mean of the gains is 0 or more".

    A gambler bets against the null hypothesis: each image multiplies the capital by 1 - b · gain, with b up
    to 1/high, so that it is never negative. The capital is averaged over 24 sizes of bets.

    Args:
        gains: [images], each between ``low`` (below 0) and ``high`` (above 0), in an order drawn at random.
        population: the number of images of which the gains are drawn without replacement. Then the null
            hypothesis is about the mean of exactly these, and the evidence becomes infinite as soon as the
            remaining ones cannot change the sign. None: about images like these.

    Raises:
        ValueError: a gain beyond the range.

    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (Journal of the
    Royal Statistical Society B 86, 2024): the hedged capital process; section 5 for sampling without
    replacement.
    """
    import numpy as np
    from scipy.special import logsumexp

    gains = np.asarray(gains, dtype=float)
    slack = 1e-9 * (high - low)
    if len(gains) and (gains.min() < low - slack or gains.max() > high + slack):
        raise ValueError(f"gains must lie between {low:g} and {high:g}")
    if not len(gains):
        return np.zeros(0)
    expected = np.zeros(len(gains))
    if population is not None:
        before = np.concatenate([[0.0], np.cumsum(gains)[:-1]])
        expected = -before / (population - np.arange(len(gains)))
    # Even if all remaining gains were the highest, the mean would stay below 0.
    certain = expected > high + slack
    room = np.where(certain, 1.0, np.maximum(high - expected, slack))
    bets = np.array(BETS)[:, None]
    with np.errstate(divide="ignore"):
        steps = np.log(np.maximum(1 - bets * (np.where(certain, 0.0, gains - expected) / room)[None], 0))
    capital: Series = logsumexp(np.cumsum(steps, axis=1), axis=0) - math.log(len(BETS))
    capital[np.cumsum(certain) > 0] = math.inf
    if population is not None and len(gains) >= population and gains.sum() < -slack:
        capital[-1] = math.inf
    return capital


def upper_bound(
    values: Series,
    low: float,
    high: float,
    alpha: float,
    weights: Series | None = None,
    *,
    heaviest: float | None = None,
    population: int | None = None,
) -> float:
    """Return the upper end of the one-sided confidence sequence of a mean after the last image.

    It is the smallest value that the evidence so far does not exclude, so that it never rises as images are
    added.

    Args:
        values: [images], between ``low`` and ``high``; ``weights``: of each, 1 by default. The mean is that
            of ``weights`` times ``values``, where weights average to 1.
        heaviest: the largest weight that any image can have; by default, of those seen.
        alpha: the chance that it is ever wrong.
        population: as for :func:`log_capital`.
    """
    import numpy as np

    weights = np.ones(len(values)) if weights is None else np.asarray(weights)
    heaviest = float(weights.max(initial=1.0)) if heaviest is None else heaviest
    below, above = low, high
    for _ in range(STEPS):
        middle = (below + above) / 2
        gains = weights * (np.asarray(values) - middle)
        ends = heaviest * (low - middle), heaviest * (high - middle)
        capital = log_capital(gains, *ends, population=population)
        if capital.max(initial=-math.inf) >= -math.log(alpha):
            above = middle
        else:
            below = middle
    return above


def images_needed(gains: Sequence[float] | Series, high: float, threshold: float) -> float:
    """Estimate how many images like these in total make the log evidence against "0 or more" pass a
    threshold; infinite if it does not grow.
    """
    import numpy as np

    gains = np.asarray(gains, dtype=float)
    if not len(gains):
        return math.inf
    with np.errstate(divide="ignore"):
        growth = np.log(np.maximum(1 - np.array(BETS)[:, None] * gains[None] / high, 0)).mean(1).max()
    return (threshold + math.log(len(BETS))) / growth if growth > 0 else math.inf
