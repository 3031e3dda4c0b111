"""Images with boxes or captions, as detection data sets describe them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from snellen._util.words import counted
from snellen.datasets.base import Dataset, Row
from snellen.errors import DataError
from snellen.images import Image, cropped
from snellen.types import Region, Sample

__all__ = ["AnnotatedImage", "Captioned", "Crops", "Scenes", "Task", "located", "objects"]

#: What to make of boxes: crops to classify, or scenes in which to find all objects.
Task = Literal["crops", "detect"]


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image file with its objects.

    Attributes:
        name: its path relative to the data set's folder, which is its id.
        regions: its objects; boxes in pixels, or from 0 to 1 if ``unit``.
        captions: sentences about it.
    """

    name: str
    path: Path
    regions: tuple[Region, ...] = ()
    captions: tuple[str, ...] = ()
    unit: bool = False

    def in_pixels(self) -> tuple[Region, ...]:
        """Return its objects with boxes in pixels; reads the image's header if they are not.

        Raises:
            ImageError: the image cannot be read.
        """
        if not self.unit:
            return self.regions
        size = Image.from_path(self.path).size
        return tuple(region.scaled(*size) for region in self.regions)


def located(folder: Path, name: str) -> Path:
    """Return the path of an image in a folder.

    Raises:
        DataError: the name leads out of the folder.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{name!r} leads out of the folder of images, {folder}.")
    return path


def objects(
    name: str,
    images: Sequence[AnnotatedImage],
    labels: Sequence[str],
    task: Task,
    min_side: int,
    notes: Iterable[str] = (),
) -> Dataset:
    """Return the data set for a task.

    Args:
        min_side: smaller objects (in pixels, of the shorter side) are not cropped.

    Raises:
        DataError: there are no objects.
    """
    if task == "detect":
        return Scenes(name, images, labels, tuple(notes))
    return Crops(name, images, labels, min_side, tuple(notes))


class Crops(Dataset):
    """Each object, cut out of its image, to be classified."""

    def __init__(
        self,
        name: str,
        images: Sequence[AnnotatedImage],
        labels: Sequence[str],
        min_side: int,
        notes: tuple[str, ...],
    ) -> None:
        self.name = name
        self._objects: list[tuple[AnnotatedImage, int, Region]] = []
        small = 0
        for image in images:
            for number, region in enumerate(image.in_pixels()):
                left, top, right, bottom = region.box
                if min(right - left, bottom - top) < min_side:
                    small += 1
                else:
                    self._objects.append((image, number, region))
        if not self._objects:
            raise DataError(f"{name}: no objects of at least {min_side} pixels a side (-D min_side=N).")
        present = {region.name for _, _, region in self._objects}
        self.labels = tuple(label for label in labels if label in present)
        shown = sum(bool(image.regions) for image in images)
        count = f"{counted(len(self._objects), 'object')} of {counted(shown, 'image')}, cut out"
        if small:
            count += f"; left out: {small} smaller than {min_side} pixels (-D min_side=N)"
        self.notes = (f"{name}: {count}. To find them in their images: -D task=detect", *notes)

    def __len__(self) -> int:
        return len(self._objects)

    def row(self, index: int) -> Row:
        image, number, region = self._objects[index]
        return Row(f"{image.name}#{number}", region.name)

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        image, _, region = self._objects[index]
        row = self.row(index)
        cut = Image(partial(cropped, image.path, region.box), f"{image.path} {_words(region)}")
        meta = {"source": image.name, "box": list(region.box)}
        return Sample(
            row.id, (cut,), label=row.label, labels=labels, background=background, synonyms=self.synonyms,
            meta=meta,
        )  # fmt: skip

    def digest(self, index: int) -> str:
        image, _, region = self._objects[index]
        return _digest(image, [region])


class _WholeImages(Dataset):
    """One sample per image."""

    def __init__(self, name: str, images: Sequence[AnnotatedImage]) -> None:
        self.name, self._images = name, images

    def __len__(self) -> int:
        return len(self._images)

    def row(self, index: int) -> Row:
        return Row(self._images[index].name, None)

    def digest(self, index: int) -> str:
        image = self._images[index]
        return _digest(image, image.regions or image.captions)


class Scenes(_WholeImages):
    """Each image, in which to find all objects; there may be none, so that what is found there is wrong."""

    protocol = "grounding"
    protocol_options = {"task": "detect"}  # noqa: RUF012 - as in the base class

    def __init__(
        self, name: str, images: Sequence[AnnotatedImage], labels: Sequence[str], notes: tuple[str, ...]
    ) -> None:
        super().__init__(name, images)
        empty = sum(not image.regions for image in images)
        self.notes = notes
        if empty:
            self.notes += (f"{name}: {counted(empty, 'image')} without an object, where none is right",)
        present = {region.name for image in self._images for region in image.regions}
        if not present:
            raise DataError(f"{name}: no objects.")
        self.labels = tuple(label for label in labels if label in present)

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        image = self._images[index]
        return Sample(
            image.name, (Image.from_path(image.path),), labels=labels, regions=image.in_pixels(),
            synonyms=self.synonyms,
        )  # fmt: skip


class Captioned(_WholeImages):
    """Each image with its reference captions."""

    protocol = "caption"
    labels = ()

    def __init__(self, name: str, images: Sequence[AnnotatedImage], notes: Iterable[str] = ()) -> None:
        super().__init__(name, [image for image in images if image.captions])
        self.notes = tuple(notes)
        if not self._images:
            raise DataError(f"{name}: no captions.")

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        image = self._images[index]
        return Sample(image.name, (Image.from_path(image.path),), references=image.captions)


def _digest(image: AnnotatedImage, rest: object) -> str:
    content = json.dumps([Image.from_path(image.path).proven, repr(rest)])
    return hashlib.sha256(content.encode()).hexdigest()


def _words(region: Region) -> str:
    return "[{}]".format(", ".join(f"{x:.0f}" for x in region.box))
