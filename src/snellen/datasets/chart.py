"""Built-in charts, drawn on access and identical for everyone."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

from snellen.datasets.base import DATASETS, Dataset, Row
from snellen.datasets.eye_chart import EYE_CHARTS, EyeChart, Optotype
from snellen.datasets.letters import CONTRASTS, LETTERS, SIZES, draw_letter
from snellen.datasets.shapes import KINDS, DrawnFigure, caption, draw, nth_figure
from snellen.errors import BadOption, UnknownName, did_you_mean
from snellen.images import Image, encode
from snellen.prompts import CAPTION, OPEN_WORLD
from snellen.types import Sample

__all__ = ["Letters", "Shapes", "chart"]

ChartQuestion = Literal["object", "color", "caption", "multiple-choice"]


@DATASETS.register("chart", example="chart:shapes, chart:letters, chart:acuity …")
def chart(
    name: str,
    *,
    n: int = 280,
    seed: int = 0,
    size: int | None = None,
    split: Literal["test", "train"] = "test",
    ask: ChartQuestion = "object",
    optotype: Optotype = "letters",
) -> Dataset:
    """Drawn charts: shapes (28 figures), letters, and the eye test (acuity, contrast, color, counting …).

    The eye test's charts (acuity, contrast, color, counting, crowding, orientation, relations, print) get
    harder over eight levels; ``snellen eye-test`` fits a curve to each.

    Options: ``n`` pictures (of shapes, every 28 contain each class once; of letters, every 120 contain each
    letter at each size); ``seed``; ``size`` in pixels a side (shapes 96, letters 224); ``split`` (splits
    share no picture); ``ask``, the subject of questions about shapes (object, color, caption,
    multiple-choice); ``optotype``: what the eye test shows, ``letters`` or ``shapes``.

    Raises:
        UnknownName: no such chart.
        BadOption: a number out of range.
    """
    known = (*CHARTS, *EYE_CHARTS)
    if name not in known:
        raise UnknownName(f"Unknown chart {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    for option, value, low, high in (("n", n, 1, 10_000_000), ("size", size, 16, 4096)):
        if value is not None and not low <= value <= high:
            raise BadOption(f"chart?{option}={value} is not allowed; allowed: {low} to {high}.")
    if name in EYE_CHARTS:
        if ask != "object":
            raise BadOption(f"chart:{name}?ask={ask!r} is not allowed; this chart has a fixed question.")
        return EyeChart(chart=name, n=n, seed=seed, size=size, split=split, optotype=optotype)
    chart_: Dataset = CHARTS[name](n, seed, size, split, ask)
    return chart_


#: The default protocol of each question.
OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "object": ("closed-set", {}),
    "color": ("vqa", {"prompt": "{question}"}),
    "caption": ("caption", {}),
    "multiple-choice": ("multiple-choice", {}),
}


@lru_cache(maxsize=512)
def _drawn(figure: DrawnFigure, size: int) -> bytes:
    """Draw a figure; several models and protocols ask for the same ones one after the other."""
    return encode(draw(figure, size))


class Shapes(Dataset):
    """See :func:`chart`. A sample's meta holds color, size and place; its reference is a caption."""

    #: Increment when the same options produce different pictures.
    VERSION = 1

    def __init__(self, n: int, seed: int, size: int | None, split: str, ask: ChartQuestion) -> None:
        self.name = "chart:shapes"
        self.labels = KINDS
        self.n, self.seed, self.size, self.split, self.ask = n, seed, size or 96, split, ask
        self._key = f"chart/{split}/{seed}"
        self.protocol, self.protocol_options = OWN[ask]

    def __len__(self) -> int:
        return self.n

    def _figure(self, index: int) -> DrawnFigure:
        return nth_figure(self._key, index)

    def row(self, index: int) -> Row:
        return Row(f"{self.split}-{self.seed}-{index:05d}", self._figure(index).kind)

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        fig = self._figure(index)
        name = self.row(index).id
        question, choices, references = self._question(index, fig, labels)
        return Sample(
            name,
            (Image(lambda: _drawn(fig, self.size), f"{self.name}/{name}"),),
            label=fig.kind,
            labels=labels,
            background=background,
            synonyms=self.synonyms,
            question=question,
            choices=choices,
            answers=(choices.index(fig.kind),) if choices else (),
            references=references,
            meta={"color": fig.color, "size": fig.size, "place": fig.place},
        )

    def _question(
        self, index: int, fig: DrawnFigure, labels: tuple[str, ...]
    ) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        if self.ask == "color":
            return "What color is the object?", (), (fig.color,)
        if self.ask == "caption":
            return CAPTION, (), (caption(fig),)
        if self.ask == "multiple-choice":
            rng = random.Random(f"{self._key}/choices/{index}")
            others = [name for name in labels if name != fig.kind]
            choices = [fig.kind, *rng.sample(others, min(3, len(others)))]
            rng.shuffle(choices)
            return OPEN_WORLD[0], tuple(choices), (fig.kind,)
        return OPEN_WORLD[0], (), (caption(fig),)

    def digest(self, index: int) -> str:
        """Hash the description, not the pixels, so that no chart has to be drawn for it."""
        key = f"{self.VERSION}/{self._key}/{index}/{self.size}/{self.ask}"
        return hashlib.sha256(key.encode()).hexdigest()


class Letters(Dataset):
    """An acuity chart (see :func:`chart`): letters of decreasing size and contrast.

    A sample's meta holds ``size`` (height as a fraction of the side), ``height`` in pixels and ``contrast``:
    accuracy by size is a model's visual acuity.
    """

    VERSION = 1

    def __init__(self, n: int, seed: int, size: int | None, split: str, ask: ChartQuestion) -> None:
        if ask != "object":
            raise BadOption(
                f"chart:letters?ask={ask!r} is not allowed; letters can only be asked for as objects."
            )
        self.name = "chart:letters"
        self.labels = LETTERS
        self.n, self.seed, self.size, self.split = n, seed, size or 224, split
        self._key = f"letters/{split}/{seed}"

    def __len__(self) -> int:
        return self.n

    def _letter(self, index: int) -> tuple[str, float, float]:
        """Return letter, size and contrast: all letters at all sizes before the next contrast."""
        turn, place = divmod(index, len(LETTERS) * len(SIZES))
        cells = [(letter, size) for size in SIZES for letter in LETTERS]
        random.Random(f"{self._key}/round/{turn}").shuffle(cells)
        return (*cells[place], CONTRASTS[turn % len(CONTRASTS)])

    def row(self, index: int) -> Row:
        return Row(f"{self.split}-{self.seed}-{index:05d}", self._letter(index)[0])

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        letter, size, contrast = self._letter(index)
        name, key = self.row(index).id, f"{self._key}/{index}"
        image = Image(
            lambda: encode(draw_letter(letter, size, contrast, key, self.size)), f"{self.name}/{name}"
        )
        meta = {"size": size, "height": round(size * self.size, 1), "contrast": contrast}
        return Sample(
            name,
            (image,),
            label=letter,
            labels=labels,
            background=background,
            question="Which letter is this?",
            meta=meta,
        )

    def digest(self, index: int) -> str:
        """Hash the description, as for shapes."""
        key = f"{self.VERSION}/{self._key}/{index}/{self.size}"
        return hashlib.sha256(key.encode()).hexdigest()


CHARTS: dict[str, Callable[..., Any]] = {"shapes": Shapes, "letters": Letters}
