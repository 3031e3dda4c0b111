"""YOLO's folders of images and label files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from snellen.datasets.base import DATASETS, Dataset
from snellen.datasets.objects import AnnotatedImage, Task, objects
from snellen.errors import BadOption, DataError
from snellen.images import EXTENSIONS
from snellen.types import Region

__all__ = ["yolo"]

SPLITS = ("test", "val", "train")


@DATASETS.register("yolo", example="yolo:data.yaml")
def yolo(path: str, *, split: str | None = None, task: Task = "crops", min_side: int = 16) -> Dataset:
    """YOLO's layout: a YAML file with ``names`` and the images of each split.

    Label files are in the folder ``labels`` in place of ``images``.

    Options: ``split`` (default: the first of test, val, train that exists); ``task=detect``: find all objects
    in each image (``crops``: cut them out, to be classified); ``min_side``: leave out objects whose shorter
    side has fewer pixels.

    Source: https://docs.ultralytics.com/datasets/detect.

    Raises:
        DataError: not such a file, a broken label file, or no objects.
        BadOption: an unknown split.
    """
    file, name = Path(path).expanduser(), f"yolo:{path}"
    if file.is_dir():
        file = next((found for found in sorted(file.glob("*.y*ml"))), file / "data.yaml")
    content = _read(file)
    names = content["names"]
    labels = list(names.values()) if isinstance(names, dict) else list(names)
    by_number = names if isinstance(names, dict) else dict(enumerate(names))
    splits = [key for key in SPLITS if content.get(key)]
    if split is not None and split not in splits:
        raise BadOption(f"{file} has no split {split!r}; its splits: {', '.join(splits) or 'none'}.")
    if not splits:
        raise DataError(f"{file}: no images: one of {', '.join(SPLITS)} is needed.")
    chosen = split or splits[0]
    base = _base(file, content)
    images = []
    for image in _images(content[chosen], base, file):
        relative = image.relative_to(base).as_posix() if image.is_relative_to(base) else image.name
        images.append(AnnotatedImage(relative, image, _regions(image, by_number), unit=True))
    return objects(
        name, images, [str(label) for label in labels], task, min_side, [f"{name}: split {chosen!r}"]
    )


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{file}: cannot be read ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("names"), dict | list):
        raise DataError(
            f"{file}: not YOLO's format: it needs 'names' and at least one of {', '.join(SPLITS)}."
        )
    return content


def _base(file: Path, content: dict[str, Any]) -> Path:
    """Return the folder that images are relative to: ``path``, or the file's."""
    stated = Path(str(content.get("path") or "."))
    places = [file.parent / stated, file.parent, file.parent.parent / stated]
    first = content[next(key for key in SPLITS if content.get(key))]
    some = str(first[0] if isinstance(first, list) else first)
    return next((place for place in places if (place / some).exists()), file.parent)


def _images(stated: Any, base: Path, file: Path) -> Iterator[Path]:
    for item in stated if isinstance(stated, list) else [stated]:
        place = base / str(item)
        if not place.exists():  # Roboflow writes ../valid/images next to the file itself
            place = base / str(item).removeprefix("../")
        if place.is_dir():
            yield from sorted(p for p in place.rglob("*") if p.suffix.lower() in EXTENSIONS)
        elif place.is_file():
            lines = place.read_text(encoding="utf-8").split("\n")
            yield from (base / line.strip() for line in lines if line.strip())
        else:
            raise DataError(f"{file}: no such folder: {place}.")


def _regions(image: Path, names: dict[Any, Any]) -> tuple[Region, ...]:
    """Read an image's label file; without one, it has no objects."""
    parts = list(image.parts)
    places = [i for i, part in enumerate(parts) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    file = Path(*parts).with_suffix(".txt")
    if not file.is_file():
        return ()
    regions = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        try:
            label = str(names[int(cells[0])])
            regions.append(Region(_box([float(cell) for cell in cells[1:]]), label))
        except (ValueError, KeyError) as error:
            raise DataError(
                f"{file}, line {number}: {line[:60]!r} is not: class, then a box or an outline from 0 to 1."
            ) from error
    return tuple(regions)


def _box(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of center, width and height, or of an outline."""
    if len(numbers) == 4:
        x, y, width, height = numbers
        return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(len(numbers))
    xs, ys = numbers[::2], numbers[1::2]
    return (min(xs), min(ys), max(xs), max(ys))
