"""How far to trust votes: self-consistency, agreement between voters, position bias."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snellen.arena.vote_counts import FEW_VOTERS
from snellen.metrics.stats import Estimate, rate
from snellen.storage.vote_rows import CastVote

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Agreement", "Quality", "agreement", "assess", "preferred_wrong"]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What repeated battles and swapped sides show.

    Attributes:
        consistency: the share of repeated battles in which a voter gave the same answer; None without any.
        repeated: the number of repeated battles.
        left: the share of decisive votes for the left side; one half if sides do not matter.
        decisive: the number of decisive votes.
        alpha: Krippendorff's alpha (nominal) over items that several voters judged: 1 is perfect
            agreement, 0 is chance; None if no item was judged twice.
        shared: the number of items that several voters judged.
    """

    consistency: Estimate | None
    repeated: int
    left: Estimate | None
    decisive: int
    alpha: float | None
    shared: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "self_consistency": None if self.consistency is None else self.consistency.as_dict(),
            "repeated": self.repeated,
            "left_share": None if self.left is None else self.left.as_dict(),
            "decisive": self.decisive,
            "krippendorff_alpha": self.alpha,
            "shared_items": self.shared,
        }


def assess(votes: Sequence[CastVote]) -> Quality:
    """Compute self-consistency, position bias and agreement of votes.

    Intervals resample voters, or votes if there are fewer than ``FEW_VOTERS``.

    Source of alpha: K. Krippendorff, *Content analysis: an introduction to its methodology* (2018), ch. 12.
    """
    known = {(vote.battle, vote.voter): vote for vote in votes}
    again = [
        (vote, first)
        for vote in votes
        if vote.repeats is not None and (first := known.get((vote.repeats, vote.voter))) is not None
    ]
    same = [vote.winner == first.winner for vote, first in again]
    decisive = [vote for vote in votes if vote.choice in ("left", "right")]
    alpha, shared = _alpha([vote for vote in votes if vote.repeats is None])
    return Quality(
        consistency=rate(same, _clusters([vote for vote, _ in again])) if same else None,
        repeated=len(same),
        left=rate([v.choice == "left" for v in decisive], _clusters(decisive)) if decisive else None,
        decisive=len(decisive),
        alpha=alpha,
        shared=shared,
    )


def _clusters(votes: Sequence[CastVote]) -> list[str]:
    """Return the cluster of each vote: its voter, or itself if voters are few."""
    several = len({vote.voter for vote in votes}) >= FEW_VOTERS
    return [vote.voter if several else vote.battle for vote in votes]


def _alpha(votes: Sequence[CastVote]) -> tuple[float | None, int]:
    """Compute nominal alpha from counts per item, since a table of voters by items would be almost empty.

    Judgments are relative to the pair: with model names as categories, voters would "agree" that nobody
    prefers a model that was not shown.
    """
    by_item: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for vote in votes:
        pair = sorted((vote.left, vote.right_))
        said = ("first", "second")[pair.index(vote.winner)] if vote.winner in pair else vote.choice
        by_item[vote.item, *pair].setdefault(vote.voter, said)
    shared = [Counter(cast.values()) for cast in by_item.values() if len(cast) > 1]
    totals: Counter[str] = sum(shared, Counter())
    n = totals.total()
    expected = n**2 - sum(count**2 for count in totals.values())
    if not expected:  # no judgments, or unanimous ones, for which chance agreement is undefined
        return None, len(shared)
    apart = sum(
        (m**2 - sum(c**2 for c in cast.values())) / (m - 1) for cast in shared for m in [cast.total()]
    )
    return 1 - (n - 1) * apart / expected, len(shared)


def preferred_wrong(votes: Sequence[CastVote]) -> tuple[Estimate, int] | None:
    """Count how often the wrong answer was preferred, among decisive votes with exactly one right answer."""
    once = [vote for vote in votes if vote.repeats is None and vote.choice in ("left", "right")]
    decided = [v for v in once if None not in v.right and v.right[0] != v.right[1]]
    if not decided:
        return None
    wrong = [not v.right[0 if v.choice == "left" else 1] for v in decided]
    return rate(wrong, _clusters(decided)), len(decided)


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b between votes' ratings and a benchmark's scores, over the models that have both."""

    tau: float
    low: float
    high: float
    models: int


def agreement(
    models: Sequence[str], ratings: Sequence[float], again: NDArray[np.float64], scores: Mapping[str, float]
) -> Agreement | None:
    """Measure whether people prefer models that score well; None for fewer than three models, or if all are
    tied.

    The interval is over resampled votes; the benchmark's scores are treated as exact.

    Source: M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945), through scipy.

    Args:
        models: the rated models.
        ratings: one per model.
        again: ratings under resampled votes, [replicates, models].
        scores: of a benchmark, by model.
    """
    import numpy as np
    from scipy.stats import kendalltau

    if len(set(ratings)) < 2:
        return None
    shared = [i for i, name in enumerate(models) if name in scores]
    theirs = [scores[models[i]] for i in shared]
    if len(shared) < 3 or len(set(theirs)) < 2:
        return None
    tau = float(kendalltau([ratings[i] for i in shared], theirs).statistic)
    if not np.isfinite(tau):  # all ratings alike
        return None
    drawn = [float(kendalltau(row[shared], theirs).statistic) for row in again]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Agreement(tau, min(tau, float(low)), max(tau, float(high)), len(shared))
