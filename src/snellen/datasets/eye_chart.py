"""The eye test's charts: pictures that get harder level by level, drawn without fonts or downloads.

Each chart varies one thing (size, contrast, crowding …) over eight levels, to which a psychometric curve
is fitted (:mod:`snellen.eye_test.psychometric`). Sources, from tests of human vision: Snellen (1862) and
Bailey and Lovie (1976) for letters of decreasing size, Pelli and Robson (1988) for contrast, Bouma (1970)
for crowding, Taylor (1978) for the tumbling E.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from snellen.datasets.base import Dataset, Row
from snellen.datasets.letters import LETTERS, letter_patches
from snellen.datasets.shapes import COLORS, PATCHES, Patch
from snellen.images import Image, encode
from snellen.prompts import OPEN_WORLD
from snellen.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

__all__ = ["EYE_CHARTS", "EyeChart", "Optotype"]

Optotype = Literal["letters", "shapes"]
Ink = tuple[float, float, float]

PAPER: Ink = (225.0, 225.0, 225.0)
DARK: Ink = (25.0, 25.0, 25.0)
#: Clearly different figures, as many as there are letters.
SHAPES = tuple("circle square triangle star cross ring heart arrow house tree fish key".split())
#: Words made of the letters that can be drawn.
WORDS = tuple("cello clone fence flute fleet hotel lunch note photo tent vote zone".split())
WAYS = {"right": 0, "down": 90, "left": 180, "up": 270}
COUNTS = tuple(str(n) for n in range(1, 9))
ASKED = "Answer this question in one word: {question} Choose one from {{names}}. Answer:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A drawn object: patches around a center, all as fractions of the picture's side, and its color."""

    patches: Sequence[Patch]
    x: float
    y: float
    radius: float
    ink: Ink = DARK
    angle: float = 0.0


