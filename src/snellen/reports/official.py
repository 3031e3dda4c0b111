"""The figures of a benchmark's authors as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from snellen.metrics.format import number
from snellen.reports.tables import escape

if TYPE_CHECKING:
    from snellen.runs.run import Run

__all__ = ["official_cells", "official_note", "official_table"]

#: The heading of the figures, in terminals, reports and pages.
HEADING = "As the benchmark's authors print it"


def official_cells(run: Run) -> list[tuple[str, str, str]]:
    """Return name, value with its unit, and number of samples (or of groups of them) of each figure."""
    return [
        (
            f"{figure.group}: {figure.name}" if figure.group else figure.name,
            f"{figure.value:,.1f} points" if figure.points else f"{100 * figure.value:.2f}%",
            number(figure.n),
        )
        for figure in run.metrics.official
    ]


def official_note(run: Run) -> str:
    """Say whether the figures cover the whole benchmark."""
    n, whole = run.metrics.n, run.manifest.data.whole or run.manifest.data.n
    if run.status == "finished" and n == whole and not run.manifest.data.filters:
        return "An answer that could not be read is wrong. docs/benchmarks.md says what can be compared."
    return f"Of {n:,} of {whole:,} samples: not to be compared with published figures."


def official_table(run: Run) -> Table | None:
    """Return the table; None if the data set declares no figures."""
    if not run.metrics.official:
        return None
    table = Table(title=HEADING, title_justify="left", header_style="bold")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("counted", justify="right")
    for name, value, counted in official_cells(run):
        table.add_row(escape(name), value, counted)
    table.caption, table.caption_justify = official_note(run), "left"
    return table
