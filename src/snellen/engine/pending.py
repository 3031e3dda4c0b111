"""Which samples of a run are missing: one rule, for this process and for workers elsewhere.

A sample is missing until it has a prediction that is no error. A run is done when it has ended and no
sample, and no grade of a judge, is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from snellen.datasets.base import InvalidRow, Selection
from snellen.errors import DataError
from snellen.types import Sample

__all__ = ["is_done", "missing", "pages", "pending", "readable"]

#: Ids of what has a prediction already, out of some ids.
Evaluated = Callable[[Sequence[str]], set[str]]
#: How many ids are looked up at once.
PAGE = 500


def is_done(row: Mapping[str, Any]) -> bool:
    """Whether nothing of a run is left to be asked, by its row in the store."""
    from snellen.storage.manifest import RunMetrics

    if row["status"] != "finished":
        return False
    metrics = RunMetrics.model_validate(row["metrics"])
    return not (metrics.outcomes["error"] or metrics.protocol.get("judge_errors"))


def missing(ids: Iterable[str], evaluated: Evaluated) -> list[str]:
    """Those of some ids that have no prediction yet, in their order."""
    wanted = list(ids)
    known = evaluated(wanted)
    return [id for id in wanted if id not in known]


def pages(data: Selection, positions: range, size: int = PAGE) -> Iterator[dict[str, int]]:
    """Ids with their positions, some at a time."""
    for first in range(positions.start, positions.stop, size):
        yield {data.id(i): i for i in range(first, min(first + size, positions.stop))}


def pending(
    data: Selection, evaluated: Evaluated, skipped: list[InvalidRow], count: Callable[[int], None]
) -> Iterator[tuple[int, Sample]]:
    """Positions and samples that are missing, in the order of the data set.

    Args:
        skipped: invalid rows are added here where they may be skipped.
        count: called with how many samples have a prediction already, page by page.

    Raises:
        DataError: a sample cannot be read.
    """
    for ids in pages(data, range(len(data))):
        wanted = missing(ids, evaluated)
        count(len(ids) - len(wanted))
        yield from readable(data, (ids[id] for id in wanted), skipped)


def readable(
    data: Selection, positions: Iterable[int], skipped: list[InvalidRow]
) -> Iterator[tuple[int, Sample]]:
    """Samples with their positions; invalid rows are added to ``skipped`` where they may be skipped.

    Raises:
        DataError: a sample cannot be read.
    """
    for position in positions:
        try:
            yield position, data[position]
        except DataError as error:
            if not data.skip_invalid:
                raise
            skipped.append(InvalidRow(data.id(position), str(error)))
