"""Everything that Snellen raises on purpose.

::

    SnellenError
    ├── UsageError            what was asked for cannot be done as asked (the command line exits with 2)
    │   ├── UnknownName       no model, data set, protocol or run of that name
    │   ├── BadOption         an option that is not there, or a value that it does not take
    │   ├── MissingExtra      an optional dependency that is not installed
    │   ├── Unsupported       a model that cannot answer what a protocol asks
    │   ├── DataError         a data set that is not there, is empty, or contradicts itself
    │   │   └── ImageError    an image that is missing, broken, or too large to decode
    │   ├── ModelError        a checkpoint that is not there or cannot be loaded
    │   └── Conflict          what can be done once was done already: a second vote
    ├── Stopped               a run ended before its end, with what it has: too many failures, or money
    └── StoreError            the workspace cannot be read or written

Each message says what was refused, the value, what is allowed, and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType

__all__ = [
    "BadOption",
    "Conflict",
    "DataError",
    "ImageError",
    "Interrupted",
    "MissingExtra",
    "ModelError",
    "SnellenError",
    "Stopped",
    "StoreError",
    "UnknownName",
    "Unsupported",
    "UsageError",
    "did_you_mean",
    "reason_of",
    "require",
]


class SnellenError(Exception):
    """The base of all errors that Snellen raises on purpose."""


class UsageError(SnellenError):
    """What was asked for cannot be done as asked."""


class UnknownName(UsageError):
    """No model, data set, protocol or run has this name."""


class BadOption(UsageError):
    """An option is unknown, or does not take this value."""


class MissingExtra(UsageError):
    """An optional dependency is not installed."""


class Unsupported(UsageError):
    """A model cannot answer what a protocol asks."""


class DataError(UsageError):
    """A data set is not there, is empty, or contradicts itself."""


class ImageError(DataError):
    """An image is missing, broken, or too large to decode."""


class ModelError(UsageError):
    """A checkpoint is not there or cannot be loaded."""


class Conflict(UsageError):
    """What can be done only once was done already."""


class Stopped(SnellenError):
    """A run ended before its end. What was answered is kept, and the run can be gone on with."""


class Interrupted(Stopped):
    """A user ended it before its end."""


class StoreError(SnellenError):
    """The workspace cannot be read or written."""


def reason_of(error: BaseException) -> str:
    r"""What somebody else's error says, in one line: its type and its first line.

    >>> reason_of(ValueError("no\nand more"))
    'ValueError: no'
    """
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {first}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the nearest known word, or nothing.

    >>> did_you_mean("closedset", ["closed-set", "rank"])
    " Did you mean 'closed-set'?"
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        MissingExtra: it is not installed; the message names the extra that brings it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise MissingExtra(
            f"{purpose} needs the package {missing!r}, which is not installed. "
            f"Install it with: pip install 'snellen[{extra}]'"
        ) from error
