"""Cells of tables that people open in spreadsheets."""

from __future__ import annotations

from typing import Any

__all__ = ["inert_cell"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def inert_cell(value: Any) -> Any:
    """Return a cell that no spreadsheet evaluates: a text that begins like a formula gets an apostrophe
    before it. Anything but a text stays as it is.

    >>> inert_cell("=1+1"), inert_cell(-1.5)
    ("'=1+1", -1.5)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
