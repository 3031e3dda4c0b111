"""Rank models by votes: Bradley–Terry with ties, intervals, and the robustness of the first place.

The model is Davidson's (:mod:`snellen.arena.davidson`), fitted to counts per pair rather than single votes,
so that a million votes take no longer than a thousand.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from snellen.arena.davidson import chances, fit
from snellen.arena.flips import fewest_flips
from snellen.arena.vote_counts import FEW_VOTERS, VoteCounts
from snellen.metrics.stats import LEVEL, samples_needed

if TYPE_CHECKING:
    from snellen.arena.vote_counts import Counts, Floats

__all__ = ["Ranking", "Standing", "rank", "ranking"]

REPLICATES = 500
#: The customary scale: 400 points per factor of ten in strength, centered at 1000.
SCALE, CENTER = 400.0, 1000.0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model's place.

    Attributes:
        rating: on the scale where 400 points are a factor of ten in strength and the mean is 1000.
        low, high: the 95% interval.
        rank: 1 + the number of models whose intervals lie entirely above this one's: the best possible rank.
        worst: the number of models minus those whose intervals lie entirely below this one's.
        win_rate: the share of its votes that it won, counting ties as half.
        needed: roughly how many more direct votes would separate it from the next model; None for the last
            model, or if the two are so close that no number would.
        group: models of one group met each other, directly or through others; models of different groups
            never did and cannot be compared. Ratings, ranks and ``needed`` hold within a group.
    """

    model: str
    rating: float
    low: float
    high: float
    rank: int
    worst: int
    votes: int
    wins: int
    losses: int
    ties: int
    win_rate: float
    needed: int | None
    group: int = 0


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """All places, best first.

    Attributes:
        standings: one per model.
        votes, voters: the size of the data.
        clustered: whether voters were resampled for the intervals (otherwise votes were).
        ties: Davidson's v: 0 if nothing ever ties.
        rates: the share of votes that the row won against the column, counting ties as half; None if the two
            never met. In the order of the standings.
        meetings: the number of votes behind each rate.
        flips: how many decisive votes would have to change sides for another model to be first; None if there
            is no second model, or no number would do.
        challenger: the model that would then be first.
        flips_exact: whether fewer votes would not do; otherwise the number is an upper bound.
        replicates: ratings under resampled votes, [replicates, models], in the order of the standings.
        style: the effect of each style feature, if controlled for: the log-odds of winning for an answer that
            has all of it.
    """

    standings: tuple[Standing, ...]
    votes: int
    voters: int
    clustered: bool
    ties: float
    rates: tuple[tuple[float | None, ...], ...]
    meetings: tuple[tuple[int, ...], ...]
    flips: int | None
    challenger: str
    flips_exact: bool
    replicates: Floats
    style: tuple[tuple[str, float, float, float], ...] = ()

    @property
    def groups(self) -> int:
        """The number of groups of models that never met each other."""
        return 1 + max(standing.group for standing in self.standings)

    def as_dict(self) -> dict[str, Any]:
        """Everything except the replicates, as JSON."""
        return {
            "standings": [asdict(standing) for standing in self.standings],
            **{name: getattr(self, name) for name in ("votes", "voters", "clustered", "ties", "groups")},
            "win_rates": {
                standing.model: dict(zip((s.model for s in self.standings), row, strict=True))
                for standing, row in zip(self.standings, self.rates, strict=True)
            },
            "flips": self.flips,
            "challenger": self.challenger,
            "flips_exact": self.flips_exact,
            "style": [dict(zip(("feature", "value", "low", "high"), row, strict=True)) for row in self.style],
        }


def _points(log_strengths: Floats) -> Floats:
    points: Floats = CENTER + SCALE / math.log(10) * log_strengths
    return points


def rank(tally: VoteCounts, *, replicates: int = REPLICATES, seed: int = 0) -> Ranking | None:
    """Rank models by votes; None without votes.

    Intervals are percentiles over resampled votes (see :meth:`VoteCounts.resampled`). With at least
    ``FEW_VOTERS`` voters, whole voters are resampled; with fewer, votes are, and the intervals describe these
    voters' opinion rather than everyone's.

    Raises:
        MissingExtra: evalica is not installed.
    """
    import numpy as np

    if not tally.votes:
        return None
    m = len(tally.models)
    logs, ties = fit(m, tally.cells, tally.totals)
    drawn = tally.resampled(replicates, seed)
    again = np.stack([fit(m, tally.cells, counts)[0] for counts in drawn])
    return ranking(tally, logs, ties, again)


