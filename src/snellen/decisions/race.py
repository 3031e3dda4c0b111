"""A race between models on the same images: who is beaten leaves, and it ends when one is good enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from snellen.decisions.evidence import images_needed, log_capital, log_sign_test, upper_bound

if TYPE_CHECKING:
    from snellen.decisions.evidence import Series

__all__ = ["GROWTH", "Drop", "GapEstimate", "Race", "next_look"]

#: The first look, and the growth from one look to the next.
FIRST, GROWTH = 16, 1.15
#: E-values are shown up to this.
MOST_EVIDENCE = 1e9


@dataclass(frozen=True, slots=True)
class Drop:
    """Why an arm left: ``by`` is better, as known after ``n`` units."""

    by: str
    n: int


@dataclass(frozen=True, slots=True)
class GapEstimate:
    """An arm's score minus the leader's, with a confidence sequence.

    Attributes:
        more: the units that it would take to decide between them; None if that cannot be estimated.
        evidence: the largest e-value so far for the leader being better, at most a billion.
    """

    value: float
    low: float
    high: float
    more: int | None = None
    evidence: float = 1.0


@dataclass
class Race:
    """The state of a race, which only depends on the scores so far.

    A unit is an image with all its samples. Evidence about a pair is computed on the units that both have
    answered, in an order drawn before anything is asked. It holds at every look, whenever it comes.

    The budget of errors is split: half for dropping arms (an arm leaves when another's evidence against it
    passes 2(k - 1)/a), half for stopping (each of k - 1 upper bounds at a/(2(k - 1))). Only pairs with the
    unknown best arm can do harm, hence k - 1.

    Args:
        arms: all that ever entered, k of them.
        weights: of each unit in the order of the race: the sum over its samples, 1 on average.
        within: the margin: the winner may be worse than the best by at most this.
        alpha: the chance of an error.
        population: whether the question is about exactly these units, not about images like these.
        plain: whether every unit is one sample of weight 1 that is right or wrong.

    Attributes:
        dropped: arms that were beaten; ``withdrawn``: arms that could not go on, with the reason.
        certified: arms than which, as far as known, no arm is better by more than the margin; best first.
    """

    arms: Sequence[str]
    weights: Series
    within: float
    alpha: float = 0.05
    population: bool = False
    plain: bool = True
    dropped: dict[str, Drop] = field(default_factory=dict)
    withdrawn: dict[str, str] = field(default_factory=dict)
    certified: tuple[str, ...] = ()
    n: int = 0

    def __post_init__(self) -> None:
        self._heaviest = float(self.weights.max())
        self._threshold = math.log(2 * max(1, len(self.arms) - 1) / self.alpha)

    @property
    def alive(self) -> list[str]:
        """The arms in the race."""
        return [arm for arm in self.arms if arm not in self.dropped and arm not in self.withdrawn]

    @property
    def decided(self) -> bool:
        """Whether an arm can be recommended."""
        return bool(self.certified)

    def withdraw(self, arm: str, reason: str) -> None:
        """Take an arm out that cannot go on. Arms that it has beaten come back, as it cannot be chosen."""
        self.withdrawn[arm] = reason
        self.dropped = {name: drop for name, drop in self.dropped.items() if drop.by != arm and name != arm}
        self.certified = ()

    def look(self, scores: Mapping[str, Series]) -> None:
        """Drop arms and decide, by the scores so far.

        Args:
            scores: of each arm in the race, [units so far]: weight times score, summed over the unit's
                samples.
        """
        alive = self.alive
        self.n = len(next(iter(scores.values())))
        order = sorted(alive, key=lambda arm: -float(scores[arm].sum()))
        beaten: dict[str, Drop] = {}
        for arm in reversed(order):
            # Who beat the better arm was maybe beaten on the way; the last one stays.
            rivals = [other for other in order if other != arm and other not in beaten]
            by = next((r for r in rivals if self._better(scores[r], scores[arm])), None)
            if by is not None:
                beaten[arm] = Drop(by, self.n)
        self.dropped |= beaten
        order = [arm for arm in order if arm not in beaten]
        # Of a single arm that could be asked, nothing can be said.
        several = len(self.arms) - len(self.withdrawn) > 1
        self.certified = tuple(
            arm
            for arm in order
            if several and all(self._close(scores[other], scores[arm]) for other in order if other != arm)
        )

    def _better(self, first: Series, second: Series) -> bool:
        """Whether the first is better than the second, as far as evidence at any time so far."""
        return bool((first - second).sum() > 0 and self._evidence(first, second) >= self._threshold)

    def _evidence(self, first: Series, second: Series) -> float:
        """Return the largest log e-value so far for the first being better."""
        import numpy as np

        difference = first - second
        if self.plain and not self.population:
            evidence = log_sign_test(np.cumsum(difference > 0), np.cumsum(difference < 0))
        else:
            evidence = log_capital(-difference, -self._heaviest, self._heaviest, population=self._units)
        return float(evidence.max(initial=0.0))

    def _close(self, other: Series, winner: Series) -> bool:
        """Whether the other is at most ``within`` better."""
        gains = other - winner - self.within * self.weights[: self.n]
        if gains.sum() >= 0:
            return False
        evidence = log_capital(gains, *self._range(self.within), population=self._units)
        return bool(evidence.max() >= self._threshold)

    @property
    def _units(self) -> int | None:
        return len(self.weights) if self.population else None

    def _range(self, margin: float) -> tuple[float, float]:
        return -self._heaviest * (1 + margin), self._heaviest * (1 - margin)

    def gap(self, arm: Series, leader: Series) -> GapEstimate:
        """Estimate an arm's score minus the leader's, with a two-sided confidence sequence."""
        import numpy as np

        weights = self.weights[: len(arm)]
        values = (arm - leader) / np.where(
            weights > 0, weights, 1.0
        )  # those that cannot be read weigh nothing
        total = float(weights.sum())
        bound = partial(upper_bound, population=self._units, heaviest=self._heaviest)
        high = bound(values, -1, 1, self.alpha / 2, weights)
        low = -bound(-values, -1, 1, self.alpha / 2, weights)
        value = float((values * weights).sum()) / total if total else 0.0
        drop = images_needed((values * weights), self._heaviest, self._threshold)
        margin = self._range(self.within)[1]
        near = images_needed((values - self.within) * weights, margin, self._threshold)
        needed = min(drop, near)
        most = len(self.weights) if self.population else math.inf  # asking all of them always decides
        needed = min(needed, most)
        more = max(0, math.ceil(needed) - len(arm)) if needed < math.inf else None
        evidence = math.exp(min(self._evidence(leader, arm), math.log(MOST_EVIDENCE)))
        return GapEstimate(value, min(low, value), max(high, value), more, evidence)

    @property
    def enough(self) -> float:
        """The e-value at which an arm leaves."""
        return math.exp(self._threshold)


def next_look(n: int, units: int, growth: float = GROWTH) -> int:
    """Return how many units are answered at the next look: the same numbers after a restart.

    >>> next_look(0, 60), next_look(48, 60), next_look(200, 1000), next_look(200, 1000, 2)
    (16, 60, 230, 400)
    """
    return min(units, max(n + FIRST, math.ceil(n * growth)))
