"""Check whether a suite's claims hold in its runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import mean
from typing import Any

from snellen._util.words import counted
from snellen.errors import UsageError
from snellen.metrics.stats import LEVEL, holm
from snellen.runs.compare import compare
from snellen.runs.run import Run
from snellen.suites.completed import CompletedRun
from snellen.suites.suite import Claim, Select

__all__ = ["verdict"]


def _kind(run: Run) -> str:
    """Return the kind of a run's model: ``dual encoder``, ``classifier``, or ``generative``."""
    kind = str(run.manifest.model.identity.get("kind", ""))
    return kind if kind in ("dual encoder", "classifier") else "generative"


def _selected(select: Select, done: Sequence[CompletedRun]) -> list[CompletedRun]:
    return [
        d
        for d in done
        if d.part.name in select.parts and d.run.headline and select.kind in (None, _kind(d.run))
    ]


def verdict(claim: Claim, done: Sequence[CompletedRun]) -> tuple[str, str]:
    """Return the evidence for a claim, and whether it holds."""
    if claim.not_measured:
        return f"not measured: {claim.not_measured}", "open"
    assert claim.lower is not None
    assert claim.higher is not None
    lower, higher = _selected(claim.lower, done), _selected(claim.higher, done)
    pairs = list(_best_pairs(lower, higher))
    if not pairs:
        return "no comparable runs", "open"
    failed = sum(run.metrics.outcomes["error"] for pair in pairs for run in pair)
    if failed:
        return f"{counted(failed, 'sample')} ended in an error, so the claim is undecided", "open"
    if claim.spread is not None:
        return _of_spread(_selected(claim.spread, done), pairs)
    try:
        comparisons = [compare([low, high], across=True)[0] for low, high in pairs]
    except UsageError as error:  # for example samples without a score
        return str(error), "open"
    evidence, verdicts = [], set()
    for (low, high), comparison, p in zip(
        pairs, comparisons, holm([comparison.result.p for comparison in comparisons]), strict=True
    ):
        gap = comparison.result.difference
        evidence.append(f"{low.data}: {low.model} {100 * gap.value:+.1f} points against {high.model}")
        real = p < 1 - LEVEL
        verdicts.add("undecided" if not real else "holds" if gap.value < 0 else "does not hold")
    if len(verdicts) == 1:
        return "; ".join(evidence), verdicts.pop()
    return "; ".join(evidence), "holds in part" if "holds" in verdicts else "does not hold"


def _best_pairs(lower: Sequence[CompletedRun], higher: Sequence[CompletedRun]) -> Iterator[tuple[Run, Run]]:
    """For each data set and each setting that both have, return the best run of each of two kinds."""
    groups: dict[tuple[str, str, Any], tuple[list[Run], list[Run]]] = defaultdict(lambda: ([], []))
    for i, side in enumerate((lower, higher)):
        for completed in side:
            setting = next(iter(completed.setting.values()), None)
            groups[completed.run.manifest.data.fingerprint, completed.run.primary, setting][i].append(
                completed.run
            )
    for low, high in groups.values():
        if low and high:
            yield max(low, key=_value), max(high, key=_value)


def _value(run: Run) -> float:
    return float(run.headline.value) if run.headline else 0.0


def _of_spread(spread: Sequence[CompletedRun], pairs: Sequence[tuple[Run, Run]]) -> tuple[str, str]:
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for completed in spread:
        groups[completed.run.model, completed.run.source].append(_value(completed.run))
    widths = [max(values) - min(values) for values in groups.values() if len(values) > 1]
    if not widths:
        return "no runs that differ in it", "open"
    names = {data for (_, data), values in groups.items() if len(values) > 1}
    gaps = [_value(high) - _value(low) for low, high in pairs if low.source in names]
    if not gaps:
        return "no gap measured on the same data", "open"
    gap = mean(gaps)
    evidence = f"{100 * max(widths):.1f} points at most; the gap is {100 * gap:.1f}"
    return evidence, "holds" if max(widths) < gap else "does not hold"
