"""The psychometric curve: the share of correct answers against the level of difficulty.

P(right | x) = γ + (1 - γ - λ) / (1 + exp(-β (log x - α))), a logistic curve of the logarithm of the
level, with the guessing rate γ, the lapse rate λ (at most 0.1, or what a known ceiling leaves), the threshold
α and the slope β. Sources: Wichmann and Hill,
"The psychometric function: I" (Perception & Psychophysics 63, 2001) for the form and the bound on lapses; the
interval is the profile likelihood's (Venzon and Moolgavkar, Applied Statistics 37, 1988).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from snellen.metrics.stats import LEVEL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Curve", "CurvePoint", "fit"]

#: The grid of lapse rates, and of slopes per e-fold of the level.
LAPSES = (0.0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1)
SLOPES = (0.5, 40.0, 48)
#: The grid of thresholds, and how far it extends beyond the chart, in steps.
THRESHOLDS = 400
BEYOND = 1.0


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One level: how many of ``n`` answers were right."""

    level: float
    right: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A fitted curve.

    Attributes:
        points: the data.
        guess: γ.
        location: exp α, the level at which the curve is halfway between guessing and its maximum; None if the
            answers are no better than guessing at any level.
        low, high: its 95% interval; None if unbounded on that side, because the chart ends before.
        slope, lapse: β and λ.
        rising: whether a higher level is easier.
        beyond: "hard" or "easy" if the most likely location lies beyond that end of the search range, so that
            only this is known.
    """

    points: tuple[CurvePoint, ...]
    guess: float
    location: float | None
    low: float | None = None
    high: float | None = None
    slope: float = 0.0
    lapse: float = 0.0
    rising: bool = True
    beyond: Literal["", "hard", "easy"] = ""

    @property
    def threshold(self) -> float | None:
        """The location, if it lies within the chart."""
        return None if self.beyond else self.location

    def rate(self, level: float) -> float:
        """Return the expected share of correct answers at a level."""
        if self.location is None:
            return self.guess
        far = math.log(level / self.location) * (1 if self.rising else -1)
        return float(_curve(self.guess, self.lapse, self.slope * far))

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "threshold": self.threshold}


def _curve(guess: float, lapse: Any, z: Any) -> Any:
    from scipy.special import expit

    return guess + (1 - guess - lapse) * expit(z)


def fit(
    points: Sequence[CurvePoint], guess: float, *, rising: bool = True, ceiling: float | None = None
) -> Curve:
    """Fit the maximum-likelihood curve by grid search, which always ends and needs no starting values.

    Args:
        points: at least two levels, all above 0.
        guess: the share of correct answers when guessing.
        rising: whether a higher level is easier.
        ceiling: the share of correct answers where nothing is hard, if it is known; otherwise lapses are
            estimated.

    Raises:
        ValueError: fewer than two levels, or a level that is not above 0.
    """
    # Long: one search whose steps share nearly all of its state.
    import numpy as np
    from scipy.stats import chi2

    known = tuple(sorted((p for p in points if p.n), key=lambda p: p.level))
    if len(known) < 2 or known[0].level <= 0:
        raise ValueError("a curve needs at least two levels above 0")
    logs = np.log([p.level for p in known]) * (1 if rising else -1)
    right = np.array([p.right for p in known], dtype=float)
    wrong = np.array([p.n for p in known], dtype=float) - right
    step = float(logs.max() - logs.min()) / (len(known) - 1)
    thresholds = np.linspace(logs.min() - BEYOND * step, logs.max() + BEYOND * step, THRESHOLDS)
    slopes = np.geomspace(*SLOPES)
    best = np.full(THRESHOLDS, -np.inf)  # the profile: the maximum likelihood for each threshold
    chosen = [(0.0, 0.0)] * THRESHOLDS
    for lapse in LAPSES if ceiling is None else (1 - ceiling,):
        z = slopes[None, :, None] * (logs[None, None, :] - thresholds[:, None, None])
        likelihood = _likelihood(_curve(guess, lapse, z), right, wrong)
        places = likelihood.argmax(1)
        values = likelihood[np.arange(THRESHOLDS), places]
        for i in np.flatnonzero(values > best + 1e-12):
            best[i], chosen[i] = values[i], (float(slopes[places[i]]), lapse)
    top = int(best.argmax())
    by_chance = float(_likelihood(np.full(len(known), guess), right, wrong))
    share = float(right.sum() / (right.sum() + wrong.sum()))
    # A test of the three parameters against guessing only. Worse than guessing is not seeing either.
    if share <= guess or 2 * (best[top] - by_chance) < chi2.ppf(LEVEL, 3):
        return Curve(points=known, guess=guess, location=None, rising=rising)
    within = np.flatnonzero(2 * (best[top] - best) <= chi2.ppf(LEVEL, 1))
    # The bounds lie between the last threshold inside and the first one outside: take the outer one.
    outer = (within[0] - 1, within[-1] + 1)
    ends = [None if i < 0 or i >= THRESHOLDS else thresholds[i] for i in outer]
    low, high = (None if end is None else float(np.exp(end if rising else -end)) for end in ends)
    slope, lapse = chosen[top]
    threshold = float(np.exp(thresholds[top] if rising else -thresholds[top]))
    if not rising:
        low, high = high, low
    beyond: Literal["", "hard", "easy"] = "hard" if top == 0 else "easy" if top == THRESHOLDS - 1 else ""
    return Curve(
        points=known,
        guess=guess,
        location=threshold,
        low=low,
        high=high,
        slope=slope,
        lapse=lapse,
        rising=rising,
        beyond=beyond,
    )


def _likelihood(rates: NDArray[np.float64], right: Any, wrong: Any) -> Any:
    """Return the log-likelihood of counts given rates, summed over the last axis."""
    import numpy as np

    safe = np.clip(rates, 1e-9, 1 - 1e-9)
    return (right * np.log(safe) + wrong * np.log1p(-safe)).sum(-1)
