"""Who meets whom: pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from random import Random
from typing import NamedTuple

__all__ = ["BOOST", "Draw", "draw", "propensities"]

#: How many times likelier a new model is drawn than one that has met as many as the others, at most.
BOOST = 5.0


class Draw(NamedTuple):
    """A pair that was drawn: who stands on the left and the right, and how likely the pair was."""

    left: str
    right: str
    propensity: float


def propensities(
    players: Sequence[str], met: Mapping[frozenset[str], int], boost: float = BOOST
) -> dict[frozenset[str], float]:
    """How likely each pair is to meet next; they sum to 1.

    A pair that met n times weighs 1 / (n + 1), so that counts even out, times each player's boost: (1 + the
    mean number of battles) / (1 + its own), from 1 to ``boost``. No pair's chance is ever 0, so that votes
    can be weighted by the inverse of it.

    Args:
        players: at least two, all different.
        met: how often each pair met.
        boost: 1 or more.

    Raises:
        ValueError: fewer than two players, or one twice.
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
    """A pair by its propensity, sides at random; None where no pair is left.

    Args:
        without: pairs that have nothing left to show; the others share their chances.

    Raises:
        ValueError: as :func:`propensities`.
    """
    chances = {p: chance for p, chance in propensities(players, met).items() if p not in without}
    if not chances:
        return None
    total = sum(chances.values())
    chances = {pair: chance / total for pair, chance in chances.items()}
    (pair,) = rng.choices(list(chances), weights=list(chances.values()))
    left, right = rng.sample([player for player in players if player in pair], 2)
    return Draw(left, right, chances[pair])
