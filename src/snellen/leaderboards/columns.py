"""The columns of a leaderboard other than its scores: one list for pages and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from snellen.leaderboards.entries import Entry
from snellen.metrics.format import MISSING, dollars, giga, number, short_number

__all__ = ["COLUMNS", "Column", "columns_of"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column.

    Attributes:
        name: its sort key in URLs.
        text: returns an entry's cell.
        numeric: aligned to the right.
        is_known: whether an entry has a value; a column without values is hidden. None: always shown.
    """

    name: str
    heading: str
    text: Callable[[Entry], str]
    numeric: bool = True
    is_known: Callable[[Entry], bool] | None = None


def _words(name: str, read: Callable[[Entry], str | None], heading: str = "") -> Column:
    """Build a text column, shown if some entry has a value."""
    return Column(
        name=name,
        heading=heading or name,
        text=lambda entry: read(entry) or MISSING,
        numeric=False,
        is_known=lambda entry: bool(read(entry)),
    )


COLUMNS = (
    Column(name="speed", heading="items/s", text=lambda e: number(e.speed)),
    Column(name="memory", heading="memory GB", text=lambda e: giga(e.memory)),
    Column(
        name="cost", heading="cost $", text=lambda e: dollars(e.cost), is_known=lambda e: e.cost is not None
    ),
    Column(
        name="parameters",
        heading="parameters",
        text=lambda e: short_number(e.info.parameters),
        is_known=lambda e: e.info.parameters is not None,
    ),
    _words("open", lambda e: {True: "open", False: "proprietary", None: ""}[e.info.open], heading="weights"),
    _words("license", lambda e: e.info.license),
    _words("vision", lambda e: e.info.vision),
    _words("language", lambda e: e.info.language),
    Column(name="date", heading="date", text=lambda e: e.date[:10], numeric=False),
)


def columns_of(entries: Iterable[Entry], chosen: Sequence[str] = ()) -> list[Column]:
    """Return the columns that have values in these entries; of these the chosen ones, if any are."""
    listed = list(entries)
    known = [c for c in COLUMNS if c.is_known is None or any(map(c.is_known, listed))]
    return [c for c in known if c.name in chosen] if chosen else known
