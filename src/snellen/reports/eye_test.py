"""Cards of the eye test on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from snellen.eye_test.eye_test import Reading, format_reading
from snellen.metrics.format import percent
from snellen.reports.tables import escape, outcomes, rich_score

__all__ = ["card_table", "cards_table"]


def card_table(model: str, readings: Sequence[Reading]) -> Table:
    """Show a model's eye-test card."""
    table = Table(header_style="bold", title=f"Eye test: {escape(model)}", title_justify="left")
    for name in ("chart", "threshold (95%)", "of", "correct %", "chance %", "outcomes", ""):
        right = name.endswith("%") or name.startswith("threshold")
        table.add_column(name, justify="right" if right else "left", no_wrap=name == "chart")
    for reading in readings:
        figures = reading.run.metrics
        cells = (
            escape(reading.chart),
            format_reading(reading),
            reading.unit,
            rich_score("accuracy", figures["accuracy"], figures.outcomes),
            percent(reading.curve.guess),
        )
        table.add_row(*cells, outcomes(figures.outcomes), reading.verdict)
    table.caption = (
        "The threshold is the level halfway between guessing and perfect accuracy. Unparsed answers "
        "count as wrong."
    )
    table.caption_justify = "left"
    return table


def cards_table(cards: Mapping[str, Sequence[Reading]]) -> Table:
    """Show the thresholds of several models: a row for each chart."""
    table = Table(header_style="bold", title="Thresholds of all models (95%)", title_justify="left")
    for name in ("chart", *map(escape, cards), "of"):
        table.add_column(name, justify="left" if name in ("chart", "of") else "right")
    for readings in zip(*cards.values(), strict=True):
        cells = [
            format_reading(reading)
            if reading.curve.threshold is not None
            else f"[dim]{reading.verdict}[/dim]"
            for reading in readings
        ]
        table.add_row(escape(readings[0].chart), *cells, readings[0].unit)
    return table
