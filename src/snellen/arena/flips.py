"""How few votes decide the first place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, islice
from typing import TYPE_CHECKING, NamedTuple

from snellen.arena.davidson import chances, fit
from snellen.arena.vote_counts import VoteCounts

if TYPE_CHECKING:
    from snellen.arena.vote_counts import Floats

__all__ = ["Flips", "fewest_flips"]

#: The most ways of turning one or two votes that are all tried.
TRIED = 400


class Flips(NamedTuple):
    """How few votes, given to the other side, put another first; which; whether fewer would not do."""

    votes: int
    challenger: int
    exact: bool


def fewest_flips(tally: VoteCounts, logs: Floats, ties: float, order: Sequence[int]) -> Flips | None:
    """Find how few decisive votes, given to the other side, put another model first.

    One and two votes are tried in every way, as long as there are at most ``TRIED`` ways. Beyond that, votes
    are turned in the order of their first-order influence on the gap to each of the next models, and the
    smallest number is found by refitting: an upper bound, since another choice might need fewer. Compare J.
    Huang et al., "Dropping just a handful of preferences can change top large language model rankings"
    (2025), who drop votes.
    """
    if len(tally.models) < 2:
        return None
    m, first = len(tally.models), order[0]

    def leader(turned: Sequence[tuple[int, int]]) -> tuple[int | None, float]:
        """Who is first, if another than before, and by how much, after turning votes of some cells."""
        counts = tally.totals.copy()
        for cell, number in turned:
            counts[cell] -= number
            counts[cell + (1 if tally.cells[cell] % 3 == 0 else -1)] += number
        now, _ = fit(m, tally.cells, counts)
        others = [k for k in range(m) if k != first]
        best = max(others, key=lambda k: (now[k], -order.index(k)))
        lead = float(now[best] - now[first])
        return (best, lead) if lead >= -1e-9 else (None, lead)

    decisive = [c for c, cell in enumerate(tally.cells) if cell % 3 < 2 and tally.totals[c] >= 1]
    tried = 0
    for number in (1, 2):
        every = (tuple(Counter(chosen).items()) for chosen in combinations_with_replacement(decisive, number))
        possible = (way for way in every if all(count <= tally.totals[c] for c, count in way))
        ways = list(islice(possible, TRIED + 1))
        if len(ways) > TRIED:
            break
        tried = number
        found = [(lead, who) for who, lead in map(leader, ways) if who is not None]
        if found:
            return Flips(number, max(found)[1], True)
    best: Flips | None = None
    for places in _by_influence(tally, logs, ties, order):
        low, high = tried, int(sum(tally.totals[c] for c in places))
        high = min(high, best.votes) if best is not None else high
        if high <= low or (who := leader(_turned(tally, places, high))[0]) is None:
            continue
        while high - low > 1:  # high votes replace the first model, low ones do not
            middle = (low + high) // 2
            other, _ = leader(_turned(tally, places, middle))
            low, high, who = (middle, high, who) if other is None else (low, middle, other)
        if best is None or high < best.votes:
            best = Flips(high, who, high == tried + 1)
    return best


def _turned(tally: VoteCounts, places: Sequence[int], k: int) -> list[tuple[int, int]]:
    """Return the first k votes of these cells, as cells with numbers."""
    chosen = []
    for c in places:
        take = min(k, int(tally.totals[c]))
        chosen.append((c, take))
        k -= take
        if not k:
            break
    return chosen


def _by_influence(tally: VoteCounts, logs: Floats, ties: float, order: Sequence[int]) -> Iterator[list[int]]:
    """Yield, for each of the three models behind the first, the cells whose votes close the gap when turned,
    those that close it most first.
    """
    import numpy as np

    m, first = len(tally.models), order[0]
    i, j, outcome = tally.cells // 3 // m, tally.cells // 3 % m, tally.cells % 3
    information = np.eye(m) * 1e-9
    for a, b in {(int(a), int(b)) for a, b in zip(i, j, strict=True)}:
        win, _, tie = chances(float(logs[a] - logs[b]), ties)
        n = tally.totals[(i == a) & (j == b)].sum()
        variance = win + tie / 4 - (win + tie / 2) ** 2
        step = np.zeros(m)
        step[[a, b]] = 1, -1
        information += n * variance * np.outer(step, step)
    inverse = np.linalg.pinv(information)
    for other in order[1:4]:  # the others are further away
        gap = np.zeros(m)
        gap[[first, other]] = 1, -1
        pull = gap @ inverse
        sign = np.where(outcome == 0, 1.0, np.where(outcome == 1, -1.0, 0.0))
        gain = sign * (pull[i] - pull[j])
        yield [int(c) for c in np.argsort(-gain, kind="stable") if gain[c] > 0 and tally.totals[c] >= 1]
