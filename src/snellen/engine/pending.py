"""Find the missing samples of a run: one rule, for this process and for remote workers.

A sample is missing until it has a prediction other than an error. A run is done when it has ended and
neither a sample nor a judge's grade is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from snellen.datasets.base import InvalidRow, Selection
from snellen.errors import DataError, ImageError
from snellen.scorers.base import ERROR_COUNTS
from snellen.types import Sample

__all__ = [
    "add_skipped",
    "is_done",
    "missing",
    "pages",
    "pending",
    "readable",
    "refuse_skipped",
    "skipped_before",
]

#: Returns those of some ids that already have a prediction.
Evaluated = Callable[[Sequence[str]], set[str]]
#: Ids per lookup.
PAGE = 500


def is_done(row: Mapping[str, Any]) -> bool:
    """Return whether a run has nothing left to evaluate, from its row in the store."""
    from snellen.storage.manifest import RunMetrics

    if row["status"] != "finished":
        return False
    metrics = RunMetrics.model_validate(row["metrics"])
    return not (metrics.outcomes["error"] or any(metrics.protocol.get(name) for name in ERROR_COUNTS))


def missing(ids: Iterable[str], evaluated: Evaluated) -> list[str]:
    """Return the ids without a prediction, in order."""
    wanted = list(ids)
    known = evaluated(wanted)
    return [id for id in wanted if id not in known]


def pages(data: Selection, positions: Sequence[int], size: int = PAGE) -> Iterator[dict[str, int]]:
    """Yield ids with their positions, in pages."""
    for first in range(0, len(positions), size):
        yield {data.id(i): i for i in positions[first : first + size]}


def pending(
    data: Selection,
    evaluated: Evaluated,
    skipped: list[InvalidRow],
    count: Callable[[int], None],
    among: Sequence[int] | None = None,
) -> Iterator[tuple[int, Sample]]:
    """Yield the positions and samples that are missing, in the order of the data set, or of ``among``.

    Args:
        among: the positions to look at; all by default.
        skipped: collects invalid rows, if they may be skipped.
        count: called with the number of samples that already have a prediction, page by page.

    Raises:
        DataError: a sample cannot be read.
    """
    for ids in pages(data, range(len(data)) if among is None else among):
        wanted = missing(ids, evaluated)
        count(len(ids) - len(wanted))
        yield from readable(data, (ids[id] for id in wanted), skipped)


def add_skipped(skipped: list[InvalidRow], where: str, error: Exception) -> None:
    """Add an invalid sample, once: a race comes to it again."""
    if all(row.where != where for row in skipped):
        skipped.append(InvalidRow(where, str(error)))


def skipped_before(row: Mapping[str, Any]) -> list[InvalidRow]:
    """Return what a run has skipped, from its row in the store."""
    from snellen.storage.manifest import RunManifest

    return [
        InvalidRow(bad.where, bad.reason) for bad in RunManifest.model_validate(row["manifest"]).data.skipped
    ]


def refuse_skipped(skipped: Sequence[InvalidRow]) -> None:
    """Refuse samples that cannot be read, unless there are none.

    Raises:
        ImageError: names the first.
    """
    if skipped:
        raise ImageError(f"{skipped[0].reason} Or skip invalid images with --skip-invalid")


def readable(
    data: Selection, positions: Iterable[int], skipped: list[InvalidRow]
) -> Iterator[tuple[int, Sample]]:
    """Yield samples with their positions; ``skipped`` collects invalid rows, if they may be skipped.

    Raises:
        DataError: a sample cannot be read.
    """
    for position in positions:
        try:
            yield position, data[position]
        except DataError as error:
            if not data.skip_invalid:
                raise
            add_skipped(skipped, data.id(position), error)