def ranking(
    tally: VoteCounts,
    logs: Floats,
    ties: float,
    again: Floats,
    style: tuple[tuple[str, float, float, float], ...] = (),
    *,
    styled: bool = False,
) -> Ranking:
    """Build the ranking from log-strengths, v, and log-strengths under resampled votes."""
    # Long: one algorithm, whose steps share nearly all of its state.
    import numpy as np

    m = len(tally.models)
    won = _won(tally)
    group = _groups(won)
    for k in range(group.max() + 1):  # votes cannot compare two groups
        members = group == k
        logs[members] -= logs[members].mean()
        again[:, members] -= again[:, members].mean(axis=1, keepdims=True)
    low, high = np.quantile(_points(again), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    ratings = _points(logs)
    low, high = np.minimum(low, ratings), np.maximum(high, ratings)
    order = sorted(range(m), key=lambda i: (group[i], -ratings[i], tally.models[i]))
    wins, losses, drawn = won[:, :, 0].sum(axis=1), won[:, :, 0].sum(axis=0), won[:, :, 1].sum(axis=1)
    met = wins + losses + drawn
    standings = []
    for place, i in enumerate(order):
        members = group == group[i]
        follower = order[place + 1] if place + 1 < m and members[order[place + 1]] else None
        standings.append(
            Standing(
                model=tally.models[i],
                rating=float(ratings[i]),
                low=float(low[i]),
                high=float(high[i]),
                rank=1 + int((low[members] > high[i]).sum()),
                worst=int(members.sum() - (high[members] < low[i]).sum()),
                votes=int(met[i]),
                wins=int(wins[i]),
                losses=int(losses[i]),
                ties=int(drawn[i]),
                win_rate=float((wins[i] + drawn[i] / 2) / met[i]) if met[i] else math.nan,
                needed=None if follower is None else _needed(float(logs[i] - logs[follower]), ties),
                group=int(group[i]),
            )
        )
    meetings = won[:, :, 0] + won[:, :, 0].T + won[:, :, 1]
    rates = tuple(
        tuple(
            float((won[i, j, 0] + won[i, j, 1] / 2) / meetings[i, j]) if meetings[i, j] else None
            for j in order
        )
        for i in order
    )
    # The search for the fewest flips ignores style, so it runs only without style control, and only if
    # there is a single first place.
    alone = not styled and not group.any()
    flips = fewest_flips(tally, logs, ties, order) if alone else None
    return Ranking(
        standings=tuple(standings),
        votes=tally.votes,
        voters=tally.voters,
        clustered=tally.voters >= FEW_VOTERS,
        ties=ties,
        rates=rates,
        meetings=tuple(tuple(int(meetings[i, j]) for j in order) for i in order),
        flips=None if flips is None else flips.votes,
        challenger="" if flips is None else tally.models[flips.challenger],
        flips_exact=flips is not None and flips.exact,
        replicates=_points(again)[:, order],
        style=style,
    )


def _won(tally: VoteCounts) -> Floats:
    """Count how often the row beat the column and how often they tied, [models, models, 2]."""
    import numpy as np

    m = len(tally.models)
    wins = np.zeros((m, m, 2))
    i, j, outcome = tally.cells // 3 // m, tally.cells // 3 % m, tally.cells % 3
    for a, b, o, n in zip(i, j, outcome, tally.totals, strict=True):
        if o == 2:
            wins[a, b, 1] += n
            wins[b, a, 1] += n
        else:
            wins[(a, b, 0) if o == 0 else (b, a, 0)] += n
    return wins


def _groups(won: Floats) -> Counts:
    """Return each model's group of models that met, with the largest group first."""
    import numpy as np
    from scipy.sparse.csgraph import connected_components

    count, labels = connected_components(won.sum(axis=2) > 0, directed=False)
    sizes = np.bincount(labels, minlength=count)
    places = np.empty(count, dtype=np.int64)
    places[np.argsort(-sizes, kind="stable")] = np.arange(count)
    return places[labels]


def _needed(gap: float, ties: float) -> int | None:
    """Return the number of direct votes that detect this gap at the 5% level with 80% power.

    See :func:`snellen.metrics.stats.samples_needed`.
    """
    win, loss, _ = chances(gap, ties)
    if win - loss < 1e-3:
        return None
    return samples_needed(win - loss, min(1.0, win + loss))
