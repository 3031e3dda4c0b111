"""Values in Python's notation, as models write them."""

from __future__ import annotations

import ast
from typing import Any

__all__ = ["literal"]


def literal(text: str) -> Any:
    """Return the value that a text is the notation of; nothing is run.

    Raises:
        ValueError: it is none, whatever the reason.
    """
    try:
        return ast.literal_eval(text)
    except (TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(str(error)) from error
