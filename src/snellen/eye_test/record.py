"""Eye tests kept in the workspace for the browser: what a card shows, as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from snellen._util.paths import bare_names
from snellen.eye_test.eye_test import Reading
from snellen.eye_test.own_images import OwnReading, longest
from snellen.images.degrade import DEGRADATIONS
from snellen.metrics.registry import METRICS
from snellen.metrics.stats import wilson
from snellen.storage.documents import Document, Documents
from snellen.storage.store import Store

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["card_content", "eye_tests_in", "keep_card", "keep_own_card"]

#: The steps of a fitted curve between two levels; and the most examples under an axis.
STEPS, EXAMPLES = 8, 5


def eye_tests_in(store: Store) -> Documents:
    """The eye tests of a workspace: :func:`card_content`."""
    return Documents(
        store=store,
        folder="eye-tests",
        what="eye test",
        command="snellen eye-test --help",
        layout=_layout,
    )


def keep_card(store: Store, cards: Mapping[str, Sequence[Reading]]) -> Document | None:
    """Keep an eye test on drawn charts, by model. The same models on the same charts replace it."""
    panels = [
        _panel(cards, _chart(readings[0]), map(_read, readings))
        for readings in zip(*cards.values(), strict=True)
    ]
    return _keep(store, cards, "drawn charts", panels)


def keep_own_card(store: Store, cards: Mapping[str, Sequence[OwnReading]], data: str) -> Document | None:
    """Keep an eye test on the user's own images, by model."""
    panels = [
        _panel(cards, _degradation(longest(readings)), map(_kept_up, readings))
        for readings in zip(*cards.values(), strict=True)
    ]
    return _keep(store, cards, data, panels)


def _keep(
    store: Store, cards: Mapping[str, Sequence[Any]], data: str, panels: Sequence[Mapping[str, Any]]
) -> Document | None:
    content = card_content(list(cards), panels)
    key = [list(cards), [panel["name"] for panel in panels], [panel["levels"] for panel in panels]]
    return eye_tests_in(store).keep(content, data=data, key=key)


def card_content(models: Sequence[str], panels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the JSON of a card: its models, and a panel for each chart or degradation."""
    return {"models": list(bare_names(models).values()), "panels": list(panels)}


def _panel(
    models: Iterable[str], axis: Mapping[str, Any], results: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    named = zip(bare_names(models).values(), results, strict=True)
    return {**axis, "results": [{"model": model, **result} for model, result in named]}


def _chart(reading: Reading) -> dict[str, Any]:
    """The axis of a drawn chart, from easy to hard."""
    levels = [point.level for point in reading.curve.points]
    return {
        "name": reading.chart.removeprefix("chart:"),
        "about": reading.unit,
        "score": "right %",
        "levels": levels[::-1] if reading.curve.rising else levels,
        "guess": reading.curve.guess,
        "examples": [{"level": level, "image": image.sha256} for level, image in reading.pictures],
    }


def _read(reading: Reading) -> dict[str, Any]:
    """What a model reads of a chart."""
    curve = reading.curve
    rates = [(point.level, wilson(point.right, point.n)) for point in curve.points]
    return {
        "run": reading.run.id,
        "points": [
            {"level": level, "value": rate.value, "low": rate.low, "high": rate.high} for level, rate in rates
        ],
        "curve": _fitted(curve.rate, [level for level, _ in rates]) if curve.location is not None else [],
        "threshold": curve.threshold,
        "low": curve.low,
        "high": curve.high,
        "plain": None,
        "text": reading.verdict,
    }


def _fitted(rate: Any, levels: Sequence[float]) -> list[dict[str, float]]:
    """A fitted curve at and between levels, which are above 0."""
    places = [low * (high / low) ** (step / STEPS) for low, high in pairwise(levels) for step in range(STEPS)]
    return [{"level": level, "value": rate(level)} for level in (*places, levels[-1])]


def _degradation(reading: OwnReading) -> dict[str, Any]:
    """The axis of a degradation, from easy to hard, with one image at some levels."""
    levels, plain = reading.levels, reading.plain
    places = sorted({round(k * (len(levels) - 1) / (EXAMPLES - 1)) for k in range(EXAMPLES)})
    first = plain.outcomes.iloc[0]["id"]
    examples = []
    for place in places:
        rows = levels[place].run.outcomes
        images = [row["images"] for row in rows.to_dict("records") if row["id"] == first]
        if images and images[0]:
            examples.append({"level": levels[place].level, "image": images[0][0]})
    return {
        "name": reading.name,
        "about": f"{DEGRADATIONS[reading.name].about}",
        "score": METRICS[plain.primary].title,
        "levels": [each.level for each in levels],
        "guess": None,
        "examples": examples,
    }


def _kept_up(reading: OwnReading) -> dict[str, Any]:
    """How a model's score changes with a degradation; intervals are of the change."""
    curve, head = reading.curve, reading.plain.headline
    points = []
    for each in reading.levels:
        gap = each.change.difference
        ends = {"low": each.score - (gap.value - gap.low), "high": each.score + (gap.high - gap.value)}
        points.append({"level": each.level, "value": each.score, **ends})
    return {
        "run": reading.plain.id,
        "points": points,
        "curve": [],
        "threshold": None if curve is None else curve.threshold,
        "low": None if curve is None else curve.low,
        "high": None if curve is None else curve.high,
        "plain": None if head is None else head.value,
        "text": reading.sentence,
    }


def _layout() -> type[BaseModel]:
    from snellen.eye_test.document import CardDocument

    return CardDocument
