"""What runs say, in plain sentences: on top of reports, tables and leaderboards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from snellen.errors import UsageError
from snellen.leaderboards.ranking import PairedTests, pairable
from snellen.metrics.format import heading_of, scored, unread
from snellen.metrics.registry import METRICS
from snellen.runs.compare import Comparison
from snellen.runs.run import Run

__all__ = ["conclude", "conclusions"]

#: A difference with the ends of its interval, and whether it is significant.
Gap = tuple[float, float, float, bool]
#: A larger share of answers that could not be read is worth a sentence.
WORTH_SAYING = 0.05


def conclusions(runs: Sequence[Run], tests: PairedTests | None = None) -> list[str]:
    """Return sentences on runs, one text for each data set, sample selection and score.

    Only groups that are small enough for paired tests are compared (see
    :mod:`snellen.leaderboards.ranking`).

    Args:
        tests: makes the paired tests, or has made them for ranks.
    """
    tests = tests or PairedTests()
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.headline is not None:
            groups.setdefault((run.manifest.data.fingerprint, run.primary), []).append(run)
    texts = []
    several = len({run.data for run in runs}) > 1
    for group in groups.values():
        small = pairable([run.metrics.n for run in group])
        if sentences := conclude(group if small else [], tests) or _alone(group):
            start = f"{group[0].data}: " if several else ""
            texts.append(start + " ".join(sentences))
    return texts


def conclude(
    runs: Sequence[Run], tests: Callable[[Sequence[Run]], Sequence[Comparison]] | None = None
) -> list[str]:
    """Return which of some runs on the same samples is best, which are tied with it, and which are worse.

    Args:
        tests: compares all pairs.
    """
    if len(runs) < 2:
        return []
    try:
        pairs = (tests or PairedTests())(runs)
    except UsageError:  # for example samples without a reference
        return []
    names = _names(runs)
    if any(pair.raced for pair in pairs):
        return ["A race ended some of these runs by what it had seen; its decision counts (snellen choose)."]
    best = max(runs, key=lambda run: run.headline.value if run.headline else 0.0)
    gaps: dict[str, Gap] = {}  # of the best run to each other
    for pair in pairs:
        if best.id in (pair.first, pair.second):
            sign = 1 if pair.first == best.id else -1
            gap = pair.result.difference
            low, high = sorted((sign * gap.low, sign * gap.high))
            other = pair.second if sign == 1 else pair.first
            gaps[other] = (sign * gap.value, low, high, pair.real)
    tied = [id for id, (*_, real) in gaps.items() if not real]
    worse = [id for id, (*_, real) in gaps.items() if real]
    sentences = []
    if tied:
        largest = max(gaps[id][0] for id in tied)
        apart = _gap(best, gaps[tied[0]]) if len(tied) == 1 else f"differences up to {_points(best, largest)}"
        sentences.append(f"{_list([names[best.id], *(names[id] for id in tied)])} are tied ({apart}).")
    if worse:
        real = {frozenset((pair.first, pair.second)) for pair in pairs if pair.real}
        of_all = all(frozenset((w, top)) in real for w in worse for top in (best.id, *tied))
        than = {0: names[best.id], 1: "both"}.get(len(tied), "all of these") if of_all else names[best.id]
        verb = "is" if len(worse) == 1 else "are"
        if len(worse) == 1 and not tied:
            sentences.append(
                f"{names[best.id]} is better than {names[worse[0]]} ({_gap(best, gaps[worse[0]])})."
            )
        else:
            sentences.append(f"{_list([names[id] for id in worse])} {verb} worse than {than}.")
    return sentences + list(_unread(runs, names))


def _alone(runs: Sequence[Run]) -> list[str]:
    """Return sentences on runs that are not compared."""
    names = _names(runs)
    lost = list(_unread(runs, names))
    if len(runs) > 1:
        return lost
    (run,) = runs
    figure = run.headline
    assert figure is not None
    unit = "%" if METRICS[run.primary].is_share else ""
    interval = ""
    if figure.low is not None and figure.high is not None:
        interval = f" (95% CI {scored(run.primary, figure.low)} to {scored(run.primary, figure.high)})"
    heading = heading_of(run.primary).removesuffix(" %")
    first = f"{names[run.id]}: {heading} {scored(run.primary, figure.value)}{unit}{interval}."
    return [first, *lost]


def _gap(best: Run, gap: Gap) -> str:
    """Format a difference with its interval."""
    value, low, high, _ = gap
    ends = (scored(best.primary, end) for end in (low, high))
    return f"difference {_points(best, value)}, 95% CI {' to '.join(ends)}"


def _points(best: Run, difference: float) -> str:
    unit = " points" if METRICS[best.primary].is_share else ""
    return f"{scored(best.primary, difference)}{unit}"


def _names(runs: Sequence[Run]) -> dict[str, str]:
    """Return the shortest names that tell runs apart: the model's, with the protocol if necessary."""
    models = [run.model for run in runs]
    both = [f"{run.model} ({run.protocol})" for run in runs]
    names = {}
    for run, model, longer in zip(runs, models, both, strict=True):
        names[run.id] = model if models.count(model) == 1 else longer if both.count(longer) == 1 else run.id
    return names


def _unread(runs: Iterable[Run], names: dict[str, str]) -> Iterable[str]:
    for run in runs:
        share = unread(run.metrics.outcomes)
        if share > WORTH_SAYING:
            yield f"{100 * share:.0f}% of {names[run.id]}'s answers could not be read."


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