class Asked(NamedTuple):
    """One picture to draw."""

    level: float
    label: str
    optotype: Optotype
    rng: random.Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The definition of a chart.

    Attributes:
        levels: easiest first.
        unit: the unit of a level.
        rising: whether a higher level is easier.
        labels: the answers, by optotype.
        draw: returns the marks and the question of one picture.
        side: the default size of a picture in pixels.
    """

    levels: tuple[float, ...]
    unit: str
    labels: Callable[[Optotype], tuple[str, ...]]
    draw: Callable[[Asked], tuple[list[Mark], str]]
    rising: bool = True
    side: int = 224


def _falling(first: float, step: float) -> tuple[float, ...]:
    """Return eight levels, each smaller than the one before by the same factor."""
    return tuple(round(first * 10 ** (-step * i), 4) for i in range(8))


def _names(optotype: Optotype) -> tuple[str, ...]:
    return LETTERS if optotype == "letters" else SHAPES


def _patches(name: str) -> list[Patch]:
    return letter_patches(name) if name in LETTERS else PATCHES[name]


def _which(optotype: Optotype) -> str:
    return "Which letter is this?" if optotype == "letters" else OPEN_WORLD[0]


def _somewhere(rng: random.Random, radius: float) -> tuple[float, float]:
    room = max(0.0, min(0.15, 0.48 - radius))
    return 0.5 + rng.uniform(-room, room), 0.5 + rng.uniform(-room, room)


def _acuity(of: Asked) -> tuple[list[Mark], str]:
    x, y = _somewhere(of.rng, of.level / 2)
    return [Mark(patches=_patches(of.label), x=x, y=y, radius=of.level / 2)], _which(of.optotype)


def _contrast(of: Asked) -> tuple[list[Mark], str]:
    gray = PAPER[0] * (1 - of.level)
    x, y = _somewhere(of.rng, 0.28)
    return [Mark(patches=_patches(of.label), x=x, y=y, radius=0.28, ink=(gray, gray, gray))], _which(
        of.optotype
    )


def _color(of: Asked) -> tuple[list[Mark], str]:
    pure = COLORS[of.label]
    gray = 0.299 * pure[0] + 0.587 * pure[1] + 0.114 * pure[2]  # as bright as the color
    red, green, blue = (gray + of.level * (part - gray) for part in pure)
    x, y = _somewhere(of.rng, 0.28)
    return [
        Mark(patches=PATCHES[of.rng.choice(SHAPES)], x=x, y=y, radius=0.28, ink=(red, green, blue))
    ], "What color is the object?"


def _counting(of: Asked) -> tuple[list[Mark], str]:
    cells = [(column, row) for column in range(4) for row in range(4)]
    marks = [
        Mark(
            patches=PATCHES["circle"],
            x=0.2 + 0.2 * c + of.rng.uniform(-0.04, 0.04),
            y=0.2 + 0.2 * r + of.rng.uniform(-0.04, 0.04),
            radius=0.05,
        )
        for c, r in of.rng.sample(cells, int(of.label))
    ]
    return marks, "How many dots are there?"


def _crowding(of: Asked) -> tuple[list[Mark], str]:
    size = 0.12
    others = of.rng.sample([name for name in _names(of.optotype) if name != of.label], 4)
    away = of.level * size
    places = [(0.5 + away, 0.5), (0.5 - away, 0.5), (0.5, 0.5 + away), (0.5, 0.5 - away)]
    marks = [Mark(patches=_patches(of.label), x=0.5, y=0.5, radius=size / 2)]
    marks += [
        Mark(patches=_patches(name), x=x, y=y, radius=size / 2)
        for name, (x, y) in zip(others, places, strict=True)
    ]
    what = "Which letter" if of.optotype == "letters" else "What type of object"
    return marks, f"{what} is in the middle?"


def _orientation(of: Asked) -> tuple[list[Mark], str]:
    x, y = _somewhere(of.rng, of.level / 2)
    mark = Mark(patches=letter_patches("E"), x=x, y=y, radius=of.level / 2, angle=WAYS[of.label])
    return [mark], "The letter E is turned. Which way do its three strokes point?"


def _relations(of: Asked) -> tuple[list[Mark], str]:
    first, second = of.rng.sample(SHAPES, 2)
    side = -1 if of.label == "left" else 1
    y = 0.5 + of.rng.uniform(-0.2, 0.2)
    marks = [
        Mark(patches=PATCHES[first], x=0.5 + side * of.level / 2, y=y, radius=0.06),
        Mark(patches=PATCHES[second], x=0.5 - side * of.level / 2, y=1 - y, radius=0.06),
    ]
    return marks, f"Is the {first} to the left or to the right of the {second}?"


def _print(of: Asked) -> tuple[list[Mark], str]:
    word = of.label.upper()
    step = 1.25 * of.level
    left = 0.5 - step * (len(word) - 1) / 2
    y = 0.5 + of.rng.uniform(-0.2, 0.2)
    marks = [
        Mark(patches=letter_patches(letter), x=left + i * step, y=y, radius=of.level / 2)
        for i, letter in enumerate(word)
    ]
    return marks, "Which word is written here?"


EYE_CHARTS: dict[str, Chart] = {
    "acuity": Chart(levels=_falling(0.8, 0.2), unit="height / side", labels=_names, draw=_acuity),
    "contrast": Chart(levels=_falling(1.0, 0.25), unit="Weber contrast", labels=_names, draw=_contrast),
    "color": Chart(
        levels=_falling(1.0, 0.2), unit="saturation", labels=lambda optotype: tuple(COLORS)[:-1], draw=_color
    ),
    "counting": Chart(
        levels=tuple(range(1, 9)), unit="dots", labels=lambda optotype: COUNTS, draw=_counting, rising=False
    ),
    "crowding": Chart(
        levels=(3.4, 2.8, 2.3, 1.9, 1.6, 1.4, 1.2, 1.05),
        unit="distance / height",
        labels=_names,
        draw=_crowding,
    ),
    "orientation": Chart(
        levels=_falling(0.8, 0.2),
        unit="height / side",
        labels=lambda optotype: tuple(WAYS),
        draw=_orientation,
    ),
    "relations": Chart(
        levels=_falling(0.6, 0.12),
        unit="distance / side",
        labels=lambda optotype: ("left", "right"),
        draw=_relations,
    ),
    "print": Chart(
        levels=_falling(0.12, 0.12),
        unit="letter height / side",
        labels=lambda optotype: WORDS,
        draw=_print,
        side=448,
    ),
}


class EyeChart(Dataset):
    """See :func:`snellen.datasets.chart.chart`. A sample's meta holds its ``level``; levels alternate, so
    that any prefix contains all of them equally often.
    """

    #: Increment when the same options produce different pictures.
    VERSION = 1

    def __init__(
        self, *, chart: str, n: int, seed: int, size: int | None, split: str, optotype: Optotype
    ) -> None:
        self.name = f"chart:{chart}"
        self.chart = EYE_CHARTS[chart]
        self.optotype: Optotype = optotype
        self.labels = self.chart.labels(optotype)
        self.n, self.seed, self.size, self.split = n, seed, size or self.chart.side, split
        self._key = f"eye/{chart}/{optotype}/{split}/{seed}"
        self.protocol, self.protocol_options = "closed-set", {"rounds": 1, "prompt": ASKED}

    def __len__(self) -> int:
        return self.n

    def level(self, index: int) -> float:
        """Return the sample's level."""
        return self.chart.levels[index % len(self.chart.levels)]

    def _label(self, index: int) -> str:
        """Return the answer. Each level uses every answer once before repeating one; a number of dots is
        its own answer.
        """
        if self.chart.draw is _counting:
            return str(int(self.level(index)))
        turn, place = divmod(index // len(self.chart.levels), len(self.labels))
        order = list(self.labels)
        random.Random(f"{self._key}/{index % len(self.chart.levels)}/{turn}").shuffle(order)
        return order[place]

    def row(self, index: int) -> Row:
        return Row(f"{self.split}-{self.seed}-{index:05d}", self._label(index))

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        name, level, label = self.row(index).id, self.level(index), self._label(index)
        rng = random.Random(f"{self._key}/{index}")
        marks, question = self.chart.draw(Asked(level, label, self.optotype, rng))
        noise = rng.getrandbits(32)
        image = Image(lambda: encode(paint(marks, self.size, noise)), f"{self.name}/{name}")
        return Sample(
            name,
            (image,),
            label=label,
            labels=labels,
            background=background,
            question=question,
            meta={"level": level, "chart": self.name},
        )

    def digest(self, index: int) -> str:
        """Hash the description, not the pixels."""
        key = f"{self.VERSION}/{self._key}/{index}/{self.size}"
        return hashlib.sha256(key.encode()).hexdigest()


def paint(marks: Sequence[Mark], pixels: int, seed: int) -> Pixels:
    """Draw marks on light paper as an RGB picture, with four-fold oversampling and a little noise."""
    import numpy as np
    from PIL import Image as pillow
    from PIL import ImageDraw

    side = 4 * pixels
    picture = np.broadcast_to(np.array(PAPER), (pixels, pixels, 3)).copy()
    for mark in marks:
        stencil = pillow.new("L", (side, side), 0)
        pen = ImageDraw.Draw(stencil)
        cos, sin = math.cos(math.radians(mark.angle)), math.sin(math.radians(mark.angle))
        for points, ink in mark.patches:
            placed = [
                (
                    (mark.x + mark.radius * (cos * x - sin * y)) * side,
                    (mark.y + mark.radius * (sin * x + cos * y)) * side,
                )
                for x, y in points
            ]
            pen.polygon(placed, fill=255 if ink else 0)
        mask = (
            np.asarray(stencil.resize((pixels, pixels), pillow.Resampling.BOX), dtype=float)[..., None] / 255
        )
        picture = picture * (1 - mask) + np.array(mark.ink) * mask
    picture += np.random.default_rng(seed).normal(0, 1.0, picture.shape)
    return pillow.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
