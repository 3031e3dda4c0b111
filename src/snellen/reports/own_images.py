"""Show an eye test on the user's own images: a table, and a card with examples under the axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rich.table import Table

from snellen.eye_test.eye_test import card_title
from snellen.eye_test.own_images import longest, seconds_each, tokens_each
from snellen.images import Image
from snellen.images.degrade import DEGRADATIONS, degraded
from snellen.metrics.format import MISSING, number
from snellen.metrics.registry import METRICS
from snellen.reports.figures import COLORS, DARK, MARK, draw_panels
from snellen.reports.tables import escape, outcomes

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

    from snellen.eye_test.own_images import OwnReading

__all__ = ["draw_own_card", "enough_table", "own_table"]

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


def enough_table(cards: Mapping[str, Sequence[OwnReading]]) -> Table:
    """Return a table of several models: how each degradation may go without a loss that matters."""
    (first, *_) = cards.values()
    points = f"{100 * first[0].within:g}"
    table = Table(title=f"Up to where less than {points} points are lost", title_justify="left")
    table.add_column("model")
    table.add_column(METRICS[first[0].plain.primary].title, justify="right")
    for reading in first:
        table.add_column(f"{reading.name} {reading.unit}".strip(), justify="right")
    for model, readings in cards.items():
        head = readings[0].plain.headline
        levels = [MISSING if (level := each.enough) is None else f"{level.level:g}" for each in readings]
        table.add_row(escape(model), MISSING if head is None else f"{100 * head.value:.1f}", *levels)
    table.caption = f"{MISSING}: not shown of any level, for lack of images or because it loses more."
    table.caption_justify = "left"
    return table


def draw_own_card(cards: Mapping[str, Sequence[OwnReading]], example: Image | None, path: Path) -> None:
    """Draw for each degradation the score by level, with an image at some levels under the axis. Of several
    models, each has a color.

    Args:
        cards: by model, the readings of the same degradations.
        example: an undegraded image; None: without examples.
        path: a picture (.png, .svg or .pdf).

    Raises:
        MissingExtra: matplotlib is not installed.
        ImageError: the example cannot be decoded.
    """
    panels = [
        (
            partial(_curves, readings=dict(zip(cards, readings, strict=True))),
            _examples(longest(readings), example),
        )
        for readings in zip(*cards.values(), strict=True)
    ]
    draw_panels(card_title(cards), panels, path, (4.6, 4.0), interpolation="nearest")


def _curves(plot: Any, readings: Mapping[str, OwnReading]) -> None:
    """Draw one degradation's plot, with each model's scores."""
    several = len(readings) > 1
    for place, (model, reading) in enumerate(readings.items()):
        color = COLORS[place % len(COLORS)]
        _curve(plot, reading, color, color if several else MARK, color if several else DARK)
        enough = reading.enough
        reach = "not shown" if enough is None else f"up to {enough.level:g} {reading.unit}".rstrip()
        plot.plot([], [], color=color, label=f"{model}: {reach}")
    first = longest(list(readings.values()))
    plot.set_xticks(range(len(first.levels)), [f"{each.level:g}" for each in first.levels], fontsize=8)
    plot.set_xlabel(f"{first.name}: {DEGRADATIONS[first.name].about}", fontsize=8)
    plot.set_ylabel(METRICS[first.plain.primary].title, fontsize=8)
    plot.set_ylim(-4, 104)
    plot.tick_params(labelsize=8)
    if several:
        plot.legend(
            frameon=False, fontsize=6, title=f"less than {100 * first.within:g} points lost", title_fontsize=6
        )
    else:
        plot.set_title(fill(first.sentence, TITLE), fontsize=7)


def _curve(plot: Any, reading: OwnReading, color: str, mark: str, line: str) -> None:
    """Draw a model's scores by level, its score without degradation, and how far it may go."""
    levels, places = reading.levels, range(len(reading.levels))
    head = reading.plain.headline
    plain = 100 * head.value if head is not None else 0.0
    plot.axhline(plain, color=line, linewidth=1)
    plot.axhline(plain - 100 * reading.within, color=line, alpha=0.5, linewidth=1, linestyle=":")
    # Of the change, which is what the figure is about: images are the same at all levels.
    low = [100 * (each.change.difference.value - each.change.difference.low) for each in levels]
    high = [100 * (each.change.difference.high - each.change.difference.value) for each in levels]
    scores = [100 * each.score for each in levels]
    plot.errorbar(places, scores, (low, high), fmt="o-", color=color, markersize=4, linewidth=1.2)
    if reading.enough is not None:
        plot.axvline(levels.index(reading.enough), color=mark, linewidth=1)


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
