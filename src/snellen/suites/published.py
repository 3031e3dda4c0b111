"""Published figures from the suites, as leaderboard entries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from snellen.leaderboards.entries import Entry
from snellen.leaderboards.model_info import ModelInfoIndex
from snellen.suites.suite import find, names

__all__ = ["published", "suites_of"]


@cache
def _parts() -> tuple[tuple[str, Any], ...]:
    """Return all suites' parts, with the names of their suites."""
    return tuple((name, part) for name in names() for part in find(name).parts)


def suites_of(data: str, protocol: str) -> tuple[str, ...]:
    """Return the suites that evaluate this data set under this protocol."""
    bare = protocol.partition("?")[0]
    return tuple(
        dict.fromkeys(
            suite
            for suite, part in _parts()
            if data in part.data
            and (not part.protocols or bare in {name.partition("?")[0] for name in part.protocols})
        )
    )


@cache
def published() -> tuple[Entry, ...]:
    """Return the published figures in all suites."""
    return tuple(
        _published(suite, part, data, row)
        for suite, part in _parts()
        if part.published is not None
        for data in part.data
        for row in part.published.rows
    )


#: Published figures that are not scores.
_OTHERS = frozenset({"gpu_gb", "items_per_second", "per_hour"})


def _published(suite: str, part: Any, data: str, row: Sequence[Any]) -> Entry:
    """Build one published entry."""
    figures = dict(zip(part.published.columns[1:], row[1:], strict=True))
    title = part.protocols[0] if part.protocols else "its own"
    for key in part.vary:
        option = key.partition(".")[2]
        setting = figures.pop(part.published.columns[1])
        title += f", {option.replace('_', ' ')} {setting}"
    scale = part.published.scale
    scores = {
        name: {"value": value * scale}
        for name, value in figures.items()
        if value is not None and name not in _OTHERS
    }
    primary = "accuracy" if "accuracy" in figures else next(iter(scores), "accuracy")
    gigabytes = figures.get("gpu_gb")
    return Entry(
        id="",
        model=str(row[0]),
        data=data,
        protocol=title,
        primary=primary,
        value=scores.get(primary, {}).get("value"),
        scores=scores,
        speed=figures.get("items_per_second"),
        memory=None if gigabytes is None else 1e9 * gigabytes,
        info=ModelInfoIndex().of(str(row[0]), {}),
        suites=(suite,),
        published=part.published.source,
    )
