"""Detect test images in the training data: identical files, identical pixels, near-duplicates."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from snellen._util.words import counted
from snellen.datasets.base import Selection
from snellen.errors import DataError, require
from snellen.images.perceptual import NEAR, look, pixel_hash
from snellen.reports.training import TrainingWatch

__all__ = ["NEAR", "Leaks", "leaks"]

#: Samples hashed per batch.
CHUNK = 2048


@dataclass
class Leaks:
    """Images that are in both the training and the test data.

    Attributes:
        identical: (training id, test id) of the same file or the same pixels.
        near: the same with the distance of their perceptual hashes, nearest first.
        places: by source, the positions of identical ones; ``near_places``: of near-duplicates.
        unread: (position by source) of training samples whose image cannot be read.
    """

    identical: list[tuple[str, str]] = field(default_factory=list)
    near: list[tuple[str, str, int]] = field(default_factory=list)
    places: list[set[int]] = field(default_factory=list)
    near_places: list[set[int]] = field(default_factory=list)
    unread: list[set[int]] = field(default_factory=list)

    def refusal(self, names: Sequence[str]) -> str:
        """Return why training is refused.

        Args:
            names: of the sources.
        """
        at_fault = ", ".join(name for name, same in zip(names, self.places, strict=True) if same)
        return (
            f"{at_fault}: {self._identical}. A test on training images is meaningless. Drop them from the "
            "training with --leaks drop, use another training set, or keep them with --leaks allow"
        )

    def notes(self, names: Sequence[str], *, dropped: bool) -> list[str]:
        """Return notes for the user if training proceeds anyway."""
        notes = []
        if self.identical:
            what = "dropped" if dropped else "kept in training, so the test is biased upward"
            notes.append(f"{len(self.identical)} {self._identical}: {what}.")
        if self.near:
            pairs = ", ".join(f"{a} ~ {b}" for a, b, _ in self.near[:5])
            notes.append(
                f"{counted(len(self.near), 'training image')} nearly the same as a test image by perceptual "
                f"hash ({pairs}{' …' if len(self.near) > 5 else ''}): "
                + ("dropped." if dropped else "kept; check them, or drop them with --leaks drop.")
            )
        return notes + [
            f"{name}: {counted(len(unread), 'image')} cannot be read: skipped."
            for name, unread in zip(names, self.unread, strict=True)
            if unread
        ]

    @property
    def _identical(self) -> str:
        pairs = ", ".join(f"{a} = {b}" for a, b in self.identical[:3])
        more = f" … {len(self.identical)} in total" if len(self.identical) > 3 else ""
        return f"test images are in the training data ({pairs}{more})"


@dataclass
class _Looked:
    """Hashes of the images of a selection, in the order of its samples."""

    ids: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    exact: list[tuple[str, str]] = field(default_factory=list)
    perceptual: list[int | None] = field(default_factory=list)
    unread: set[int] = field(default_factory=set)


def leaks(
    train: Sequence[Selection], tested: Iterable[Selection], watch: TrainingWatch | None = None
) -> Leaks:
    """Compare every training image with every test image.

    Perceptual hashes are those of a discrete cosine transform, 64 bits (imagehash's ``phash``).

    Raises:
        DataError: a test image, or, unless invalid ones are skipped, a training image cannot be read.
        MissingExtra: imagehash is not installed.
    """
    require("imagehash", "tune", "The search for near-duplicates")
    shown = _Looked()
    tested = list(tested)
    total, done = sum(map(len, [*tested, *train])), 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if watch is not None:
            watch("images compared", done, total, {})

    for selection in tested:
        _look(selection, shown, tell)
    known: dict[str, str] = {}
    for name, hashes in zip(shown.ids, shown.exact, strict=True):
        known |= dict.fromkeys(hashes, name)
    result = Leaks()
    for selection in train:
        looked = _Looked()
        _look(selection, looked, tell)
        same: set[int] = set()
        for name, place, hashes in zip(looked.ids, looked.places, looked.exact, strict=True):
            match = next((known[digest] for digest in hashes if digest in known), None)
            if match is not None:
                same.add(place)
                result.identical.append((name, match))
        result.places.append(same)
        result.unread.append(looked.unread)
        near = _near(looked, shown, same)
        result.near += [row[1:] for row in near]
        result.near_places.append({row[0] for row in near})
    result.near.sort(key=lambda row: row[2])
    return result


def _look(selection: Selection, into: _Looked, tell: Callable[[int], None]) -> None:
    # Decoding releases the GIL.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        places = range(len(selection))
        for start in range(0, len(selection), CHUNK):
            chunk = places[start : start + CHUNK]
            for place, hashed in zip(chunk, pool.map(partial(_hashes, selection), chunk), strict=True):
                if hashed is None:
                    into.unread.add(place)
                for exact, perceptual in hashed or ():
                    into.exact.append(exact)
                    into.perceptual.append(perceptual)
                    into.ids.append(selection.id(place))
                    into.places.append(place)
                tell(1)


def _hashes(selection: Selection, place: int) -> list[tuple[tuple[str, str], int | None]] | None:
    """Return for each image of a sample the hashes of its file and pixels, and a perceptual one (None for a
    picture of nearly one color); None if an image cannot be read and may be skipped.
    """
    try:
        return [((image.sha256, pixel_hash(image)), look(image)) for image in selection[place].images]
    except DataError:
        if not selection.skip_invalid:
            raise
        return None


def _near(looked: _Looked, shown: _Looked, same: set[int]) -> list[tuple[int, str, str, int]]:
    """Return (position, training id, test id, distance) of training images whose nearest test image is a
    near-duplicate.
    """
    import numpy as np

    own = [row for row, place in enumerate(looked.places) if place not in same]
    own = [row for row in own if looked.perceptual[row] is not None]
    theirs = [row for row, look in enumerate(shown.perceptual) if look is not None]
    if not own or not theirs:
        return []
    tested = np.array([shown.perceptual[row] for row in theirs], dtype=np.uint64)
    near = []
    for start in range(0, len(own), CHUNK):
        chunk = own[start : start + CHUNK]
        looks = np.array([looked.perceptual[row] for row in chunk], dtype=np.uint64)
        best, where = np.full(len(chunk), 65), np.zeros(len(chunk), dtype=int)
        for other in range(0, len(theirs), CHUNK):
            apart = np.bitwise_count(looks[:, None] ^ tested[None, other : other + CHUNK])
            nearest = apart.argmin(1)
            distance = apart[np.arange(len(chunk)), nearest]
            closer = distance < best
            best[closer], where[closer] = distance[closer], nearest[closer] + other
        near += [
            (looked.places[row], looked.ids[row], shown.ids[theirs[other]], int(apart))
            for row, other, apart in zip(chunk, where.tolist(), best.tolist(), strict=True)
            if apart <= NEAR
        ]
    return near
