"""Numbers in sentences."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with what it counts.

    Args:
        one: what follows the number 1.
        many: what follows all others; by default the same with an "s".

    >>> counted(1, "image"), counted(2_000, "image"), counted(0, "class has", "classes have")
    ('1 image', '2,000 images', '0 classes have')
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
