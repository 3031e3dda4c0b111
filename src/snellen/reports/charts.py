"""Charts as plain numbers, which the templates draw as SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snellen.leaderboards.ranking import pareto

__all__ = ["ChartPoint", "bands", "curves", "levels", "scatter"]

#: The drawing area of a chart, in units of its view box (560 × 300).
LEFT, RIGHT, TOP, BOTTOM = 50.0, 540.0, 20.0, 250.0
#: The width of a character of a label, and the most characters of one.
CHARACTER, LONGEST = 6.6, 40
#: The most bands in a chart: more would cover each other.
BANDS = 6
#: Where a label may stand around its marker: offset, and the part of the text that is there.
_AROUND = (
    (9.0, 4.0, "start"),
    (-9.0, 4.0, "end"),
    (9.0, -8.0, "start"),
    (9.0, 16.0, "start"),
    (-9.0, -8.0, "end"),
    (-9.0, 16.0, "end"),
    (0.0, -11.0, "middle"),
    (0.0, 20.0, "middle"),
)


@dataclass(frozen=True, kw_only=True)
class ChartPoint:
    """A marker: its position, the interval of y, its name, and its link."""

    x: float
    y: float
    name: str
    low: float | None = None
    high: float | None = None
    href: str = ""


def _ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Return round numbers that span a range."""
    if log:
        decades = range(math.floor(math.log10(low / 1.1)), math.ceil(math.log10(1.1 * high)) + 1)
        wide = len(decades) > 3
        steps = [f * 10.0**e for e in decades for f in ((1,) if wide else (1, 2, 5))]
        first = max(i for i, step in enumerate(steps) if step <= low / 1.1 or i == 0)
        last = min((i for i, step in enumerate(steps) if step >= 1.1 * high), default=len(steps) - 1)
        return steps[first : max(last, first + 1) + 1]
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)))
    step *= next(f for f in (0.2, 0.5, 1, 2) if (high - low) / (f * step) <= 6)
    first = math.floor(low / step)
    return [round(k * step, 10) for k in range(first, math.ceil(high / step - 1e-9) + 1)]


class _Axis:
    """Maps values to positions."""

    def __init__(self, values: Sequence[float], begin: float, end: float, *, log: bool = False) -> None:
        low, high = min(values), max(values)
        self.ticks = _ticks(low, high if high > low else low + (1 if not log else 0), log=log)
        self._log, self._begin, self._end = log, begin, end

    def place(self, value: float) -> float:
        """Return a value's position."""
        low, high = (math.log10(t) if self._log else t for t in (self.ticks[0], self.ticks[-1]))
        at = math.log10(value) if self._log else value
        return round(self._begin + (self._end - self._begin) * (at - low) / (high - low), 1)

    def tick_labels(self) -> list[dict[str, Any]]:
        """Return positions and texts of the ticks."""
        return [{"at": self.place(t), "text": f"{t:,.10g}"} for t in self.ticks]


def scatter(
    points: Sequence[ChartPoint],
    *,
    x: str,
    y: str,
    log: bool = True,
    small: bool = False,
    pareto_line: bool = True,
    top: float = 100.0,
) -> dict[str, Any] | None:
    """A scatter plot with its Pareto front. None for fewer than two points.

    Args:
        points: y from 0 to ``top``; x above 0 if it is logarithmic.
        x, y: axis labels.
        small: whether a small x is better.
        pareto_line: whether x is a cost or benefit, so that a Pareto front makes sense.
    """
    known = [p for p in points if math.isfinite(p.x) and (p.x > 0 or not log)]
    if len(known) < 2:
        return None
    across = _Axis([p.x for p in known], LEFT, RIGHT, log=log)
    up = _Axis([0.0, top], BOTTOM, TOP)
    best = pareto([(p.x, p.y) for p in known], small=small)
    marks: list[dict[str, Any]] = []
    for number, point in enumerate(known, 1):
        at = (across.place(point.x), up.place(max(0.0, min(top, point.y))))
        mark = {"x": at[0], "y": at[1], "number": number, "name": point.name, "href": point.href}
        ends = [None if end is None else up.place(end) for end in (point.low, point.high)]
        marks.append({**mark, "low": ends[0], "high": ends[1]})
    labels = _labels([(mark["x"], mark["y"]) for mark in marks], [mark["name"] for mark in marks])
    marks = [{**mark, "label": label} for mark, label in zip(marks, labels, strict=True)]
    line = " ".join(f"{marks[i]['x']},{marks[i]['y']}" for i in best)
    return {
        "marks": marks,
        "line": line if len(best) > 1 and pareto_line else "",
        "better": pareto_line,
        "best": [marks[i]["number"] for i in best],
        "across": across.tick_labels(),
        "up": up.tick_labels(),
        "x": x + (" (log scale)" if log else ""),
        "y": y,
        "small": small,
    }


