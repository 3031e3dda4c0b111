"""Every exception that Snellen raises on purpose.

::

    SnellenError
    ├── UsageError            invalid input (the command line exits with 2)
    │   ├── UnknownName       no model, data set, protocol or run has this name
    │   ├── BadOption         an unknown option, or a value that it does not accept
    │   ├── MissingExtra      an optional dependency is not installed
    │   ├── Unsupported       the model cannot do what the protocol asks for
    │   ├── DataError         a data set is missing, empty or inconsistent
    │   │   └── ImageError    an image is missing, broken, or too large to decode
    │   ├── ModelError        a checkpoint is missing or cannot be loaded
    │   └── Conflict          a one-time action was repeated, such as a second vote
    ├── Stopped               a run stopped early: too many failures, or over budget
    └── StoreError            the workspace cannot be read or written

Each message names the value, says what is wrong with it and what is allowed, and gives the next step.
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
    """Base class of all exceptions that Snellen raises on purpose."""


class UsageError(SnellenError):
    """The input is invalid."""


class UnknownName(UsageError):
    """No model, data set, protocol or run has this name."""


class BadOption(UsageError):
    """An option is unknown or does not accept this value."""


class MissingExtra(UsageError):
    """An optional dependency is not installed."""


class Unsupported(UsageError):
    """The model cannot do what the protocol asks for."""


class DataError(UsageError):
    """A data set is missing, empty or inconsistent."""


class ImageError(DataError):
    """An image is missing, broken, or too large to decode."""


class ModelError(UsageError):
    """A checkpoint is missing or cannot be loaded."""


class Conflict(UsageError):
    """A one-time action was repeated."""


class Stopped(SnellenError):
    """A run stopped early. Answers so far are saved, and the run can be resumed."""


class BudgetSpent(Stopped):
    """A request was not made, as it could exceed the budget."""


class Interrupted(Stopped):
    """The user interrupted a run."""


class StoreError(SnellenError):
    """The workspace cannot be read or written."""


def reason_of(error: BaseException) -> str:
    r"""Summarize an exception in one line: its type and the first line of its message.

    >>> reason_of(ValueError("no\nand more"))
    'ValueError: no'
    """
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {first}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known word, or an empty string.

    >>> did_you_mean("closedset", ["closed-set", "rank"])
    " Did you mean 'closed-set'?"
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def one_of(option: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse a value that is none of a few allowed ones, such as those of a ``Literal``.

    >>> one_of("leaks", "drop", ("refuse", "drop"))

    Raises:
        BadOption: as stated.
    """
    known = list(allowed)
    if value not in known:
        near = did_you_mean(str(value), map(str, known))
        raise BadOption(f"{option}={value!r} is not allowed.{near} Allowed: {', '.join(map(str, known))}.")


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        MissingExtra: it is not installed; the message names the extra to install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise MissingExtra(
            f"{purpose} needs the package {missing!r}, which is not installed. "
            f"Install it with: pip install 'snellen[{extra}]'"
        ) from error
