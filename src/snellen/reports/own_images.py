"""Show an eye test on the user's own images: a table, and a card with examples under the axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rich.table import Table

from snellen.eye_test.eye_test import draw_panels
from snellen.eye_test.own_images import seconds_each, tokens_each
from snellen.images import Image
from snellen.images.degrade import DEGRADATIONS, degraded
from snellen.metrics.format import MISSING, number
from snellen.metrics.registry import METRICS
from snellen.reports.tables import outcomes

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

    from snellen.eye_test.own_images import OwnReading

__all__ = ["draw_own_card", "own_table"]

#: Pixels a side of an example; and the most of them under an axis.
EXAMPLE, EXAMPLES = 96, 5
#: Characters in a line of a title.
TITLE = 78


def own_table(reading: OwnReading) -> Table:
    """Return a table with a row for each level, the undegraded images first."""
    name, plain = reading.name, reading.plain
    heading = METRICS[plain.primary].title
    table = Table(title=f"{name}: {DEGRADATIONS[name].about}", title_justify="left")
    for column in (name, heading, "change in points (95%)", "tokens in", "s each", "cost $", "outcomes"):
        table.add_column(column, justify="left" if column == "outcomes" else "right")
    head, metrics = plain.headline, plain.metrics
    table.add_row(
        "as they are",
        MISSING if head is None else f"{100 * head.value:.1f}",
        MISSING,
        number(tokens_each(plain)),
        number(seconds_each(plain)),
        number(metrics.cost),
        outcomes(metrics.outcomes),
    )
    for level in reading.levels:
        gap = level.change.difference
        color = "red" if level.change.real() and gap.value < 0 else "none"
        change = f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
        table.add_row(
            f"{level.level:g} {reading.unit}".strip(),
            f"{100 * level.score:.1f}",
            f"[{color}]{change}[/]" if color != "none" else change,
            number(level.tokens),
            number(level.seconds),
            number(level.cost),
            outcomes(level.run.metrics.outcomes),
        )
    return table


def draw_own_card(model: str, readings: Sequence[OwnReading], example: Image | None, path: Path) -> None:
    """Draw for each degradation the score by level, with an image at some levels under the axis.

    Args:
        example: an undegraded image; None: without examples.
        path: a picture (.png, .svg or .pdf).

    Raises:
        MissingExtra: matplotlib is not installed.
        ImageError: the example cannot be decoded.
    """
    panels = [(partial(_curve, reading=reading), _examples(reading, example)) for reading in readings]
    draw_panels(f"Eye test: {model}", panels, path, (4.6, 4.0), interpolation="nearest")


def _curve(plot: Any, reading: OwnReading) -> None:
    levels, places = reading.levels, range(len(reading.levels))
    head = reading.plain.headline
    plain = 100 * head.value if head is not None else 0.0
    plot.axhline(plain, color="#333333", linewidth=1, label="as they are")
    plot.axhline(plain - 100 * reading.within, color="0.6", linewidth=1, linestyle=":")
    # Of the change, which is what the figure is about: images are the same at all levels.
    low = [100 * (each.change.difference.value - each.change.difference.low) for each in levels]
    high = [100 * (each.change.difference.high - each.change.difference.value) for each in levels]
    scores = [100 * each.score for each in levels]
    plot.errorbar(places, scores, (low, high), fmt="o-", color="#2a7f4f", markersize=4, linewidth=1.2)
    if reading.enough is not None:
        plot.axvline(levels.index(reading.enough), color="#b3372f", linewidth=1)
    plot.set_xticks(list(places), [f"{each.level:g}" for each in levels], fontsize=8)
    plot.set_xlabel(f"{reading.name}: {DEGRADATIONS[reading.name].about}", fontsize=8)
    plot.set_ylabel(METRICS[reading.plain.primary].title, fontsize=8)
    plot.set_ylim(-4, 104)
    plot.tick_params(labelsize=8)
    plot.set_title(fill(reading.sentence, TITLE), fontsize=7)


def _examples(reading: OwnReading, example: Image | None) -> list[tuple[str, Pixels]]:
    """Return the example at some levels, with those as captions; nothing without an example."""
    if example is None:
        return []
    count = len(reading.levels)
    shown = sorted({round(k * (count - 1) / max(1, EXAMPLES - 1)) for k in range(EXAMPLES)})
    levels = [reading.levels[place].level for place in shown]
    return [
        (f"{level:g}", degraded(example, reading.name, level).decoded().resize((EXAMPLE, EXAMPLE)))
        for level in levels
    ]
