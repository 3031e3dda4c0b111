"""What the user must know about runs, next to their figures, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from snellen._util.words import counted
from snellen.metrics.registry import METRICS

if TYPE_CHECKING:
    from snellen.runs.run import Run

__all__ = ["skipped", "unscored"]

#: The most skipped samples to name after a run.
SKIPPED = 5


def skipped(runs: Sequence[Run]) -> Iterator[str]:
    """Name the samples that were skipped, once for each data set."""
    told = set()
    for run in runs:
        rows = run.manifest.data.skipped
        if rows and run.manifest.data.fingerprint not in told:
            told.add(run.manifest.data.fingerprint)
            yield f"Skipped: {counted(len(rows), 'sample')} of {run.data}:"
            yield from (f"  {row.where}: {row.reason}" for row in rows[:SKIPPED])
            if len(rows) > SKIPPED:
                yield f"  … and {len(rows) - SKIPPED} more; all of them: snellen show {run.id}{run.where}"


def unscored(run: Run) -> Iterator[str]:
    """Explain which scores of a run are missing, and why."""
    figures = run.metrics
    details = figures.protocol
    if details.get("judge_errors"):
        yield (
            f"Not judged by {details['judge']}: {counted(details['judge_errors'], 'answer')} of {run.id}. "
            f"Retry with: {run.resuming}"
        )
    truncated = figures.outcomes["truncated"]
    if truncated > 0.05 * figures.n:
        limit = run.manifest.protocol.options.get("max_tokens")
        counts = "scored as far as they go" if METRICS[run.primary].graded else "counted as wrong"
        yield (
            f"Cut off{f' at {limit} tokens' if limit else ''} and {counts}: {truncated} of "
            f"{figures.n} answers of {run.id}. Give them room: -P max_tokens="
            f"{4 * (limit or 256)} (for a reasoning model: -M max_tokens=8192, for this model alone)"
        )
    if details.get("extractor"):
        yield (
            f"{details['extractor']} read {details['extracted']} of the {details['extractor_asked']} answers "
            f"of {run.id} that the rules left unread."
        )
    if details.get("extractor_errors"):
        yield (
            f"Not read by {details['extractor']}: {counted(details['extractor_errors'], 'answer')} of "
            f"{run.id}. "
            f"Retry with: {run.resuming}"
        )
    if details.get("not_graded"):
        count = details["not_graded"]
        yield f"{details['judge']} gave no readable grade for {counted(count, 'answer')} of {run.id}."
    if not run.classifies:
        known = (run.headline.n or 0) if run.headline else 0
        if known < figures.n and run.primary != "judge":
            unknown = figures.n - known
            yield (
                f"{unknown} of {figures.n} samples of {run.id} have no usable reference answer, and no "
                f"{run.primary}."
            )
