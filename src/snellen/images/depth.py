"""Pictures of more than 8 bits: X-rays, microscopes, scanners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

__all__ = ["LARGEST", "in_eight_bits", "is_deep", "scaled", "top_value"]

#: TIFF's tag of the largest value that samples may have (SMaxSampleValue), and the older one.
LARGEST = (341, 281)


def top_value(most: float, tagged: object = None) -> float:
    """Return the value that is white in an image of up to 16 bits: the one in its tags, or else the largest
    of the used depth (10, 12, 14 or 16 bits), since X-rays and microscopes store 12 bits in 16.

    >>> top_value(3900), top_value(60000), top_value(900), top_value(900, 4095)
    (4095.0, 65535.0, 1023.0, 4095.0)
    """
    if isinstance(tagged, tuple) and tagged:
        tagged = tagged[0]
    if isinstance(tagged, int | float) and most <= tagged <= 65535 and tagged > 255:
        return float(tagged)
    return next(float(top) for top in (1023, 4095, 16383, 65535) if most <= top)


def is_deep(mode: str) -> bool:
    """Return whether pictures of one of Pillow's modes have more than 8 bits, which it would clip."""
    return mode.startswith("I") or mode == "F"


def in_eight_bits(
    image: Pixels, tags: Mapping[int, object], window: tuple[float, float] | None = None
) -> Pixels:
    """Scale a picture of more than 8 bits to RGB.

    Args:
        tags: of a TIFF.
        window: the values that become black and white; by default 0 and :func:`top_value`.
    """
    import numpy as np

    values = np.asarray(image, dtype=np.float64)
    if window is not None:
        return scaled(values, *window)
    most = values.max(initial=0)
    if image.mode.startswith("I;16"):
        return scaled(values, 0, top_value(most, next((tags[tag] for tag in LARGEST if tag in tags), None)))
    # 32 bits or floats, whose range is unknown.
    return scaled(values, 0, 65535.0 if most > 255 else 255.0 if most > 1 else 1.0)


def scaled(values: Any, low: float, high: float) -> Pixels:
    """Return values [height, width] as a gray RGB picture, from black at ``low`` to white at ``high``."""
    import numpy as np
    from PIL import Image as pillow

    levels = (values - low) * (255 / max(high - low, 1e-12))
    return pillow.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
