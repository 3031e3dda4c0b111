"""Progress on standard error: a bar on a terminal, otherwise a line from time to time."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from snellen.metrics.format import number
from snellen.metrics.registry import METRICS

if TYPE_CHECKING:
    from rich.progress import TaskID

    from snellen.engine.evaluation import Evaluation
    from snellen.engine.progress import Progress
    from snellen.runs.plan import Watch

__all__ = ["progress"]

#: Seconds between plain lines.
INTERVAL = 10.0


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Watch | None]:
    """Return a watcher that shows the progress of each run, and log messages."""
    if quiet:
        yield None
        return
    log, handler = logging.getLogger("snellen"), _OnStandardError()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        if sys.stderr.isatty():
            yield from _bars()
        else:
            yield _lines()
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _OnStandardError(logging.Handler):
    """Writes to the current standard error, which a progress bar may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def _status(evaluation: Evaluation, state: Progress) -> str:
    """Format items/s, the score so far, and outcomes."""
    parts = [f"{number(state.items_per_second)} items/s"]
    if state.accuracy is not None:
        protocol = evaluation.protocol
        metric = METRICS["accuracy" if protocol.classifies else protocol.primary]
        parts.append(f"{metric.heading} {metric.scale * state.accuracy:.1f}{metric.unit}")
    parts += [state.status] if state.status else []
    parts += [f"{count} {outcome}" for outcome, count in sorted(state.tally.outcomes.items())]
    return ", ".join(parts)


def _lines() -> Watch:
    last: dict[str, float] = {}

    def watch(examination: Evaluation, state: Progress) -> None:
        now = time.monotonic()
        due = now - last.get(examination.run, now - INTERVAL) >= INTERVAL
        if due or state.done == state.total:
            last[examination.run] = now
            line = f"{examination.run}: {state.done}/{state.total}, {_status(examination, state)}"
            print(line, file=sys.stderr, flush=True)

    return watch


def _bars() -> Iterator[Watch]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[status]}", style="dim", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def watch(examination: Evaluation, state: Progress) -> None:
            if examination.run not in tasks:
                name = f"{examination.model.name} {examination.protocol.name}"
                tasks[examination.run] = bars.add_task(name, total=state.total, status="")
            bars.update(tasks[examination.run], completed=state.done, status=_status(examination, state))

        yield watch
