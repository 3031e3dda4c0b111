"""The leaderboard on the terminal, best runs first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from snellen.metrics.format import UNREAD_NOTE, dollars, heading_of, mark, number
from snellen.metrics.registry import METRICS
from snellen.reports.tables import escape, format_metric, outcomes_of

if TYPE_CHECKING:
    from snellen.runs.run import Run

__all__ = ["leaderboards"]


def leaderboards(
    runs: Sequence[Run], width: int = 160, ranks: Mapping[str, int] | None = None
) -> list[Table]:
    """Build one table per data set and score, best runs first.

    Columns that do not fit into ``width`` characters are dropped and listed. Runs with the same rank (see
    :func:`snellen.leaderboards.ranking.rank_runs`) are tied.
    """
    groups = dict.fromkeys((run.data, run.primary, run.classifies) for run in runs)
    tables = [
        _leaderboard([r for r in runs if (r.data, r.primary, r.classifies) == group], width, ranks or {})
        for group in groups
    ]
    tables[
        -1
    ].caption = (
        "95% intervals next to the figures; every figure counts all samples but where it says of how many."
    )
    if ranks:
        tables[
            -1
        ].caption += " # is 1 + the number of runs that are significantly better; other runs are tied."
    if any(mark(run.metrics.outcomes) for run in runs):
        tables[-1].caption += f" {UNREAD_NOTE}"
    left_out = dict.fromkeys(name for table in tables for name in table.left_out)
    if left_out:
        tables[-1].caption += f" Hidden for lack of width: {', '.join(left_out)}."
    tables[-1].caption_justify = "left"
    return list(tables)


class _Board(Table):
    """A table that knows which columns it had no room for."""

    left_out: list[str]


def _leaderboard(runs: Sequence[Run], width: int, ranks: Mapping[str, int]) -> _Board:
    """Build the table of runs on one data set by one score."""
    columns: dict[str, Callable[[Run], str]] = {
        "#": lambda run: str(ranks.get(run.id, "–")),
        "model": lambda run: escape(run.model),
        "protocol": lambda run: escape(run.protocol),
        **{heading_of(name): partial(_score_of, name) for name in _scores(runs)},
        "questions": lambda run: number(run.metrics.questions),
        "items/s": lambda run: number(run.metrics.items_per_second),
        "cost $": lambda run: dollars(run.metrics.cost),
        "outcomes": outcomes_of,
    }
    if not any(run.metrics.cost is not None for run in runs):
        del columns["cost $"]
    if not ranks:
        del columns["#"]
    table = _Board(header_style="bold", title=escape(runs[0].data), title_justify="left")
    table.left_out = []
    others = reversed([heading_of(name) for name in _scores(runs) if name != runs[0].primary])
    lengths = [METRICS[name].title for name in _scores(runs) if METRICS[name].scale == 1]
    for name in ("weighted F1 %", "questions", "top-5 %", "items/s", *lengths, *others):
        if name in columns and _width(runs, columns) > width:
            del columns[name]
            table.left_out.append(name.removesuffix(" %"))
    for name in columns:
        words = name in ("model", "protocol", "outcomes")
        table.add_column(name, justify="left" if words else "right", no_wrap=name != "outcomes")
    for run in sorted(runs, key=_order):
        table.add_row(*(cell(run) for cell in columns.values()))
    return table


def _scores(runs: Sequence[Run]) -> list[str]:
    """Return the scores that a table of runs shows, starting with the one for ranking."""
    names = dict.fromkeys([runs[0].primary])
    for run in runs:
        names |= dict.fromkeys(run.metrics.scores)
    if "with_extractor" in names:  # stands next to the strict figure
        names = {runs[0].primary: None, "with_extractor": None} | names
    return [name for name in names if name != "balanced_accuracy"]


def _score_of(name: str, run: Run) -> str:
    return format_metric(name, run.metrics)


def _width(runs: Sequence[Run], columns: Mapping[str, Callable[[Run], str]]) -> int:
    """Return the width of a table with these columns."""
    cells = {heading: [cell(run) for run in runs] for heading, cell in columns.items()}
    longest = (max(cell_len(h), *(Text.from_markup(c).cell_len for c in cs)) for h, cs in cells.items())
    return sum(longest) + 3 * len(columns) + 1


def _order(run: Run) -> tuple[float, str]:
    headline = run.headline
    return (-headline.value if headline else math.inf, run.id)
