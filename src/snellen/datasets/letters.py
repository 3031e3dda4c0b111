"""Optotypes: letters on a 5 x 5 grid, as on an eye chart, drawn without fonts.

Source: H. Snellen, "Probebuchstaben zur Bestimmung der Sehschärfe" (1862): letters five times as high as
their strokes are wide. Sizes decrease by a constant factor from line to line (Bailey and Lovie 1976).
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from snellen.datasets.shapes import Patch

__all__ = ["CONTRASTS", "LETTERS", "SIZES", "draw_letter", "letter_patches"]

#: Heights as fractions of the picture's side: ten lines, each 10^-0.1 of the previous (0.1 logMAR).
SIZES: tuple[float, ...] = tuple(round(0.5 * 10 ** (-0.1 * line), 4) for line in range(10))
#: Weber contrasts of the letter against its background.
CONTRASTS: tuple[float, ...] = (1.0, 0.5, 0.25, 0.1)

PatchBox = tuple[float, float, float, float]
#: Strokes as boxes (x0, y0, x1, y1) on the grid; slanted ones as quadrangles; rings separately.
_BOXES: dict[str, list[PatchBox]] = {
    "E": [(0, 0, 1, 5), (0, 0, 5, 1), (0, 2, 5, 3), (0, 4, 5, 5)],
    "F": [(0, 0, 1, 5), (0, 0, 5, 1), (0, 2, 5, 3)],
    "H": [(0, 0, 1, 5), (4, 0, 5, 5), (0, 2, 5, 3)],
    "L": [(0, 0, 1, 5), (0, 4, 5, 5)],
    "N": [(0, 0, 1, 5), (4, 0, 5, 5)],
    "P": [(0, 0, 1, 5), (0, 0, 5, 1), (0, 2, 5, 3), (4, 0, 5, 3)],
    "T": [(2, 0, 3, 5), (0, 0, 5, 1)],
    "U": [(0, 0, 1, 5), (4, 0, 5, 5), (0, 4, 5, 5)],
    "Z": [(0, 0, 5, 1), (0, 4, 5, 5)],
    "O": [],
    "C": [],
    "V": [],
}
_SLANTS: dict[str, list[list[tuple[float, float]]]] = {
    "N": [[(0, 0), (1.4, 0), (5, 5), (3.6, 5)]],
    "Z": [[(3.6, 1), (5, 1), (1.4, 4), (0, 4)]],
    "V": [[(0, 0), (1.1, 0), (3, 5), (2, 5)], [(3.9, 0), (5, 0), (3, 5), (2, 5)]],
}
LETTERS: tuple[str, ...] = tuple(sorted(_BOXES))


def letter_patches(letter: str) -> list[Patch]:
    """Return a letter as patches of ink and holes in the square [-1, 1] x [-1, 1], like figures."""

    def place(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x / 2.5 - 1, y / 2.5 - 1) for x, y in points]

    def ring(radius: float) -> list[tuple[float, float]]:
        turns = (2 * math.pi * i / 48 for i in range(48))
        return place([(2.5 + radius * math.cos(t), 2.5 + radius * math.sin(t)) for t in turns])

    patches: list[Patch] = [
        (place([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), True) for x0, y0, x1, y1 in _BOXES[letter]
    ]
    patches += [(place(corners), True) for corners in _SLANTS.get(letter, [])]
    if letter in "OC":
        patches += [(ring(2.5), True), (ring(1.5), False)]
    if letter == "C":
        patches.append((place([(3.9, 2), (5.1, 2), (5.1, 3), (3.9, 3)]), False))
    return patches


def draw_letter(letter: str, size: float, contrast: float, key: str, pixels: int = 224) -> Image:
    """Draw one letter, dark on light, as an RGB image of ``pixels`` x ``pixels``.

    Args:
        letter: one of ``LETTERS``.
        size: height as a fraction of the picture's side.
        contrast: (background - letter) / background, in luminance.
        key: determines the letter's position, which varies by a tenth of the side.
    """
    from PIL import Image, ImageDraw

    oversample = 4
    side = pixels * oversample
    rng = random.Random(key)
    unit = size * side / 5
    left = side / 2 + rng.uniform(-0.1, 0.1) * side - 2.5 * unit
    top = side / 2 + rng.uniform(-0.1, 0.1) * side - 2.5 * unit

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x * unit, top + y * unit

    paper = 230
    ink = round(paper * (1 - contrast))
    image = Image.new("L", (side, side), paper)
    pen = ImageDraw.Draw(image)
    for x0, y0, x1, y1 in _BOXES[letter]:
        pen.rectangle([place(x0, y0), place(x1, y1)], fill=ink)
    for corners in _SLANTS.get(letter, []):
        pen.polygon([place(x, y) for x, y in corners], fill=ink)
    if letter in "OC":
        pen.ellipse([place(0, 0), place(5, 5)], fill=ink)
        pen.ellipse([place(1, 1), place(4, 4)], fill=paper)
    if letter == "C":  # the gap of a Landolt ring: one fifth of its height
        pen.rectangle([place(2.5 + math.sqrt(1.5**2 - 0.5**2), 2), place(5.1, 3)], fill=paper)
    return image.resize((pixels, pixels), Image.Resampling.BOX).convert("RGB")
