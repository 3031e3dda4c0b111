"""Format figures as text, the same way in terminals, reports, pages and exports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from snellen.metrics.classification import PER_CLASS
from snellen.metrics.registry import METRICS
from snellen.metrics.stats import Estimate, Paired

__all__ = [
    "MISSING",
    "UNREAD_NOTE",
    "Estimate",
    "Interval",
    "counts",
    "detectable",
    "dollars",
    "duration",
    "figure_text",
    "giga",
    "heading_of",
    "mark",
    "number",
    "percent",
    "score_cells",
    "scored",
    "short_number",
    "unread",
    "with_interval",
]

#: Shown in place of a missing figure.
MISSING = "–"
#: A figure is marked if a larger share of its answers could not be read.
UNREAD = 1 / 3
UNREAD_NOTE = "! means that more than a third of the answers could not be read."
#: Shown in place of an interval.
TOO_FEW = "too few per class"


def heading_of(name: str) -> str:
    """Return a score's name in tables, with its unit."""
    return METRICS[name].title


def scored(name: str, value: float | None) -> str:
    """Format a score in the unit of tables, without the unit.

    >>> scored("accuracy", 0.934), scored("words", 12.5), scored("accuracy", None)
    ('93.4', '12.5', '–')
    """
    return MISSING if value is None else f"{METRICS[name].scale * value:.1f}"


class Interval(Protocol):
    """A value with its confidence interval, if it has one."""

    @property
    def value(self) -> float: ...

    @property
    def low(self) -> float | None: ...

    @property
    def high(self) -> float | None: ...


def score_cells(name: str, figure: Interval | None, *, digits: int = 1) -> tuple[str, str]:
    """Format a score and its interval as two cells; the second is empty without an interval, or says that
    there are too few images per class for one.

    Args:
        figure: such as a run's :class:`~snellen.storage.manifest.Figure`.
        digits: decimals of the interval's ends.
    """
    if figure is None:
        return MISSING, ""
    ends = [end for end in (figure.low, figure.high) if end is not None]
    if len(ends) < 2:
        return scored(name, figure.value), TOO_FEW if name in PER_CLASS else ""
    low, high = (f"{METRICS[name].scale * end:.{digits}f}" for end in ends)
    return scored(name, figure.value), f"{low}–{high}"


def mark(outcomes: Mapping[str, int]) -> str:
    """Return the mark of a figure of which too many answers could not be read; empty if enough could.

    >>> mark({"ok": 60, "unparsed": 30, "refused": 10}), mark({"ok": 2, "error": 1})
    ('!', '')
    """
    return "!" if unread(outcomes) > UNREAD else ""


def unread(outcomes: Mapping[str, int]) -> float:
    """Return the share of samples with another outcome than ok; 0 without samples."""
    n = sum(outcomes.values())
    return (n - outcomes.get("ok", 0)) / n if n else 0.0


def counts(outcomes: Mapping[str, int]) -> str:
    """Format the outcomes that occur.

    >>> counts({"ok": 60, "unparsed": 4, "error": 0})
    '60 ok, 4 unparsed'
    """
    return ", ".join(f"{count} {name}" for name, count in outcomes.items() if count)


def with_interval(name: str, figure: Interval | None, outcomes: Mapping[str, int] | None = None) -> str:
    """Format a score, marked if ``outcomes`` say so, and its interval in one cell.

    >>> with_interval("accuracy", Estimate(0.5, 0.4, 0.6), {"ok": 1, "unparsed": 9})
    '50.0! (40.0–60.0)'
    """
    text, interval = score_cells(name, figure)
    text += mark(outcomes or {})
    return f"{text} ({interval})" if interval else text


def percent(rate: float | None) -> str:
    """Format a rate in percent, without the sign."""
    return MISSING if rate is None else f"{100 * rate:.1f}"


def detectable(result: Paired, digits: int = 0) -> str:
    """Say what an insignificant comparison could have detected."""
    return f"n = {result.n}; detectable difference: {100 * result.detectable:.{digits}f} points"


def figure_text(value: Any) -> str:
    """Format a protocol's figure: a number, several, or numbers by name.

    >>> figure_text(0.5), figure_text([3, 1.0]), figure_text({"random": 0.9, "popular": 0.8})
    ('0.500', '3, 1.000', 'random 0.900, popular 0.800')
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {figure_text(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(figure_text, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def number(value: float | None) -> str:
    """Format a number to three significant digits."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def giga(count: float | None) -> str:
    """Format bytes as gigabytes (10⁹)."""
    return MISSING if count is None else f"{count / 1e9:.2f}"


def short_number(count: float | None) -> str:
    """Format a large number with a letter for thousands, millions or billions."""
    if count is None:
        return MISSING
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(int(count))


def dollars(value: float | None) -> str:
    """Format US dollars, to a hundredth of a cent for small amounts."""
    if value is None:
        return MISSING
    return f"{value:,.2f}" if value >= 1 else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Format a duration in the unit that fits.

    >>> duration(40), duration(600), duration(9000)
    ('40 seconds', '10 minutes', '2.5 hours')
    """
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