def _labels(places: Sequence[tuple[float, float]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a label for each marker where it overlaps neither a marker nor another label: its name or, if
    that fits nowhere, the number by which the caption tells it.
    """
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]

    def fitting(x: float, y: float, text: str) -> dict[str, Any] | None:
        wide = CHARACTER * len(text)
        for dx, dy, anchor in _AROUND:
            begin = x + dx - wide * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
            box = (begin, y + dy - 11, begin + wide, y + dy + 3)
            inside = box[0] >= LEFT and box[2] <= RIGHT + 18 and box[1] >= TOP - 12 and box[3] <= BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                return {"x": round(x + dx, 1), "y": round(y + dy, 1), "anchor": anchor, "text": text}
        return None

    labels = []
    for number, ((x, y), name) in enumerate(zip(places, names, strict=True), 1):
        if len(name) <= LONGEST and (label := fitting(x, y, name)) is not None:
            labels.append({**label, "whole": True})
        else:
            label = fitting(x, y, str(number)) or {
                "x": x + 8,
                "y": y + 4,
                "anchor": "start",
                "text": str(number),
            }
            labels.append({**label, "whole": False})
    return labels


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def curves(
    series: Mapping[str, Sequence[ChartPoint]], *, x: str, y: str, top: float = 100.0
) -> dict[str, Any] | None:
    """A line chart, one line per name; None if no line has two points."""
    kept = {name: sorted(points, key=lambda p: p.x) for name, points in series.items() if len(points) > 1}
    if not kept:
        return None
    across = _Axis([p.x for points in kept.values() for p in points], LEFT, RIGHT)
    up = _Axis([0.0, top], BOTTOM, TOP)
    lines = []
    for number, (name, points) in enumerate(kept.items(), 1):
        places = [(across.place(p.x), up.place(max(0.0, min(top, p.y)))) for p in points]
        spans = [
            (across.place(p.x), up.place(p.low), up.place(p.high))
            for p in points
            if p.low is not None and p.high is not None
        ]
        drawn = " ".join(f"{a},{b}" for a, b in places)
        values = ", ".join(f"{p.x:g}: {p.y:.1f}" for p in points)
        lines.append(
            {"name": name, "number": number, "line": drawn, "places": places, "spans": spans, "told": values}
        )
    return {"lines": lines, "across": across.tick_labels(), "up": up.tick_labels(), "x": x, "y": y}


def bands(
    series: Mapping[str, Sequence[ChartPoint]], *, x: str, y: str, margin: float
) -> dict[str, Any] | None:
    """A line chart of differences with their intervals as bands, around 0 and a margin; None without points.

    The axis holds all values and the last intervals; early ones may be as wide as the scale, and are cut off.
    """
    kept = {name: sorted(points, key=lambda p: p.x) for name, points in series.items() if points}
    if not kept:
        return None
    shown = [0.0, margin, *(p.y for points in kept.values() for p in points)]
    shown += [end for points in kept.values() for end in (points[-1].low, points[-1].high) if end is not None]
    across = _Axis([0.0, *(p.x for points in kept.values() for p in points)], LEFT, RIGHT)
    up = _Axis(shown, BOTTOM, TOP)

    def place(value: float) -> float:
        return up.place(max(up.ticks[0], min(up.ticks[-1], value)))

    lines: list[dict[str, Any]] = []
    for number, (name, points) in enumerate(kept.items(), 1):
        end = (across.place(points[-1].x), place(points[-1].y))
        while any(abs(end[0] - x) < 12 and abs(end[1] - y) < 11 for x, y in (one["end"] for one in lines)):
            end = (end[0], round(end[1] + 11, 1))  # numbers stand apart
        known = [
            (across.place(p.x), p.low, p.high) for p in points if p.low is not None and p.high is not None
        ]
        ends = [(a, place(low)) for a, low, _ in known] + [(a, place(high)) for a, _, high in reversed(known)]
        lines.append(
            {
                "name": name,
                "number": number,
                "line": " ".join(f"{across.place(p.x)},{place(p.y)}" for p in points),
                "band": " ".join(f"{a},{b}" for a, b in ends),
                "end": end,
                "numbered": end[1] <= BOTTOM,  # if many ended alike, the caption alone names some
                "banded": number <= BANDS,
                "last": points[-1],
            }
        )
    levels = {"zero": place(0.0), "margin": place(margin)}
    return {"lines": lines, "across": across.tick_labels(), "up": up.tick_labels(), "x": x, "y": y, **levels}


def levels(
    series: Mapping[str, Sequence[ChartPoint]],
    *,
    order: Sequence[float],
    fitted: Mapping[str, Sequence[tuple[float, float]]],
    marks: Mapping[str, float | None],
    floor: float | None,
    pictures: Mapping[float, str],
    x: str,
    y: str,
    top: float = 100.0,
) -> dict[str, Any]:
    """Scores by levels of difficulty, which stand at equal distances.

    Args:
        order: the levels, from easy to hard.
        fitted: of each name, a curve's (level, y) instead of lines between the points; empty for none.
        marks: of each name, a level to mark.
        floor: a y to mark, such as that of guessing.
        pictures: addresses of pictures, by level, to stand under the axis.
    """
    place = _Levels(order)
    up = _Axis([0.0, top], BOTTOM, TOP)

    def height(value: float) -> float:
        return up.place(max(0.0, min(top, value)))

    lines: list[dict[str, Any]] = []
    for number, (name, points) in enumerate(series.items(), 1):
        known = sorted((p for p in points if p.x in place.places), key=lambda p: place(p.x))
        # Models stand next to each other, so that none hides another.
        aside = 4 * (number - (len(series) + 1) / 2)
        curve = sorted((place(level), height(value)) for level, value in fitted.get(name, ()))
        drawn = curve or [(place(p.x), height(p.y)) for p in known]
        mark = marks.get(name)
        end = height(known[-1].y) + 4 if known else TOP
        while any(abs(end - other["end"]) < 12 for other in lines):
            end = round(end - 12, 1)  # numbers stand apart
        line = {"name": name, "number": number, "line": " ".join(f"{a},{b}" for a, b in drawn), "end": end}
        line["places"] = [(round(place(p.x) + aside, 1), height(p.y)) for p in known]
        line["spans"] = [
            (round(place(p.x) + aside, 1), height(p.low), height(p.high))
            for p in known
            if p.low is not None and p.high is not None
        ]
        line["mark"] = place(mark) if mark is not None and min(order) <= mark <= max(order) else None
        line["numbered"] = end >= TOP - 8
        line["told"] = ", ".join(f"{p.x:.3g}: {p.y:.1f}" for p in known)
        lines.append(line)
    return {
        "lines": lines,
        "across": [{"at": place(level), "text": f"{level:.3g}"} for level in order],
        "up": up.tick_labels(),
        "x": x,
        "y": y,
        "floor": None if floor is None else height(floor),
        "pictures": [{"at": place(level), "href": href} for level, href in pictures.items()],
    }


class _Levels:
    """Positions of levels at equal distances; between two, by their logarithm where they have one."""

    def __init__(self, order: Sequence[float]) -> None:
        step = (RIGHT - LEFT) / len(order)
        self.places = {level: round(LEFT + step * (k + 0.5), 1) for k, level in enumerate(order)}

    def __call__(self, level: float) -> float:
        if level in self.places:
            return self.places[level]
        known = sorted(self.places)
        if level <= known[0] or level >= known[-1]:
            return self.places[known[0] if level <= known[0] else known[-1]]
        high = next(each for each in known if each > level)
        low = known[known.index(high) - 1]
        way = (level - low) / (high - low)
        if low > 0:
            way = math.log(level / low) / math.log(high / low)
        return round(self.places[low] + way * (self.places[high] - self.places[low]), 1)
