"""Areas of boxes, given as left, top, right, bottom."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["area", "iou", "shared_area"]


def area(box: Sequence[float]) -> float:
    """Return a box's area; 0 if its sides are in the wrong order."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def shared_area(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the area that two boxes share."""
    return area((*map(max, first[:2], second[:2]), *map(min, first[2:4], second[2:4])))


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the intersection over union of two boxes; 0 if neither has an area.

    >>> iou((0, 0, 1, 1), (0.5, 0, 1, 1))
    0.5
    """
    shared = shared_area(first, second)
    union = area(first) + area(second) - shared
    return shared / union if union > 0 else 0.0
