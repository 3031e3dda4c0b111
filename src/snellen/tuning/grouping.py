"""Group items that must not be divided between training and test: copies, near-duplicates, named groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

from snellen.datasets.base import Dataset
from snellen.errors import BadOption, DataError, did_you_mean, require
from snellen.images.perceptual import NEAR, look, pixel_hash

__all__ = ["FOLDER", "together"]

#: The value of ``--group`` that means the folder in which an image lies.
FOLDER = "folder"
#: Rows of distances computed per batch.
CHUNK = 2048
#: If looking alike joins more than this share of the items, it says nothing about copies.
ALIKE = 0.5


class _Union:
    """Sets of items that are joined pair by pair."""

    def __init__(self, count: int) -> None:
        self._owner = list(range(count))

    def root(self, i: int) -> int:
        """Return the representative of an item's set."""
        while self._owner[i] != i:
            self._owner[i] = self._owner[self._owner[i]]
            i = self._owner[i]
        return i

    def join(self, a: int, b: int) -> None:
        """Join the sets of two items."""
        self._owner[self.root(a)] = self.root(b)

    def groups(self) -> list[list[int]]:
        """Return the sets, each in order."""
        members: dict[int, list[int]] = {}
        for i in range(len(self._owner)):
            members.setdefault(self.root(i), []).append(i)
        return list(members.values())


def together(
    data: Dataset, by: str | None = None, *, drawn: bool = False, tell: Callable[[str], None] | None = None
) -> list[list[int]]:
    """Group items that share an image: its file, its pixels, or a perceptual hash within 4 of 64 bits.

    Items without images are grouped if they are equal. Pictures of nearly one color are compared by their
    pixels alone. Where looking alike would join more than half of all items (as in drawings on one
    background), it is not used, and the user hears of it.

    Args:
        by: ``folder``: also the folder in which the image lies; or a column of the data, such as the
            patient or the camera.
        drawn: the data set draws its pictures, so that only equal ones are copies.
        tell: called with what the user should know.

    Raises:
        BadOption: no such column.
        MissingExtra: imagehash is not installed.
    """
    if not drawn:
        require("imagehash", "tune", "The search for near-duplicates")
    joined = _Union(len(data))
    first: dict[str, int] = {}
    hashes: list[int] = []
    owners: list[int] = []
    for i in range(len(data)):
        keys, looks = _keys(data, i, drawn)
        if by is not None:
            keys = [*keys, f"group {_group(data, i, by)}"]
        for key in keys:
            joined.join(i, first.setdefault(key, i))
        hashes += looks
        owners += [i] * len(looks)
    exact = joined.groups()
    for a, b in _joins(hashes):
        joined.join(owners[a], owners[b])
    groups = joined.groups()
    if len(exact) > 1 and max(map(len, groups)) > max(ALIKE * len(data), *map(len, exact)):
        if tell is not None:
            tell(
                f"{data.name}: most images look alike to a perceptual hash, so only copies with the same "
                "pixels are kept on one side. If images belong together, name their group: --group COLUMN"
            )
        return exact
    return groups


def _keys(data: Dataset, i: int, drawn: bool) -> tuple[list[str], list[int]]:
    """Return what equal items share, and perceptual hashes."""
    try:
        images = data.sample(i, data.labels, data.background).images
        if drawn:
            return [image.sha256 for image in images] or [data.digest(i)], []
        keys = []
        looks = []
        for image in images:
            keys += [image.sha256, pixel_hash(image)]
            looks += [seen for seen in (look(image),) if seen is not None]
        return keys or [data.digest(i)], looks
    except DataError:
        return [], []  # reported, or skipped, when it is read


def _group(data: Dataset, i: int, by: str) -> str:
    row = data.row(i)
    if by == FOLDER:
        return str(PurePosixPath(row.id).parent)
    try:
        meta = data.sample(i, data.labels, data.background).meta
    except DataError:
        return row.id
    if by not in meta:
        known = sorted(map(str, meta))
        allowed = f"Its columns: {', '.join(known)}." if known else "It has no further columns."
        raise BadOption(f"--group {by}: {data.name} has no such column.{did_you_mean(by, known)} {allowed}")
    return str(meta[by])


def _joins(hashes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield pairs of positions that join all hashes within 4 of 64 bits of each other, directly or by others.

    There are few pairs even where nearly all hashes are alike: of each block of distances, its connected
    components.
    """
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    looks = np.array(hashes, dtype=np.uint64)
    for start in range(0, len(looks), CHUNK):
        for other in range(start, len(looks), CHUNK):
            rows, columns = looks[start : start + CHUNK], looks[other : other + CHUNK]
            near = np.argwhere(np.bitwise_count(rows[:, None] ^ columns[None]) <= NEAR)
            count = len(rows) + len(columns)
            graph = coo_array(
                (np.ones(len(near), bool), (near[:, 0], near[:, 1] + len(rows))), shape=(count, count)
            )
            _, components = connected_components(graph, directed=False)
            first: dict[int, int] = {}
            for node, component in enumerate(components.tolist()):
                place = start + node if node < len(rows) else other + node - len(rows)
                if first.setdefault(component, place) != place:
                    yield first[component], place
