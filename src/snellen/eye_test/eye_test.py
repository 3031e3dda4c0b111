"""Run the eye test: evaluate a model on every chart and find its thresholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.datasets.base import DATASETS
from snellen.datasets.eye_chart import EyeChart
from snellen.errors import BadOption
from snellen.eye_test.psychometric import Curve, CurvePoint, fit
from snellen.images import Image
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan, Watch
from snellen.runs.run import Run
from snellen.types import Kind

if TYPE_CHECKING:
    from snellen.models.base import Model
    from snellen.storage.store import Store

__all__ = ["CHARTS", "Reading", "card_title", "format_reading", "run_eye_test"]

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


def card_title(models: Collection[str]) -> str:
    """Return the title of a card."""
    return f"Eye test: {next(iter(models))}" if len(models) == 1 else f"Eye test of {len(models)} models"


def format_reading(reading: Reading) -> str:
    """Format a threshold with its interval, or the reason why there is none."""
    curve = reading.curve
    if curve.threshold is None:
        return "–"
    low, high = (f"{end:.3g}" if end is not None else "…" for end in (curve.low, curve.high))
    return f"{curve.threshold:.3g} ({low} to {high})"
