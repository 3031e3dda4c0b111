"""COCO's annotation files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snellen._util.words import counted
from snellen.datasets.base import DATASETS, Dataset
from snellen.datasets.cells import missing
from snellen.datasets.objects import AnnotatedImage, Captioned, Task, located, objects
from snellen.errors import BadOption, DataError
from snellen.types import Region

__all__ = ["coco"]

#: A row of the list of annotations.
Annotation = dict[str, Any]


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
    annotations, notes = _of_listed(content["annotations"], files, str(file))
    if annotations and "caption" in annotations[0]:
        if task is not None:
            raise BadOption(f"{name}: the file has captions, so task={task} is not allowed. Omit it.")
        captions = _captions(annotations, str(file))
        said = {i: tuple(captions.get(i, ())) for i in files}
        images = [AnnotatedImage(f, located(folder, f), captions=said[i]) for i, f in files.items()]
        return Captioned(name, images, [f"{name}: {note}" for note in notes])
    names = {row["id"]: str(row["name"]) for row in content.get("categories", ())}
    regions, left_out = _regions(annotations, names, str(file))
    images = [AnnotatedImage(f, located(folder, f), tuple(regions.get(i, ()))) for i, f in files.items()]
    notes = [f"{name}: {note}" for note in (*notes, *left_out)]
    return objects(name, images, list(dict.fromkeys(names.values())), task or "crops", min_side, notes)


def _of_listed(
    annotations: list[Annotation], files: Mapping[str, str], file: str
) -> tuple[list[Annotation], list[str]]:
    """Return the annotations of listed images, and a note on the others.

    Raises:
        DataError: there are none.
    """
    kept = [row for row in annotations if str(row.get("image_id")) in files]
    if annotations and not kept:
        raise DataError(
            f"{file}: no annotation's image_id ({annotations[0].get('image_id')!r} …) is the id of an image "
            f"({', '.join(list(files)[:3])} …)."
        )
    lost = len(annotations) - len(kept)
    return kept, [f"{counted(lost, 'annotation')} of images that are not listed left out"] if lost else []


def _captions(annotations: Iterable[Annotation], file: str) -> dict[str, list[str]]:
    """Return the captions by image."""
    captions = defaultdict(list)
    for row in annotations:
        if missing(row.get("caption")):
            raise DataError(f"{file}: annotation {row.get('id')} has no caption.")
        captions[str(row["image_id"])].append(" ".join(str(row["caption"]).split()))
    return captions


def _regions(
    annotations: Iterable[Annotation], names: Mapping[Any, str], file: str
) -> tuple[dict[str, list[Region]], list[str]]:
    """Return the objects by image, and notes on what is left out.

    Args:
        names: of the categories.
    """
    regions: dict[str, list[Region]] = defaultdict(list)
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
        if not (width > 0 and height > 0):
            flat += 1
            continue
        box = (left, top, left + width, top + height)
        regions[str(row["image_id"])].append(Region(box, names[row["category_id"]]))
    notes = [f"{counted(crowds, 'crowd')} left out"] if crowds else []
    notes += [f"{counted(flat, 'box', 'boxes')} without an area left out"] if flat else []
    return regions, notes


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
