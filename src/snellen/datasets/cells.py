"""Read what people put into the cells of tables: lists, boxes and outlines, also written as text."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from snellen.errors import DataError
from snellen.types import Outline

__all__ = ["as_list", "boxes_in", "missing", "outlines_in", "texts_of", "well_formed"]

#: Four numbers, with or without commas and brackets.
_BOX = re.compile(r"[\[({]?\s*([^\s,;]+)[\s,;]+([^\s,;]+)[\s,;]+([^\s,;]+)[\s,;]+([^\s,;\])}]+)\s*[\])}]?")


def missing(value: Any) -> bool:
    """Return whether a cell is empty: null, not a number (as pandas writes it), or a blank text."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def well_formed(value: Any) -> Any:
    r"""Return a value read from JSON with broken characters replaced, of which nothing could be stored.

    >>> well_formed({"a": ["\ud83d", 1]})
    {'a': ['\ufffd', 1]}
    """
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [well_formed(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): well_formed(item) for key, item in value.items()}
    return value


def as_list(text: str) -> list[Any] | None:
    """Return the list that a text is, as JSON or as Python writes it; None if it is none.

    >>> as_list('["a", null]'), as_list("['a', None]"), as_list("[a]"), as_list("3")
    (['a', None], ['a', None], None, None)
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return well_formed(value) if isinstance(value, list) else None


def texts_of(value: Any, where: str, *, gaps: bool = False, numbers: bool = False) -> list[str]:
    """Return the texts in a cell: one, a list, or a list written as text (with ``numbers``, of numbers alone
    too). Missing ones are dropped, or, with ``gaps``, kept as empty texts.

    Args:
        where: the cell, for messages.

    Raises:
        DataError: the cell holds keys and values instead of texts.

    >>> texts_of(["x", 1, None], "a"), texts_of("['x', 3]", "a"), texts_of("[3, 4]", "a")
    (['x', '1'], ['x', '3'], ['[3, 4]'])
    """
    if isinstance(value, str) and value.strip().startswith("["):
        listed = as_list(value)
        # Numbers in brackets can be an answer, but are not a list of options.
        if (
            listed is not None
            and all(item is None or isinstance(item, str | int | float) for item in listed)
            and (numbers or not listed or any(isinstance(item, str) for item in listed))
        ):
            value = listed
    many = value if isinstance(value, list | tuple) else [value]
    for item in many:
        if isinstance(item, Mapping):
            raise DataError(f"{where}: expected a text or a list of texts, found {str(item)[:60]}")
    return [_text(item) for item in many if gaps or not _void(item)]


def _void(item: Any) -> bool:
    return missing(item) and not isinstance(item, str)


def _text(item: Any) -> str:
    return "" if _void(item) else str(item).lower() if isinstance(item, bool) else str(item)


def boxes_in(value: Any, where: str) -> list[list[float]]:
    """Return the boxes in a cell: none, four numbers, or a list of such; also as text.

    Args:
        where: the cell, for messages.

    Raises:
        DataError: it holds something else.

    >>> boxes_in("[[1, 2, 3, 4], [5, 6, 7, 8]]", "box"), boxes_in("1 2 3.5 4", "box"), boxes_in("", "box")
    ([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], [[1.0, 2.0, 3.5, 4.0]], [])
    """
    if missing(value):
        return []
    boxes = value
    if isinstance(value, str):
        boxes = as_list(value)
        if boxes is None:
            match = _BOX.fullmatch(value.strip())
            boxes = list(match.groups()) if match is not None else [value]
    if not isinstance(boxes, Sequence):
        boxes = [boxes]
    many = boxes if not boxes or _listed(boxes[0]) else [boxes]
    try:
        found = [[float(end) for end in box] for box in many]
    except (TypeError, ValueError):
        found = [[]]
    if any(len(box) != 4 for box in found):
        raise DataError(
            f"{where}={repr(value)[:80]} is not a box. A box is four numbers, such as [10, 20, 50, 60]; "
            "several are a list of these."
        )
    return found


def outlines_in(value: Any, where: str, count: int) -> list[tuple[Outline, ...]]:
    """Return the outlines of each of ``count`` objects in a cell, also as text. An object has one outline or
    more, each a list of numbers x, y, x, y …, or of corners [x, y].

    Args:
        where: the cell, for messages.

    Raises:
        DataError: it holds something else.

    >>> outlines_in([0, 0, 2, 0, 2, 2], "polygon", 1)
    [(((0.0, 0.0), (2.0, 0.0), (2.0, 2.0)),)]
    """
    if missing(value):
        return [()] * count
    known: Any = as_list(value) if isinstance(value, str) else value
    parts: list[Any] = known if _listed(known) and count > 1 and len(known) == count else [known]
    if len(parts) != count:
        raise DataError(f"{where}: outlines of {len(parts)} objects, but there are boxes of {count}.")
    try:
        return [tuple(_outlines(part)) for part in parts]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}={repr(value)[:80]} is not an outline. An outline is a list of numbers, "
            "[x, y, x, y, …], of at least three corners; an object may have several. Convert run-length "
            "masks into outlines."
        ) from error


def _listed(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _outlines(value: Any) -> list[Outline]:
    """Return the outlines of one object.

    Raises:
        TypeError, ValueError: it is none.
    """
    if missing(value) or value == []:
        return []
    if not _listed(value):
        raise TypeError(value)
    if _listed(value[0]) and not all(len(part) == 2 and not _listed(part[0]) for part in value):
        return [outline for part in value for outline in _outlines(part)]
    flat = [end for pair in value for end in pair] if _listed(value[0]) else value
    ends = [float(end) for end in flat]
    if len(ends) < 6 or len(ends) % 2 or not all(map(math.isfinite, ends)):
        raise ValueError(value)
    return [tuple(zip(ends[::2], ends[1::2], strict=True))]
