"""COCO's annotation files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snellen._util.words import counted
from snellen.datasets.base import DATASETS, Dataset
from snellen.datasets.cells import missing
from snellen.datasets.objects import AnnotatedImage, Captioned, Task, located, objects
from snellen.errors import BadOption, DataError
from snellen.types import Region

__all__ = ["coco"]


@DATASETS.register("coco", example="coco:FILE")
def coco(path: str, *, task: Task | None = None, root: str | None = None, min_side: int = 16) -> Dataset:
    """COCO's JSON files: instances (objects cut out, to be classified), or captions.

    Options: ``task=detect``: find all objects in each image instead (``crops``: cut them out); ``root``: the
    folder of the images (default: found next to the file); ``min_side``: leave out objects whose shorter side
    has fewer pixels. Crowds, and boxes without an area, are left out.

    Source: Lin et al., "Microsoft COCO", arXiv 1405.0312; format: https://cocodataset.org/#format-data.

    Raises:
        DataError: not such a file, no objects, or no folder of images.
    """
    file = Path(path).expanduser()
    content = _read(file)
    name = f"coco:{path}"
    # By the texts of ids: some tools write numbers as texts in one list, but not in the other.
    files = {str(row["id"]): str(row["file_name"]).replace("\\", "/") for row in content["images"]}
    folder = _folder(file, list(files.values()), root)
    annotations = content["annotations"]
    known = [str(row.get("image_id")) in files for row in annotations]
    if annotations and not any(known):
        raise DataError(
            f"{file}: no annotation's image_id ({annotations[0].get('image_id')!r} …) is the id of an image "
            f"({', '.join(list(files)[:3])} …)."
        )
    notes = []
    if lost := known.count(False):
        notes.append(f"{name}: {counted(lost, 'annotation')} of images that are not listed left out")
    annotations = [row for row, there in zip(annotations, known, strict=True) if there]
    if annotations and "caption" in annotations[0]:
        if task is not None:
            raise BadOption(f"{name}: the file has captions, so task={task} is not allowed. Omit it.")
        captions = defaultdict(list)
        for row in annotations:
            if missing(row.get("caption")):
                raise DataError(f"{file}: annotation {row.get('id')} has no caption.")
            captions[str(row["image_id"])].append(" ".join(str(row["caption"]).split()))
        rows = [
            AnnotatedImage(f, located(folder, f), captions=tuple(captions[i]))
            for i, f in files.items()
            if i in captions
        ]
        return Captioned(name, rows, notes)
    names = {row["id"]: str(row["name"]) for row in content.get("categories", ())}
    regions: dict[Any, list[Region]] = defaultdict(list)
    crowds = flat = 0
    for row in annotations:
        where = f"{file}: annotation {row.get('id')}"
        if row.get("iscrowd"):
            crowds += 1
            continue
        if row.get("category_id") not in names:
            raise DataError(f"{where}: the category {row.get('category_id')} is not among 'categories'.")
        try:
            left, top, width, height = map(float, row["bbox"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where} has no bbox of four numbers, but {row.get('bbox')!r}.") from error
        if width <= 0 or height <= 0:
            flat += 1
            continue
        box = (left, top, left + width, top + height)
        regions[str(row["image_id"])].append(Region(box, names[row["category_id"]]))
    images = [AnnotatedImage(f, located(folder, f), tuple(regions[i])) for i, f in files.items()]
    notes += [f"{name}: {counted(crowds, 'crowd')} left out"] if crowds else []
    notes += [f"{name}: {counted(flat, 'box', 'boxes')} without an area left out"] if flat else []
    return objects(name, images, list(dict.fromkeys(names.values())), task or "crops", min_side, notes)


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise DataError(f"{file}: no such file.")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not JSON ({error}).") from error
    listed = isinstance(content, dict) and all(
        isinstance(content.get(key), list) and all(isinstance(row, dict) for row in content[key])
        for key in ("images", "annotations")
    )
    if not listed or not all({"id", "file_name"} <= row.keys() for row in content["images"]):
        raise DataError(
            f"{file}: not COCO's format: it has no lists 'images' (with 'id', 'file_name') and 'annotations'."
        )
    return dict(content)


def _folder(file: Path, names: Sequence[str], root: str | None) -> Path:
    """Return the folder of the images: the user's, or the usual one that has the first of them."""
    if root is not None:
        return Path(root).expanduser()
    split = file.stem.rpartition("_")[2]  # instances_val2017.json
    above = file.parent.parent
    places = [file.parent, file.parent / "images", above / split, above / "images" / split, above / "images"]
    places += [file.parent / split, above, above / file.parent.name]
    for place in places:
        if names and (place / names[0]).is_file():
            return place
    raise DataError(
        f"{file}: its images are not found ({names[0] if names else 'it lists none'}). Set their folder "
        "with: -D root=FOLDER"
    )
