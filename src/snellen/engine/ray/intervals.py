"""The length of a union of time intervals."""

from __future__ import annotations

__all__ = ["IntervalUnion"]


class IntervalUnion:
    """A set of time intervals, which may overlap."""

    def __init__(self) -> None:
        self._apart: list[tuple[float, float]] = []

    def add(self, began: float, ended: float) -> float:
        """Add an interval; return how much of it (seconds) was not covered yet.

        >>> spans = IntervalUnion()
        >>> [spans.add(*stretch) for stretch in [(90, 95), (0, 100), (50, 60), (99, 101)]]
        [5, 95, 0, 1]
        """
        within = [span for span in self._apart if span[1] >= began and span[0] <= ended]
        joined = (min([began, *(b for b, _ in within)]), max([ended, *(e for _, e in within)]))
        self._apart = sorted({*self._apart} - {*within} | {joined})
        return joined[1] - joined[0] - sum(e - b for b, e in within)
