"""Filters, order and page of a leaderboard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from snellen.errors import BadOption, did_you_mean
from snellen.leaderboards.columns import COLUMNS as SHOWN
from snellen.leaderboards.entries import Entry
from snellen.leaderboards.model_info import SIZES, UNKNOWN

__all__ = ["COLUMNS", "Query", "page_of"]


def page_of(text: str) -> int:
    """Parse a page number.

    Raises:
        BadOption: it is not valid.
    """
    if not text.isascii() or not text.isdecimal() or len(text) > 6 or not int(text):
        raise BadOption(f"page={text[:20]!r} is not allowed; allowed: 1 to 999999.")
    return int(text)


#: Sort keys: the word in the URL, and the value (None sorts last).
COLUMNS: dict[str, Any] = {
    "score": lambda e: e.value,
    "model": lambda e: e.model.lower(),
    "parameters": lambda e: e.info.parameters,
    "open": lambda e: None if e.info.open is None else int(e.info.open),
    "license": lambda e: e.info.license.lower() or None,
    "vision": lambda e: e.info.vision.lower() or None,
    "language": lambda e: e.info.language.lower() or None,
    "n": lambda e: e.n or None,
    "speed": lambda e: e.speed,
    "memory": lambda e: e.memory,
    "cost": lambda e: e.cost,
    "date": lambda e: e.date or None,
}
#: Keys that are best when small, or are words: the first click sorts them in ascending order.
_UPWARDS = frozenset({"model", "license", "vision", "language", "memory", "cost", "parameters"})


@dataclass(frozen=True)
class Query:
    """A view of the leaderboard, as encoded in the address bar.

    Attributes:
        q: words that must occur in the name of the model, data set or protocol.
        size, open, license, data, protocol, suite, family: filters; several values are alternatives. Empty:
            all.
        sort, order: a key of ``COLUMNS``, and ``up`` or ``down``.
        published: whether to include published figures.
        by: ``data`` makes one table per data set, ``protocol`` one per data set and protocol.
        x: the quantity to plot scores against.
        column: the columns shown next to scores; empty: all that have values.
        page: from 1.
    """

    q: str = ""
    size: tuple[str, ...] = ()
    open: str = ""
    license: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()
    suite: str = ""
    family: tuple[str, ...] = ()
    sort: str = "score"
    order: str = ""
    published: bool = False
    by: str = "data"
    x: str = "speed"
    column: tuple[str, ...] = ()
    page: int = 1

    @classmethod
    def of(cls, given: Iterable[tuple[str, str]]) -> Query:
        """Parse a URL's parameters.

        Raises:
            BadOption: an unknown parameter or an invalid value.
        """
        allowed: dict[str, Sequence[str]] = {
            "size": [*(name for name, _, _ in SIZES), UNKNOWN],
            "open": ["", "open", "proprietary", UNKNOWN],
            "sort": list(COLUMNS),
            "order": ["", "up", "down"],
            "by": ["protocol", "data"],
            "x": ["speed", "memory", "cost"],
            "column": [column.name for column in SHOWN],
        }
        defaults = {option.name: option.default for option in fields(cls)}
        values: dict[str, Any] = {}
        for key, text in given:
            if key not in defaults:
                raise BadOption(f"Unknown filter {key!r}.{did_you_mean(key, defaults)}")
            value = text.strip()
            if key in allowed and value not in allowed[key] and value:
                known = ", ".join(filter(None, allowed[key]))
                raise BadOption(f"{key}={value!r} is not allowed; allowed: {known}.")
            if not value:
                continue
            if isinstance(defaults[key], tuple):
                values[key] = (*values.get(key, ()), value)
            elif key == "page":
                values[key] = page_of(value)
            else:
                values[key] = value not in ("0", "no", "false") if key == "published" else value
        return cls(**values)

    @property
    def upwards(self) -> bool:
        """Whether the order is ascending."""
        return self.order == "up" if self.order else self.sort in _UPWARDS

    def address(self, **changes: Any) -> str:
        """Return the query as a URL, with some parameters changed; starts at the first page."""
        changed = replace(self, **{"page": 1, **changes})
        pairs: list[tuple[str, str]] = []
        for option in fields(changed):
            value = getattr(changed, option.name)
            if value == option.default:
                continue
            many = value if isinstance(value, tuple) else [int(value) if isinstance(value, bool) else value]
            pairs += [(option.name, str(item)) for item in many]
        return "?" + urlencode(pairs)

    def sorting(self, column: str) -> str:
        """Return the URL that sorts by a column, or reverses the order if it already does."""
        turned = self.sort == column
        up = not self.upwards if turned else column in _UPWARDS
        return self.address(sort=column, order="up" if up else "down")

    def keeps(self, entry: Entry) -> bool:
        """Return whether an entry passes the filters."""
        info = entry.info
        words = f"{entry.model} {entry.data} {entry.protocol} {info.vision} {info.language}".lower()
        openness = {True: "open", False: "proprietary", None: UNKNOWN}[info.open]
        return (
            all(word in words for word in self.q.lower().split())
            and (not self.size or info.size in self.size)
            and (not self.open or openness == self.open)
            and (not self.license or (info.license or UNKNOWN) in self.license)
            and (not self.data or entry.data in self.data)
            and (not self.protocol or entry.protocol in self.protocol)
            and (not self.suite or self.suite in entry.suites)
            and (not self.family or (info.family or UNKNOWN) in self.family)
            and (self.published or not entry.published)
        )

    def ordered(self, entries: Iterable[Entry]) -> list[Entry]:
        """Sort entries; those without a value come last, ties are sorted by model."""
        value = COLUMNS[self.sort]
        known: list[tuple[Any, Entry]] = []
        unknown = []
        for entry in entries:
            sort_value = value(entry)
            known.append((sort_value, entry)) if sort_value is not None else unknown.append(entry)
        known.sort(key=lambda pair: (pair[1].model, pair[1].id))
        known.sort(key=lambda pair: pair[0], reverse=not self.upwards)
        return [entry for _, entry in known] + sorted(unknown, key=lambda e: (e.model, e.id))
