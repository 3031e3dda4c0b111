"""The ranking rule for the command line, reports and the browser; averages; Pareto fronts.

A run's rank is 1 + the number of runs that are significantly better on the same samples by the same
score. Small groups are ranked by paired tests (:func:`snellen.runs.compare.compare`), larger ones by
their confidence intervals.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from snellen.errors import UsageError
from snellen.runs.compare import Comparison, compare
from snellen.runs.run import Run

__all__ = [
    "Average",
    "Candidate",
    "PairedTests",
    "Ranks",
    "averages",
    "interval_ranks",
    "pairable",
    "pareto",
    "rank",
    "rank_runs",
]

#: Groups of at most this many runs and samples are ranked by paired tests.
PAIRED_RUNS, PAIRED_SAMPLES = 10, 20_000


class Candidate(NamedTuple):
    """A finished run with the confidence interval of its primary score; ``n`` is the number of samples."""

    id: str
    low: float | None
    high: float | None
    n: int


class Ranks(NamedTuple):
    """Ranks by run id, and whether they come from paired tests (otherwise from intervals)."""

    ranks: Mapping[str, int]
    paired: bool


class PairedTests:
    """Paired tests of all pairs of some runs, made once, so that ranks and sentences share them."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, ...], list[Comparison]] = {}

    def __call__(self, runs: Sequence[Run]) -> list[Comparison]:
        """Return the tests.

        Raises:
            UsageError: as for :func:`snellen.runs.compare.compare`.
        """
        key = tuple(run.id for run in runs)
        if key not in self._made:
            self._made[key] = compare(runs, across=True)
        return self._made[key]


def pairable(sizes: Sequence[int]) -> bool:
    """Return whether runs with these numbers of samples are few and small enough for paired tests."""
    return 1 < len(sizes) <= PAIRED_RUNS and sum(sizes) <= PAIRED_SAMPLES


def rank(
    candidates: Sequence[Candidate], load: Callable[[], Sequence[Run]], tests: PairedTests | None = None
) -> Ranks:
    """Rank runs of the same samples by the same score. Runs without a significant difference share a rank.

    Args:
        load: opens the candidates' runs; called only for paired tests.
        tests: makes them, or has made them.
    """
    if pairable([candidate.n for candidate in candidates]):
        runs = load()
        try:
            return Ranks(_paired_ranks(runs, (tests or PairedTests())(runs)), True)
        except UsageError:  # for example samples without a reference, which have figures but no tests
            return Ranks({}, False)
    return Ranks(interval_ranks(candidates), False)


def rank_runs(runs: Sequence[Run], tests: PairedTests | None = None) -> dict[str, int]:
    """Rank runs of several data sets and scores, each among those with the same samples and score.

    Runs with nothing to compare to are omitted.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.status == "finished" and run.headline:
            groups.setdefault((run.manifest.data.fingerprint, run.primary), []).append(run)
    ranks: dict[str, int] = {}
    for group in groups.values():
        if len(group) > 1:
            candidates = [_candidate(run) for run in group]
            ranks |= rank(candidates, partial(list, group), tests).ranks
    return ranks


def _candidate(run: Run) -> Candidate:
    figure = run.headline
    return Candidate(run.id, figure.low if figure else None, figure.high if figure else None, run.metrics.n)


def _paired_ranks(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> dict[str, int]:
    ranks = {run.id: 1 for run in runs}
    for comparison in comparisons:
        if comparison.real:
            better = comparison.result.difference.value > 0
            ranks[comparison.second if better else comparison.first] += 1
    return ranks


def interval_ranks(candidates: Sequence[Candidate]) -> dict[str, int]:
    """Return 1 + the number of intervals entirely above one's own; overlapping intervals are tied."""
    known = [(c.id, c.low, c.high) for c in candidates if c.low is not None and c.high is not None]
    lows = sorted(low for _, low, _ in known)
    return {id: 1 + len(lows) - bisect_right(lows, high) for id, _, high in known}


@dataclass(frozen=True)
class Average:
    """A model over several benchmarks.

    Attributes:
        average: the mean of its scores; None if one is missing.
        rank: the mean of its ranks on its benchmarks, each 1 + the number of strictly better models.
        missing: the number of benchmarks without a score.
        scores: by benchmark; None if missing.
    """

    model: str
    average: float | None
    rank: float | None
    missing: int
    scores: Mapping[str, float | None]

    def as_dict(self) -> dict[str, Any]:
        """Return one flat row."""
        return {"model": self.model, "average": self.average, "rank": self.rank, **self.scores}


def averages(scores: Mapping[str, Mapping[str, float | None]]) -> list[Average]:
    """Average scores and ranks, best average first; models with missing scores follow, by rank.

    Source: the Open VLM Leaderboard (github.com/open-compass/VLMEvalKit): unweighted means.

    Args:
        scores: by model and benchmark.
    """
    rows = []
    for model, own in scores.items():
        known = {name: value for name, value in own.items() if value is not None}
        places = [
            1 + sum((theirs := other.get(name)) is not None and theirs > value for other in scores.values())
            for name, value in known.items()
        ]
        average = sum(known.values()) / len(known) if known and len(known) == len(own) else None
        rank = sum(places) / len(places) if places else None
        rows.append(Average(model, average, rank, len(own) - len(known), dict(own)))
    return sorted(
        rows,
        key=lambda a: (a.average is None, -(a.average or 0), a.missing, a.rank or float("inf"), a.model),
    )


def pareto(points: Sequence[tuple[float, float]], *, small: bool = False) -> list[int]:
    """Return the indices of points on the Pareto front, by x: large y, and large x (or ``small``)."""
    sign = 1 if small else -1
    order = sorted(range(len(points)), key=lambda i: (sign * points[i][0], -points[i][1]))
    best, front = float("-inf"), []
    for i in order:
        if points[i][1] > best:
            best = points[i][1]
            front.append(i)
    return sorted(front, key=lambda i: points[i][0])
