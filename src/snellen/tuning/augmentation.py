"""Change training images at random, in ways that keep their class."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from snellen.errors import BadOption, did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

__all__ = ["CHANGES", "Augmentation"]

#: The least share of an image's area that a crop keeps; the largest angle in degrees; the largest change of
#: brightness and contrast.
AREA, ANGLE, LIGHT = 0.7, 10.0, 0.25


def _crop(image: Pixels, rng: random.Random) -> Pixels:
    from PIL.Image import Resampling

    side = rng.uniform(AREA, 1.0) ** 0.5
    width, height = side * image.width, side * image.height
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    return image.resize(image.size, Resampling.BICUBIC, box=box)


def _rotate(image: Pixels, rng: random.Random) -> Pixels:
    from PIL.Image import Resampling

    # The corners get the color of the image's first pixel, which is more often background than black is.
    return image.rotate(rng.uniform(-ANGLE, ANGLE), Resampling.BICUBIC, fillcolor=image.getpixel((0, 0)))


def _light(image: Pixels, rng: random.Random) -> Pixels:
    from PIL import ImageEnhance

    brighter = ImageEnhance.Brightness(image).enhance(rng.uniform(1 - LIGHT, 1 + LIGHT))
    return ImageEnhance.Contrast(brighter).enhance(rng.uniform(1 - LIGHT, 1 + LIGHT))


def _flip(image: Pixels, rng: random.Random) -> Pixels:
    from PIL.Image import Transpose

    return image.transpose(Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


#: By name, in the order in which they are applied. ``flip`` is for classes without left and right alone.
CHANGES: Mapping[str, Callable[[Pixels, random.Random], Pixels]] = {
    "flip": _flip,
    "rotate": _rotate,
    "crop": _crop,
    "light": _light,
}


class Augmentation:
    """Random changes of training images, drawn anew in every epoch, and alike whenever a training resumes.

    Args:
        names: of :data:`CHANGES`.
        count: the number of examples to augment; those behind them, whose answers may depend on an image's
            place, colors or text, are left alone.
        seed: of all draws.

    Raises:
        BadOption: an unknown name.
    """

    def __init__(self, names: Sequence[str], count: int, seed: int) -> None:
        check_augmentation(names)
        self._names, self._count, self._seed = frozenset(names), count, seed
        #: The epoch, which the trainer sets.
        self.epoch = 0

    def of(self, images: Sequence[Pixels], place: int) -> list[Pixels]:
        """Return the images of an example by its position, changed."""
        if place >= self._count:
            return list(images)
        rng = random.Random(f"snellen/augment/{self._seed}/{self.epoch}/{place}")
        changed = []
        for image in images:
            for name, change in CHANGES.items():
                if name in self._names:
                    image = change(image, rng)
            changed.append(image)
        return changed

    def follow(self) -> Any:
        """Return a callback of the trainer that keeps the epoch up to date."""
        from transformers import TrainerCallback

        augmentation = self

        class EpochCounter(TrainerCallback):  # type: ignore[misc] # loaded when needed, so of no known type
            """Keeps the epoch up to date."""

            def on_epoch_begin(self, _: Any, state: Any, __: Any, **___: Any) -> None:
                augmentation.epoch = int(state.epoch or 0)

        return EpochCounter()


def check_augmentation(names: Sequence[str]) -> None:
    """Refuse unknown names.

    Raises:
        BadOption: as stated.
    """
    for name in names:
        if name not in CHANGES:
            raise BadOption(
                f"--augment {name!r} is not allowed.{did_you_mean(name, CHANGES)} Allowed: "
                f"{', '.join(CHANGES)}."
            )
