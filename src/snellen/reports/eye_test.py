"""Cards of the eye test: on the terminal, and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from snellen.eye_test.eye_test import Reading, card_title, format_reading
from snellen.metrics.format import percent
from snellen.reports.figures import COLORS, MARK, draw_panels
from snellen.reports.tables import escape, outcomes, rich_score

__all__ = ["card_table", "cards_table", "draw_card"]


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


def draw_card(cards: Mapping[str, Sequence[Reading]], path: Path) -> None:
    """Draw a card: for each chart, the share of correct answers by level, the curve and its threshold, and
    under the axis what was shown at some levels. Of several models, each has a color.

    Args:
        cards: by model, the readings of the same charts.
        path: a picture (.png, .svg or .pdf).

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    panels = [
        (
            partial(_draw_curves, readings=dict(zip(cards, readings, strict=True))),
            [(f"{x:.3g}", image.pixels) for x, image in readings[0].pictures],
        )
        for readings in zip(*cards.values(), strict=True)
    ]
    draw_panels(card_title(cards), panels, path, (4.2, 3.9))


def _draw_curves(plot: Any, readings: Mapping[str, Reading]) -> None:
    """Draw one chart's plot, with each model's answers."""
    several = len(readings) > 1
    for place, (model, reading) in enumerate(readings.items()):
        color = COLORS[place % len(COLORS)]
        _draw_curve(plot, reading, color, color if several else MARK)
        label = f"{model}: {format_reading(reading) if reading.curve.threshold else reading.verdict}"
        plot.plot([], [], color=color, label=label)
    (first, *_) = readings.values()
    levels = [point.level for point in first.curve.points]
    plot.axhline(100 * first.curve.guess, color="0.6", linestyle=":", linewidth=1)
    ticks = (levels[0], levels[len(levels) // 2], levels[-1])
    plot.set_xscale("log")
    plot.set_xticks(ticks, [f"{x:.3g}" for x in ticks])
    plot.minorticks_off()
    if first.curve.rising:
        plot.invert_xaxis()  # from easy to hard, as on an eye chart
    plot.set_ylim(-4, 104)
    title = format_reading(first) if first.curve.threshold else first.verdict
    name = first.chart.removeprefix("chart:")
    plot.set_title(name if several else f"{name}: {title}", fontsize=9)
    if several:
        plot.legend(frameon=False, fontsize=6)
    plot.set_xlabel(first.unit, fontsize=8)
    plot.set_ylabel("right %", fontsize=8)
    plot.tick_params(labelsize=8)


def _draw_curve(plot: Any, reading: Reading, color: str, mark: str) -> None:
    """Draw the share of right answers by level, the fitted curve, and its threshold."""
    import numpy as np

    from snellen.metrics.stats import wilson

    curve = reading.curve
    levels = [point.level for point in curve.points]
    rates = [wilson(point.right, point.n) for point in curve.points]
    spans = [[r.value - r.low for r in rates], [r.high - r.value for r in rates]]
    plot.errorbar(
        levels,
        [100 * r.value for r in rates],
        100 * np.array(spans),
        fmt="o",
        color=color,
        markersize=4,
        linewidth=1,
    )
    if curve.location is not None:
        fine = np.geomspace(min(levels), max(levels), 200)
        plot.plot(fine, [100 * curve.rate(x) for x in fine], color=color)
    if curve.threshold is not None:
        plot.axvline(curve.threshold, color=mark, linewidth=1)
        plot.axvspan(curve.low or min(levels), curve.high or max(levels), color=mark, alpha=0.12)
