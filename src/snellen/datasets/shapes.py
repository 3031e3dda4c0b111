"""Procedural figures: 28 kinds x 8 colors x 3 sizes x 5 places, drawn with Pillow from a seed.

A :class:`DrawnFigure` is a pure description, from which :func:`draw` always makes the same picture. The
built-in models are trained on such figures (with other seeds), and any model can be evaluated on them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "COLORS",
    "KINDS",
    "PATCHES",
    "PLACES",
    "SIZES",
    "DrawnFigure",
    "Patch",
    "article",
    "caption",
    "draw",
    "figure",
    "nth_figure",
]

Point = tuple[float, float]
#: A polygon in the unit square [-1, 1] x [-1, 1] (y grows downwards), and whether it is ink or a hole.
Patch = tuple[list[Point], bool]

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (38, 90, 220),
    "yellow": (240, 205, 40),
    "orange": (245, 135, 30),
    "purple": (140, 60, 190),
    "pink": (245, 130, 180),
    "black": (25, 25, 25),
}
#: Radius of the figure as a fraction of the picture's side.
SIZES: dict[str, float] = {"small": 0.22, "medium": 0.30, "large": 0.40}
#: Center of the figure as fractions of width and height.
PLACES: dict[str, Point] = {
    "center": (0.5, 0.5),
    "top left": (0.36, 0.36),
    "top right": (0.64, 0.36),
    "bottom left": (0.36, 0.64),
    "bottom right": (0.64, 0.64),
}


def _polygon(corners: int, radius: float = 1.0) -> list[Point]:
    angles = (2 * math.pi * i / corners - math.pi / 2 for i in range(corners))
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _star(points: int, inner: float) -> list[Point]:
    ring = _polygon(2 * points)
    return [(x, y) if i % 2 == 0 else (inner * x, inner * y) for i, (x, y) in enumerate(ring)]


def _gear(teeth: int, inner: float) -> list[Point]:
    ring = _polygon(4 * teeth)
    return [(x, y) if (i // 2) % 2 == 0 else (inner * x, inner * y) for i, (x, y) in enumerate(ring)]


def _ink(*points: Point) -> Patch:
    return list(points), True


def _box(x0: float, y0: float, x1: float, y1: float, ink: bool = True) -> Patch:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], ink


def _oval(x0: float, y0: float, x1: float, y1: float, ink: bool = True) -> Patch:
    cx, cy, rx, ry = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2
    turn = [2 * math.pi * i / 32 for i in range(32)]
    return [(cx + rx * math.cos(t), cy + ry * math.sin(t)) for t in turn], ink


#: Each kind is a stack of patches; a hole shows the background through what was inked before it.
PATCHES: dict[str, list[Patch]] = {
    "circle": [_oval(-0.9, -0.9, 0.9, 0.9)],
    "square": [_box(-0.8, -0.8, 0.8, 0.8)],
    "triangle": [(_polygon(3), True)],
    "pentagon": [(_polygon(5), True)],
    "hexagon": [(_polygon(6), True)],
    "star": [(_star(5, 0.4), True)],
    "cross": [_box(-0.3, -0.95, 0.3, 0.95), _box(-0.95, -0.3, 0.95, 0.3)],
    "ring": [_oval(-0.95, -0.95, 0.95, 0.95), _oval(-0.55, -0.55, 0.55, 0.55, ink=False)],
    "heart": [
        _oval(-0.95, -0.85, 0.05, 0.15),
        _oval(-0.05, -0.85, 0.95, 0.15),
        _ink((-0.9, -0.15), (0.9, -0.15), (0, 0.95)),
    ],
    "diamond": [_ink((0, -1), (0.62, 0), (0, 1), (-0.62, 0))],
    "crescent": [_oval(-0.9, -0.9, 0.9, 0.9), _oval(-0.35, -0.95, 1.2, 0.75, ink=False)],
    "arrow": [_box(-0.95, -0.22, 0.2, 0.22), _ink((0.1, -0.75), (0.98, 0), (0.1, 0.75))],
    "oval": [_oval(-1, -0.55, 1, 0.55)],
    "trapezoid": [_ink((-0.5, -0.6), (0.5, -0.6), (1, 0.6), (-1, 0.6))],
    "semicircle": [_oval(-1, -0.5, 1, 1.5), _box(-1.2, 0.5, 1.2, 1.7, ink=False)],
    "bolt": [_ink((0.25, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1), (0.6, -0.2), (0.05, -0.2))],
    "house": [
        _box(-0.65, -0.1, 0.65, 0.9),
        _ink((-0.95, -0.1), (0, -0.95), (0.95, -0.1)),
        _box(-0.18, 0.35, 0.18, 0.9, ink=False),
    ],
    "tree": [
        _box(-0.15, 0.3, 0.15, 1),
        _ink((-0.75, 0.4), (0, -0.4), (0.75, 0.4)),
        _ink((-0.6, -0.1), (0, -1), (0.6, -0.1)),
    ],
    "flower": [_oval(x - 0.38, y - 0.38, x + 0.38, y + 0.38) for x, y in _polygon(6, 0.6)]
    + [_oval(-0.22, -0.22, 0.22, 0.22, ink=False)],
    "gear": [(_gear(8, 0.72), True), _oval(-0.3, -0.3, 0.3, 0.3, ink=False)],
    "cloud": [
        _oval(-1, -0.1, -0.1, 0.6),
        _oval(-0.6, -0.6, 0.3, 0.4),
        _oval(-0.1, -0.4, 0.7, 0.5),
        _oval(0.2, -0.1, 1, 0.6),
        _box(-0.6, 0.2, 0.6, 0.6),
    ],
    "fish": [
        _oval(-0.95, -0.45, 0.55, 0.45),
        _ink((0.35, 0), (0.98, -0.55), (0.98, 0.55)),
        _oval(-0.7, -0.2, -0.5, 0, ink=False),
    ],
    "mushroom": [
        _oval(-0.95, -0.9, 0.95, 0.6),
        _box(-1.2, -0.1, 1.2, 1.2, ink=False),
        _box(-0.28, -0.15, 0.28, 0.9),
    ],
    "flag": [_box(-0.75, -0.95, -0.55, 0.98), _ink((-0.55, -0.95), (0.9, -0.5), (-0.55, -0.05))],
    "hourglass": [
        _ink((-0.75, -0.95), (0.75, -0.95), (0, 0)),
        _ink((-0.75, 0.95), (0.75, 0.95), (0, 0)),
    ],
    "ladder": [_box(-0.6, -1, -0.4, 1), _box(0.4, -1, 0.6, 1)]
    + [_box(-0.5, y - 0.08, 0.5, y + 0.08) for y in (-0.7, -0.25, 0.2, 0.65)],
    "cup": [
        _ink((-0.7, -0.7), (0.4, -0.7), (0.25, 0.8), (-0.55, 0.8)),
        _oval(0.15, -0.45, 0.95, 0.35),
        _oval(0.38, -0.22, 0.72, 0.12, ink=False),
    ],
    "key": [
        _oval(-1, -0.45, -0.1, 0.45),
        _oval(-0.75, -0.2, -0.35, 0.2, ink=False),
        _box(-0.15, -0.1, 0.95, 0.1),
        _box(0.5, 0.05, 0.65, 0.4),
        _box(0.8, 0.05, 0.95, 0.4),
    ],
}
KINDS: tuple[str, ...] = tuple(PATCHES)


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """The content of a picture; ``seed`` fixes background, noise and small variations."""

    kind: str
    color: str
    size: str
    place: str
    seed: int


def nth_figure(key: str, index: int, kinds: Sequence[str] = KINDS) -> DrawnFigure:
    """Return the figure at an index of the endless stream named ``key``.

    Kinds come in shuffled rounds: every ``len(kinds)`` figures contain each kind once, so that any prefix of
    the stream is balanced.
    """
    turn, place = divmod(index, len(kinds))
    order = list(kinds)
    random.Random(f"{key}/round/{turn}").shuffle(order)
    return figure(f"{key}/{index}", order[place])


def figure(key: str, kind: str) -> DrawnFigure:
    """Return a figure of this kind whose other properties are drawn from ``key``."""
    rng = random.Random(key)
    return DrawnFigure(
        kind,
        rng.choice(list(COLORS)),
        rng.choice(list(SIZES)),
        rng.choice(list(PLACES)),
        rng.getrandbits(32),
    )


def draw(fig: DrawnFigure, pixels: int = 96) -> Image:
    """Draw a figure as an RGB image of ``pixels`` x ``pixels``, with three-fold oversampling.

    Position, size, angle (up to 20 degrees), aspect, ink and background vary with ``fig.seed``; the
    background has a soft gradient and the whole picture has noise.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    rng = random.Random(fig.seed)
    side = pixels * 3
    cx, cy = (c + rng.uniform(-0.04, 0.04) for c in PLACES[fig.place])
    radius = SIZES[fig.size] * rng.uniform(0.92, 1.08)
    angle, aspect = math.radians(rng.uniform(-20, 20)), rng.uniform(0.9, 1.1)
    cos, sin = radius * math.cos(angle), radius * math.sin(angle)

    stencil = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(stencil)
    for points, ink in PATCHES[fig.kind]:
        placed = [
            ((cx + cos * x * aspect - sin * y) * side, (cy + sin * x * aspect + cos * y) * side)
            for x, y in points
        ]
        pen.polygon(placed, fill=255 if ink else 0)
    small = stencil.resize((pixels, pixels), Image.Resampling.BOX)
    mask = np.asarray(small, dtype=np.float32)[..., None] / 255

    noise = np.random.default_rng(rng.getrandbits(32))
    ramp = np.linspace(-1, 1, pixels, dtype=np.float32)
    slope = ramp[:, None] * rng.uniform(-20, 20) + ramp[None, :] * rng.uniform(-20, 20)
    ink_color = np.array(COLORS[fig.color]) + noise.uniform(-18, 18, 3)
    paper = noise.uniform(150, 250, 3)
    while np.abs(paper - ink_color).sum() < 120:  # ink that a person could not see is not a fair test
        paper = noise.uniform(150, 250, 3)
    picture = (paper + slope[..., None]) * (1 - mask) + ink_color * mask
    picture += noise.normal(0, 10, picture.shape)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def article(word: str) -> str:
    """Return the word with its indefinite article (by its first letter; a silent h in "hour")."""
    vowel = word[0].lower() in "aeio" or word.lower().startswith("hour")
    return f"an {word}" if vowel else f"a {word}"


def caption(fig: DrawnFigure) -> str:
    """Describe everything in the picture in one sentence, without a period."""
    where = "in the center" if fig.place == "center" else f"at the {fig.place}"
    return f"{article(fig.size)} {fig.color} {fig.kind} {where}"
