"""Run the eye test: evaluate a model on every chart and draw a card with its thresholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.datasets.base import DATASETS
from snellen.datasets.eye_chart import EyeChart
from snellen.errors import BadOption, require
from snellen.eye_test.psychometric import Curve, CurvePoint, fit
from snellen.images import Image
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan, Watch
from snellen.runs.run import Run
from snellen.types import Kind

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

    from snellen.models.base import Model
    from snellen.storage.store import Store

__all__ = ["CHARTS", "COLORS", "Reading", "card_title", "draw_card", "draw_panels", "run_eye_test"]

#: The titles on a card.
CHARTS = (
    "chart:acuity",
    "chart:acuity?optotype=shapes",
    "chart:contrast?optotype=shapes",
    "chart:color",
    "chart:counting",
    "chart:crowding",
    "chart:orientation",
    "chart:relations",
    "chart:print",
)


#: The pictures shown under an axis of a card.
SHOWN = 4
#: The color of each model on a card, in turn.
COLORS = ("#2a7f4f", "#0b62a4", "#c8553d", "#8a5fbf", "#b8860b", "#5b6770")
#: What draws a plot on matplotlib's axes, and the pictures under it with their captions.
Panel = tuple[Callable[[Any], None], Sequence[tuple[str, "Pixels"]]]


@dataclass(frozen=True)
class Reading:
    """The result of one chart.

    Attributes:
        chart: its name.
        unit: the unit of its levels.
        run: the underlying run.
        curve: fitted to the answers; unparsed ones count as wrong.
        pictures: one at each of some levels, from easy to hard.
    """

    chart: str
    unit: str
    run: Run
    curve: Curve
    pictures: tuple[tuple[float, Image], ...] = ()

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        curve = self.curve
        read = self.run.metrics.outcomes["ok"] / self.run.metrics.n
        levels = [point.level for point in curve.points]
        hardest, easiest = sorted((levels[0], levels[-1]), reverse=not curve.rising)
        if curve.beyond == "hard" or (
            curve.threshold and (curve.low if curve.rising else curve.high) is None
        ):
            return f"beyond the chart: {hardest:.2g} is not too hard"
        if curve.beyond == "easy":
            return f"beyond the chart: even {easiest:.2g} is too hard"
        if curve.threshold is None:
            if read < 0.5:
                return f"{100 * (1 - read):.0f}% of the answers could not be parsed"
            return "no better than guessing"
        if (curve.high if curve.rising else curve.low) is None:
            return "even the easiest level is near the threshold"
        return "threshold within the chart"

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        figures = self.run.metrics
        return {
            "chart": self.chart,
            "unit": self.unit,
            "run": self.run.id,
            "accuracy": figures["accuracy"].as_dict(),
            "outcomes": figures.outcomes,
            "verdict": self.verdict,
            **self.curve.as_dict(),
        }


def run_eye_test(
    model: str | Model,
    *,
    charts: Sequence[str] = CHARTS,
    n: int = 160,
    seed: int = 0,
    batch_size: int | None = None,
    workspace: Store | Path | str | None = None,
    watch: Watch | None = None,
) -> list[Reading]:
    """Evaluate a model on the eye test's charts: by default, 20 pictures at each of 8 levels.

    A generative model chooses among the answers (closed-set); a model that only scores ranks them.

    Raises:
        BadOption: a chart without levels, or fewer pictures than levels.
        UsageError: as for :class:`snellen.runs.plan.Plan`.
    """
    data = []
    charts = list(dict.fromkeys(charts))
    for name in charts:
        made = DATASETS.make(name, {"n": n, "seed": seed})
        if not isinstance(made, EyeChart):
            raise BadOption(f"chart {name!r} is not allowed; allowed: {', '.join(CHARTS)}.")
        if n < len(made.chart.levels):
            raise BadOption(
                f"n={n} is not allowed; allowed: {len(made.chart.levels)} or more, one per level."
            )
        made.name = name
        data.append(made)
    options: dict[str, Any] = {"n": n, "seed": seed}
    from snellen.models.base import MODELS

    made_model = MODELS.make(model) if isinstance(model, str) else model
    protocols = [] if Kind.GENERATE in made_model.kinds else ["rank"]
    plan = Plan(
        models=[model],
        data=list(charts),
        protocols=protocols,
        data_options=options,
        filters=Filters(),
        seed=seed,
        batch_size=batch_size,
        workspace=workspace,
    )
    runs = plan.run(watch)
    return [_reading(run, chart) for run, chart in zip(runs, data, strict=True)]


def _reading(run: Run, chart: EyeChart) -> Reading:
    """Fit the curve of a run's answers against the levels of its chart."""
    level = {chart.row(i).id: chart.level(i) for i in range(len(chart))}
    right: Counter[float] = Counter()
    asked: Counter[float] = Counter()
    for row in run.outcomes.to_dict("records"):
        asked[level[row["id"]]] += 1
        right[level[row["id"]]] += row["prediction"] == row["label"]
    points = [CurvePoint(x, right[x], asked[x]) for x in sorted(asked)]
    curve = fit(points, 1 / len(chart.labels), rising=chart.chart.rising)
    levels = chart.chart.levels
    places = sorted({round(k * (len(levels) - 1) / (SHOWN - 1)) for k in range(SHOWN)})
    # Levels take turns, from easy to hard.
    pictures = tuple((levels[i], chart.sample(i, chart.labels, None).images[0]) for i in places)
    return Reading(chart.name, chart.chart.unit, run, curve, pictures)


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


def card_title(models: Collection[str]) -> str:
    """Return the title of a card."""
    return f"Eye test: {next(iter(models))}" if len(models) == 1 else f"Eye test of {len(models)} models"


def draw_panels(
    title: str,
    panels: Sequence[Panel],
    path: Path,
    size: tuple[float, float],
    interpolation: str | None = None,
) -> None:
    """Draw panels, at most three in a row: a plot each, and pictures with their captions under its axis.

    Args:
        path: a picture (.png, .svg or .pdf).
        size: of a panel, in inches.
        interpolation: of the pictures, as for matplotlib's ``imshow``.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    require("matplotlib", "report", "Drawing the card")
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False}):  # names may have dollar signs
        _draw_panels(title, panels, path, size, interpolation)


def _draw_panels(
    title: str,
    panels: Sequence[Panel],
    path: Path,
    size: tuple[float, float],
    interpolation: str | None,
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14, fontweight="bold")
    for part, (draw, pictures) in zip(
        figure.subfigures(rows, columns, squeeze=False).ravel(), panels, strict=False
    ):
        upper, lower = part.subfigures(2, 1, height_ratios=(3, 1))
        draw(upper.subplots())
        if not pictures:
            continue
        shown = lower.subplots(1, len(pictures), squeeze=False)[0]
        for axes, (caption, picture) in zip(shown, pictures, strict=True):
            axes.imshow(picture, interpolation=interpolation)
            axes.set_title(caption, fontsize=7)
            axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_curves(plot: Any, readings: Mapping[str, Reading]) -> None:
    """Draw one chart's plot, with each model's answers."""
    several = len(readings) > 1
    for place, (model, reading) in enumerate(readings.items()):
        color = COLORS[place % len(COLORS)]
        _draw_curve(plot, reading, color, "#b3372f" if not several else color)
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


def format_reading(reading: Reading) -> str:
    """Format a threshold with its interval, or the reason why there is none."""
    curve = reading.curve
    if curve.threshold is None:
        return "–"
    low, high = (f"{end:.3g}" if end is not None else "…" for end in (curve.low, curve.high))
    return f"{curve.threshold:.3g} ({low} to {high})"
