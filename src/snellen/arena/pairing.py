"""Choose the next pair of models. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from random import Random
from typing import NamedTuple

__all__ = ["BOOST", "Draw", "draw", "propensities"]

#: The most that a new model's chance of being drawn is raised.
BOOST = 5.0


class Draw(NamedTuple):
    """A pair that was drawn: left, right, and the pair's probability."""

    left: str
    right: str
    propensity: float


def propensities(
    players: Sequence[str], met: Mapping[frozenset[str], int], boost: float = BOOST
) -> dict[frozenset[str], float]:
    """Return the probability of each pair to meet next; they sum to 1.

    A pair that met n times weighs 1 / (n + 1), which evens out the counts, times each player's boost: (1
    + the mean number of battles) / (1 + its own), from 1 to ``boost``. No probability is ever 0, so that
    votes can be weighted by its inverse.

    Args:
        players: at least two, all different.
        met: how often each pair met.
        boost: 1 or more.

    Raises:
        ValueError: fewer than two players, or duplicates.
    """
    if len(set(players)) < 2 or len(set(players)) < len(players):
        raise ValueError("two players or more are needed, each once")
    own = dict.fromkeys(players, 0)
    for pair, count in met.items():
        for player in pair & own.keys():
            own[player] += count
    mean = sum(own.values()) / len(own)
    factor = {player: min(boost, max(1.0, (1 + mean) / (1 + count))) for player, count in own.items()}
    weights = {}
    for a, b in combinations(players, 2):
        pair = frozenset((a, b))
        weights[pair] = factor[a] * factor[b] / (met.get(pair, 0) + 1)
    total = sum(weights.values())
    return {pair: weight / total for pair, weight in weights.items()}


def draw(
    players: Sequence[str],
    met: Mapping[frozenset[str], int],
    rng: Random,
    without: Collection[frozenset[str]] = (),
) -> Draw | None:
    """Draw a pair by its propensity, with random sides; None if no pair is left.

    Args:
        without: pairs with nothing left to show; their probability goes to the others.

    Raises:
        ValueError: as for :func:`propensities`.
    """
    chances = {p: chance for p, chance in propensities(players, met).items() if p not in without}
    if not chances:
        return None
    total = sum(chances.values())
    chances = {pair: chance / total for pair, chance in chances.items()}
    (pair,) = rng.choices(list(chances), weights=list(chances.values()))
    left, right = rng.sample([player for player in players if player in pair], 2)
    return Draw(left, right, chances[pair])
