"""Pascal VOC's folders."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from snellen._util.words import counted
from snellen.datasets.base import DATASETS, Dataset
from snellen.datasets.objects import AnnotatedImage, Task, located, objects
from snellen.errors import BadOption, DataError
from snellen.images import MAX_BYTES
from snellen.types import Region

__all__ = ["voc"]

SPLITS = ("test", "val", "trainval", "train")


@DATASETS.register("voc", example="voc:FOLDER")
def voc(path: str, *, split: str | None = None, task: Task = "crops", min_side: int = 16) -> Dataset:
    """Pascal VOC's layout: ``Annotations/*.xml``, ``JPEGImages``, ``ImageSets/Main/SPLIT.txt``.

    Options: ``split`` (default: the first of test, val, trainval, train that exists; without lists, all
    images); ``task=detect``: find all objects in each image (``crops``: cut them out, to be classified);
    ``min_side``: leave out objects whose shorter side has fewer pixels. Difficult objects are left out.

    Source: Everingham et al., "The Pascal Visual Object Classes challenge", IJCV 88 (2010).

    Raises:
        DataError: not such a folder, a broken annotation, or no objects.
        BadOption: an unknown split.
    """
    top, name = Path(path).expanduser(), f"voc:{path}"
    if not (top / "Annotations").is_dir():
        raise DataError(f"{top}: no folder 'Annotations', so it is not in Pascal VOC's layout.")
    lists = {file.stem: file for file in sorted((top / "ImageSets" / "Main").glob("*.txt"))}
    lists = {key: file for key, file in lists.items() if "_" not in key}  # cat_val.txt is about one class
    if split is not None and split not in lists:
        raise BadOption(f"{top} has no split {split!r}; its splits: {', '.join(lists) or 'none'}.")
    chosen = split or next((key for key in SPLITS if key in lists), None)
    ids = [file.stem for file in sorted((top / "Annotations").glob("*.xml"))]
    if chosen is not None:
        ids = [line.split()[0] for line in lists[chosen].read_text().splitlines() if line.split()]
    images, difficult = [], 0
    for id_ in ids:
        file, regions, left_out = _read(top / "Annotations" / f"{id_}.xml")
        difficult += left_out
        images.append(AnnotatedImage(file, located(top / "JPEGImages", file), regions))
    labels = sorted({region.name for image in images for region in image.regions})
    notes = [f"{name}: split {chosen!r}"] if chosen else []
    notes += [f"{name}: {counted(difficult, 'object')} marked difficult left out"] if difficult else []
    return objects(name, images, labels, task, min_side, notes)


def _read(file: Path) -> tuple[str, tuple[Region, ...], int]:
    """Return the image's name, its objects, and the number of difficult ones."""
    try:
        text = file.read_bytes()
        if len(text) > MAX_BYTES or re.search(rb"<\0?!\0?[DE]", text):  # entities grow without bounds
            raise DataError(f"{file}: not an annotation (too large, or with a document type).")
        root = ElementTree.fromstring(text)  # noqa: S314 - without entities
        regions, difficult = [], 0
        for item in root.iter("object"):
            if (item.findtext("difficult") or "0").strip() == "1":
                difficult += 1
                continue
            box = item.find("bndbox")
            if box is None:
                raise ValueError("an object without a box")
            left, top, right, bottom = (
                float(box.findtext(side) or "") for side in ("xmin", "ymin", "xmax", "ymax")
            )
            regions.append(Region((left, top, right, bottom), (item.findtext("name") or "").strip()))
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{file}: not a readable annotation ({error}).") from error
    return (root.findtext("filename") or f"{file.stem}.jpg").strip(), tuple(regions), difficult
