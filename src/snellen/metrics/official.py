"""The figures that a benchmark's authors print, computed from a run's stored scores.

A benchmark declares them in its catalog file under ``figures``, by the names that its authors use, so that a
new benchmark needs no code::

    figures:
      aAcc: {}                                           # the mean of the run's primary score
      fAcc: {all: [category, set_id, figure_id]}         # the share of figures with only right answers
      average: {average: [aAcc, fAcc]}
      disciplines: {by: subject, names: {Art: [Music, Design]}}

Nothing here guesses: an answer that could not be read scores 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import prod
from typing import Any, ClassVar, NamedTuple

__all__ = ["OfficialFigure", "OfficialValue", "ScoredRow", "official_values"]


class ScoredRow(NamedTuple):
    """What figures need of one sample.

    Attributes:
        scores: by name; the run's primary score is under the empty name, too.
        columns: the row's columns, by name.
        chance: the probability that a random choice is right, if the answer could not be read; else 0.
    """

    scores: Mapping[str, float]
    columns: Mapping[str, Any]
    chance: float = 0.0


class OfficialValue(NamedTuple):
    """A figure. ``value`` is a share, or a number of points; ``n`` counts samples, or groups of them."""

    name: str
    value: float
    n: int
    points: bool = False
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class OfficialFigure:
    """How a figure is computed; without any option, it is the mean of the primary score.

    Attributes:
        of: the name of another score, such as ``judge``.
        else_primary: where a sample lacks that score, the primary one counts; else the sample does not.
        where: only rows whose columns have these values (one, or several of which any counts).
        all: rows with equal values in these columns form a group, which counts by the product of its scores:
            a group of right answers is right. A column of numbers may be calculated with: ``Index // 4``,
            ``Index % 2``, ``Index - 1 // 2`` (rows 1 and 2, 3 and 4 …).
        by: a column (a dot leads into nested cells) by whose values the figure is broken down; a cell with a
            list counts for each of its values.
        pattern: a regular expression; its first group is taken from each value of ``by``.
        split: what stands between the values in a cell of ``by``.
        names: names for values of ``by``, or for sets of them.
        points: the number of right answers, instead of their share.
        plus: the sum, in points, of the mean and of ``all``, each times 100.
        average: the names of figures whose plain mean this one is.
        total: the names of figures whose sum this one is; a broken-down figure counts with all of its parts.
        guess: what is expected if each answer that could not be read were replaced by a random option.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    of: str = ""
    else_primary: bool = False
    where: Mapping[str, Any] = field(default_factory=dict)
    all: tuple[str, ...] = ()
    by: str | None = None
    pattern: str | None = None
    split: str | None = None
    names: Mapping[str, Any] = field(default_factory=dict)
    points: bool = False
    plus: bool = False
    average: tuple[str, ...] = ()
    total: tuple[str, ...] = ()
    guess: bool = False

    def columns(self) -> set[str]:
        """Return the columns that it reads."""
        keys = [_CALCULATED.fullmatch(part) for part in self.all]
        paths = (*self.where, *(key["column"] for key in keys if key), *([self.by] if self.by else []))
        return {path.partition(".")[0] for path in paths}

    def parts(self, row: ScoredRow) -> Iterator[str]:
        """Yield the parts of the breakdown that a row belongs to; one empty name without a breakdown."""
        if any(not set(_cells(row.columns, path)) & set(_texts(value)) for path, value in self.where.items()):
            return
        if self.by is None:
            yield ""
            return
        cells = _cells(row.columns, self.by)
        for value in cells if self.split is None else chain.from_iterable(c.split(self.split) for c in cells):
            value = value.strip()
            if not value:
                continue
            if self.pattern is not None:
                match = re.search(self.pattern, value)
                value = match[1] if match else value
            named = [name for name, values in self.names.items() if value in _texts(values)]
            if named or not self.names:
                yield from named or [value]


def official_values(
    figures: Mapping[str, OfficialFigure], rows: Iterable[ScoredRow]
) -> Sequence[OfficialValue]:
    """Compute figures by their names, in their order; a part without rows is left out.

    Args:
        rows: read once; only sums are kept.
    """
    direct = {name: figure for name, figure in figures.items() if not figure.average and not figure.total}
    sums: dict[str, dict[str, _Sum]] = {name: {} for name in direct}
    for row in rows:
        for name, figure in direct.items():
            score = row.scores.get(figure.of, row.scores.get("") if figure.else_primary else None)
            if score is None:
                continue
            for part in figure.parts(row):
                sums[name].setdefault(part, _Sum()).add(score, row, figure)
    values: dict[str, list[OfficialValue]] = {}
    for name, figure in figures.items():
        if name in direct:
            order = list(figure.names) or sorted(sums[name])
            values[name] = [
                OfficialValue(part or name, *sums[name][part].value(figure), group=name if part else "")
                for part in order
                if part in sums[name]
            ]
            continue
        parts = [values.get(other, []) for other in figure.average or figure.total]
        known = [value for some in parts for value in some]
        if all(parts):
            whole = sum(value.value for value in known)
            whole /= len(known) if figure.average else 1
            n = max(value.n for value in known) if figure.average else sum(value.n for value in known)
            values[name] = [OfficialValue(name, whole, n, known[0].points)]
    return [value for some in values.values() for value in some]


class _Sum:
    """Accumulates one part of one figure."""

    def __init__(self) -> None:
        self.n, self.score = 0, 0.0
        self.groups: dict[tuple[str, ...], list[float]] = {}

    def add(self, score: float, row: ScoredRow, figure: OfficialFigure) -> None:
        """Add a sample."""
        self.n += 1
        self.score += score + (row.chance if figure.guess else 0.0)
        if figure.all:
            key = tuple(_key(row.columns, part) for part in figure.all)
            self.groups.setdefault(key, []).append(score)

    def value(self, figure: OfficialFigure) -> tuple[float, int, bool]:
        """Return the value, what it counts, and whether it is in points."""
        if figure.points:
            return self.score, self.n, True
        mean = self.score / self.n
        if not figure.all:
            return mean, self.n, False
        together = sum(map(prod, self.groups.values())) / len(self.groups)
        return (100 * (mean + together), self.n, True) if figure.plus else (together, len(self.groups), False)


#: A column, or whole numbers in it less the first, divided by a size (quotient or remainder).
_CALCULATED = re.compile(r"(?P<column>.+?)(?: - (?P<first>\d+))?(?: (?P<sign>//|%) (?P<size>\d+))?")


def _key(columns: Mapping[str, Any], part: str) -> str:
    """Return what rows of a group have in common.

    >>> [_key({"Index": 7}, part) for part in ("Index // 4", "Index % 2", "Index - 1 // 2")]
    ['1', '1', '3']
    """
    match = _CALCULATED.fullmatch(part)
    assert match is not None
    text = "/".join(_cells(columns, match["column"]))
    if match["sign"] is None or not text.isdecimal():
        return text
    number, size = int(text) - int(match["first"] or 0), int(match["size"])
    return str(number // size if match["sign"] == "//" else number % size)


def _cells(columns: Any, path: str) -> list[str]:
    """Return the values at a path as texts; none if there is nothing."""
    head, _, rest = path.partition(".")
    value = columns.get(head) if isinstance(columns, Mapping) else None
    if rest and value is not None:
        return _cells(value, rest)
    return [] if value is None else _texts(value)


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
