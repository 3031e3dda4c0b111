"""What a selection of samples looks like, before anything is evaluated."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from statistics import median
from typing import Any

from snellen._util.words import counted
from snellen.datasets.base import Selection
from snellen.errors import DataError
from snellen.images.depth import is_deep
from snellen.images.perceptual import look, near_pairs
from snellen.metrics.stats import FEW_IN_STRATUM
from snellen.types import Sample

__all__ = ["Overview", "brief", "overview"]

#: Pixels by which boxes may reach beyond a picture.
ROUNDING = 2
#: The most names in one line.
NAMED = 10


def brief(selection: Selection) -> list[str]:
    """Describe the samples and classes, and classes that a limit leaves out. Reads no image."""
    counts = _counts(selection)
    if not counts:
        return [f"{selection.name}: {counted(len(selection), 'sample')}"]
    few, many = min(counts.values()), max(counts.values())
    each = f"{few} each" if few == many else f"{few} to {many} each"
    lines = [
        f"{selection.name}: {counted(len(selection), 'sample')} of "
        f"{counted(len(counts), 'class', 'classes')}, {each}"
    ]
    if "limit" in selection.filters and (absent := _absent(selection, counts)):
        lines.append(
            f"{selection.name}: --limit {selection.filters['limit']} leaves out {len(absent)} of "
            f"{len(absent) + len(counts)} classes ({_some(absent)}). To have all: --per-class N, or --shuffle"
        )
    return lines


def _counts(selection: Selection) -> Counter[str]:
    """Count the samples of each class that occurs."""
    labels = (selection.data.row(index).label for index in selection.indices)
    return Counter(label for label in labels if label is not None)


def _absent(selection: Selection, counts: Counter[str]) -> list[str]:
    """Return the classes that have samples in the data, but none here."""
    data = selection.data
    present = {data.row(index).label for index in range(len(data))} & set(selection.labels)
    return [label for label in selection.labels if label in present and label not in counts]


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")


@dataclass(kw_only=True)
class Overview:
    """What is known of a selection after each image has been read.

    Attributes:
        classes: samples of each class.
        absent: classes of the data set that have no sample here.
        duplicates: ids of samples with the same image file, in groups.
        conflicts: those groups whose samples have different classes.
        near: pairs of ids of different classes whose pictures are nearly the same (perceptual hashes); None
            if imagehash is not installed.
        shared: ids whose image is in the training split too.
        formats, modes: how many images have which.
        sizes: smallest, median and largest number of pixels per side (of the longer side).
        beyond: ids of samples with a box that reaches beyond its picture.
        transparent, deep: images with transparency, and with more than 8 bits per channel.
        invalid: samples that cannot be read, and why.
    """

    name: str
    n: int
    classes: dict[str, int] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    conflicts: list[list[str]] = field(default_factory=list)
    near: list[tuple[str, str]] | None = None
    shared: list[str] = field(default_factory=list)
    formats: dict[str, int] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    sizes: tuple[int, int, int] | None = None
    beyond: list[str] = field(default_factory=list)
    transparent: int = 0
    deep: int = 0
    invalid: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dict(vars(self))

    def problems(self) -> Iterator[str]:
        """Yield what should be looked at before a run, in words, with what to do."""
        if self.invalid:
            some = "; ".join(f"{id_}: {reason}" for id_, reason in self.invalid[:3])
            yield (
                f"{counted(len(self.invalid), 'sample')} cannot be read ({some}). Repair them, or "
                "add --skip-invalid"
            )
        if self.conflicts:
            some = "; ".join(" = ".join(group[:3]) for group in self.conflicts[:3])
            yield (
                f"{counted(len(self.conflicts), 'image is', 'images are')} in several classes "
                f"({some}). Correct the classes"
            )
        alike = [group for group in self.duplicates if group not in self.conflicts]
        if alike:
            some = "; ".join(" = ".join(group[:3]) for group in alike[:3])
            yield (
                f"{counted(len(alike), 'image occurs', 'images occur')} more than once ({some}): one "
                "in intervals"
            )
        if self.near:
            some = "; ".join(f"{a} ~ {b}" for a, b in self.near[:3])
            yield (
                f"{counted(len(self.near), 'pair')} of pictures in different classes nearly the same ({some})"
            )
        if self.shared:
            yield (
                f"{counted(len(self.shared), 'image is', 'images are')} in the training split too "
                f"({_some(self.shared[:3])}). Do not "
                "train on it"
            )
        if self.absent:
            yield (
                f"{counted(len(self.absent), 'class has', 'classes have')} no sample here "
                f"({_some(self.absent)}). Try --shuffle, or "
                "--per-class N"
            )
        few = [name for name, count in self.classes.items() if count < FEW_IN_STRATUM]
        if few:
            yield (
                f"{counted(len(few), 'class has', 'classes have')} fewer than {FEW_IN_STRATUM} images "
                f"({_some(few)}): too few for an interval of the macro F1"
            )
        if self.beyond:
            yield (
                f"{counted(len(self.beyond), 'sample has', 'samples have')} a box that reaches beyond its "
                f"picture ({_some(self.beyond[:3])}). Are boxes read as they are meant (-D box_as=)"
            )
        if self.transparent:
            have = counted(self.transparent, "image has", "images have")
            yield f"{have} transparency; models see it as white"
        if self.deep:
            yield (
                f"{counted(self.deep, 'image')} of more than 8 bits, scaled by the range of pixels; to set "
                "it: -D window=LOW,HIGH"
            )


def overview(selection: Selection, train: Selection | None = None) -> Overview:
    """Read each image once, and describe a selection.

    Args:
        train: the training split, whose images should be others.
    """
    counts = _counts(selection)
    result = Overview(name=selection.name, n=len(selection), notes=list(selection.data.notes))
    result.classes = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
    result.absent = _absent(selection, counts)
    by_hash: dict[str, list[str]] = defaultdict(list)
    by_content: dict[tuple[str, ...], list[str]] = defaultdict(list)
    label_of: dict[str, str | None] = {}
    prints: list[tuple[str, int]] = []
    searches = find_spec("imagehash") is not None
    formats, modes, sides = Counter[str](), Counter[str](), list[int]()
    for position in range(len(selection)):
        id_ = selection.id(position)
        label_of[id_] = selection.data.row(selection.indices[position]).label
        try:
            sample = selection[position]
            images = sample.images
            if sample.regions and _beyond(sample):
                result.beyond.append(id_)
            by_content[tuple(image.sha256 for image in images)].append(id_)
            for image in images:
                header = image.header
                formats[header.format] += 1
                modes[header.mode] += 1
                sides.append(max(header.size))
                result.transparent += header.transparent
                result.deep += is_deep(header.mode)
                by_hash[image.sha256].append(id_)
                if searches and (seen := look(image)) is not None:
                    prints.append((id_, seen))
        except DataError as error:
            result.invalid.append((id_, str(error)))
    result.formats, result.modes = dict(formats.most_common()), dict(modes.most_common())
    result.sizes = (min(sides), int(median(sides)), max(sides)) if sides else None
    result.duplicates = [ids for content, ids in by_content.items() if content and len(ids) > 1]
    result.conflicts = [group for group in result.duplicates if len({label_of[id_] for id_ in group}) > 1]
    if searches:
        known_pairs = {frozenset(group[:2]) for group in result.duplicates}
        near = ((prints[i][0], prints[j][0]) for i, j in near_pairs([seen for _, seen in prints]))
        result.near = [
            pair
            for pair in near
            if label_of[pair[0]] != label_of[pair[1]] and frozenset(pair) not in known_pairs
        ]
    if train is not None:
        result.shared = _shared(by_hash, train)
    return result


def _beyond(sample: Sample) -> bool:
    """Return whether a region reaches beyond its picture by more than rounding."""
    width, height = sample.images[0].size
    boxes = [region.box for region in sample.regions]
    return any(
        min(left, top) < -ROUNDING or right > width + ROUNDING or bottom > height + ROUNDING
        for left, top, right, bottom in boxes
    )


def _shared(by_hash: dict[str, list[str]], train: Selection) -> list[str]:
    """Return the ids whose image is in the training data."""
    found: dict[str, None] = {}
    for position in range(len(train)):
        try:
            for image in train[position].images:
                found |= dict.fromkeys(by_hash.get(image.sha256, ()))
        except DataError:
            continue
    return list(found)
