"""Whether what is tested was learnt from: identical files, identical pixels, near-duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from snellen.datasets.base import Selection
from snellen.errors import DataError, require

if TYPE_CHECKING:
    import numpy as np

__all__ = ["NEAR", "Leaks", "leaks"]

#: Of the 64 bits of a perceptual hash, so many may differ in near-duplicates.
NEAR = 4
#: Rows of distances that are computed together.
CHUNK = 2048


@dataclass
class Leaks:
    """Pictures that are both learnt from and tested.

    Attributes:
        identical: (id in training, id in the test) of one file, or of the same pixels.
        near: the same with the distance of their perceptual hashes, nearest first.
        places: by source, the places of those that are identical.
        unread: (place by source) of training samples whose image cannot be read.
    """

    identical: list[tuple[str, str]] = field(default_factory=list)
    near: list[tuple[str, str, int]] = field(default_factory=list)
    places: list[set[int]] = field(default_factory=list)
    unread: list[set[int]] = field(default_factory=list)


@dataclass
class _Looked:
    """What is known of the images of a selection, in the order of its samples."""

    ids: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    exact: list[tuple[str, str]] = field(default_factory=list)
    perceptual: list[int] = field(default_factory=list)
    unread: set[int] = field(default_factory=set)


def leaks(train: Sequence[Selection], tested: Iterable[Selection]) -> Leaks:
    """Compare every image that is learnt from with every image that is tested.

    Perceptual hashes are those of a discrete cosine transform, 64 bits (imagehash's ``phash``).

    Raises:
        DataError: an image that is tested, or, unless bad ones are skipped, learnt from cannot be read.
        MissingExtra: imagehash is not installed.
    """
    require("imagehash", "tune", "The search for near-duplicates")
    shown = _Looked()
    for selection in tested:
        _look(selection, shown)
    known: dict[str, str] = {}
    for name, hashes in zip(shown.ids, shown.exact, strict=True):
        known |= dict.fromkeys(hashes, name)
    found = Leaks()
    for selection in train:
        looked = _Looked()
        _look(selection, looked)
        same: set[int] = set()
        for name, place, hashes in zip(looked.ids, looked.places, looked.exact, strict=True):
            match = next((known[one] for one in hashes if one in known), None)
            if match is not None:
                same.add(place)
                found.identical.append((name, match))
        found.places.append(same)
        found.unread.append(looked.unread)
        found.near += _near(looked, shown, same)
    found.near.sort(key=lambda row: row[2])
    return found


def _look(selection: Selection, into: _Looked) -> None:
    import imagehash

    for place in range(len(selection)):
        try:
            for image in selection[place].images:
                body = hashlib.sha256(f"{image.pixels.size}".encode() + image.pixels.tobytes()).hexdigest()
                into.exact.append((image.sha256, body))
                into.perceptual.append(int(str(imagehash.phash(image.pixels)), 16))
                into.ids.append(selection.id(place))
                into.places.append(place)
        except DataError:
            if not selection.skip_bad:
                raise
            into.unread.add(place)


def _near(looked: _Looked, shown: _Looked, same: set[int]) -> list[tuple[str, str, int]]:
    import numpy as np

    if not shown.perceptual or not looked.perceptual:
        return []
    mine, theirs = (np.array(one.perceptual, dtype=np.uint64) for one in (looked, shown))
    found = []
    for start in range(0, len(mine), CHUNK):
        apart: np.ndarray[Any, Any] = np.bitwise_count(mine[start : start + CHUNK, None] ^ theirs[None, :])
        nearest = apart.argmin(1)
        for row, column in enumerate(nearest):
            distance = int(apart[row, column])
            if distance <= NEAR and looked.places[start + row] not in same:
                found.append((looked.ids[start + row], shown.ids[int(column)], distance))
    return found
