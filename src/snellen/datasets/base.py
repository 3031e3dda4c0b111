"""What a data set is, and the filters that every data set takes."""

from __future__ import annotations

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from snellen.errors import BadOption, DataError, did_you_mean
from snellen.registry import Registry
from snellen.types import Sample

__all__ = ["DATASETS", "Dataset", "InvalidRow", "Row", "Selection", "select"]


class Row(NamedTuple):
    """What is known of an item without looking at its pixels."""

    id: str
    label: str | None


class InvalidRow(NamedTuple):
    """A row or file that is no sample, and why."""

    where: str
    reason: str


class Dataset(ABC):
    """A sequence of samples that are made when asked for.

    Attributes:
        name: how a user named it.
        labels: the label set, in a fixed order.
        background: the label that stands for "none of the others", if there is one.
        synonyms: other names of labels.
        protocol, protocol_options: how its authors examine it; what is done where a user names none.
        notes: decisions that a user should hear of (which split was taken …).
        bad: what was found not to be a sample when the data set was opened.
    """

    name: str
    labels: tuple[str, ...]
    background: str | None = None
    synonyms: Mapping[str, tuple[str, ...]] = {}
    protocol: str | None = None
    protocol_options: Mapping[str, Any] = {}
    notes: tuple[str, ...] = ()
    invalid: tuple[InvalidRow, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """How many items there are."""

    @abstractmethod
    def row(self, index: int) -> Row:
        """Id and label of an item; cheap."""

    @abstractmethod
    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        """The item as a sample that offers this label set."""

    @abstractmethod
    def digest(self, index: int) -> str:
        """A hash of everything in the item that can change an examination."""


class Selection:
    """Some items of a data set in some order, offering some of its labels: what a run examines."""

    def __init__(
        self,
        data: Dataset,
        indices: Sequence[int],
        labels: tuple[str, ...],
        filters: Mapping[str, Any] | None = None,
        skip_invalid: bool = False,
    ) -> None:
        self.data, self.indices, self.labels = data, indices, labels
        self.name = data.name
        self.background = data.background if data.background in labels else None
        self.filters = dict(filters or {})
        self.skip_invalid = skip_invalid
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, position: int) -> Sample:
        return self.data.sample(self.indices[position], self.labels, self.background)

    def first(self) -> Sample:
        """The first sample, or, where invalid ones are skipped, the first that can be read.

        Raises:
            DataError: it cannot be read; or none can.
        """
        for position in range(len(self)):
            try:
                return self[position]
            except DataError:
                if not self.skip_invalid or position == len(self) - 1:
                    raise
        raise DataError(f"{self.name}: no samples.")

    def id(self, position: int) -> str:
        """A sample's id, without making the sample."""
        return self.data.row(self.indices[position]).id

    def digest(self, position: int) -> str:
        """A hash of a sample's content, without making the sample."""
        return self.data.digest(self.indices[position])

    def fingerprint(self) -> str:
        """A hash of labels, ids and contents, in order (sha256, hex). Reads every item, the first time.

        Raises:
            DataError: an item cannot be read (unless bad ones are skipped), or two have one id.
        """
        if self._fingerprint is not None:
            return self._fingerprint
        digest = hashlib.sha256(json.dumps([self.labels, self.background]).encode())
        synonyms = {k: list(v) for k, v in sorted(self.data.synonyms.items())}
        digest.update(json.dumps(synonyms).encode())
        seen: set[str] = set()
        for index in self.indices:
            row = self.data.row(index)
            if row.id in seen:
                raise DataError(f"{self.name}: two samples have the id {row.id!r}; ids must differ.")
            seen.add(row.id)
            digest.update(json.dumps([*row, self._digest(index)]).encode())
        self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _digest(self, index: int) -> str:
        try:
            return self.data.digest(index)
        except DataError:
            if not self.skip_invalid:
                raise
            return "bad"


def select(
    data: Dataset,
    *,
    classes: Sequence[str] = (),
    num_classes: int | None = None,
    per_class: int | None = None,
    shuffle: bool = False,
    limit: int | None = None,
    seed: int = 0,
    skip_invalid: bool = False,
) -> Selection:
    """Filter a data set: classes by name, then a random subset of classes (the background, if any, is
    always in it), then the first ``per_class`` of each, then shuffling, then the first ``limit``.

    An item of ``classes`` is a class, or several separated by commas. With ``skip_invalid``, what cannot be
    read is left out, and the run lists it.

    Raises:
        BadOption: a class that is not there, or a number that is not positive.
        DataError: nothing is left, a single class, or bad rows.
    """
    # Long for its options alone.
    for name, number in {"num-classes": num_classes, "per-class": per_class, "limit": limit}.items():
        if number is not None and (not isinstance(number, int) or number < 1):
            raise BadOption(f"--{name} {number} is not allowed; allowed: 1 or more.")
    if data.invalid and not skip_invalid:
        where, reason = data.invalid[0]
        more = f" (the first of {len(data.invalid)})" if len(data.invalid) > 1 else ""
        raise DataError(f"{where}: {reason}{more}. Mend it, or leave bad rows out with --skip-invalid")
    labels = _choose(data, classes, num_classes, seed)
    if len(labels) < 2 and data.labels:
        raise DataError(
            f"{data.name}: {len(labels)} class ({', '.join(labels)}); telling classes apart needs at "
            "least two. Give a folder with one sub-folder a class, or name more --classes."
        )
    indices: Sequence[int] = range(len(data))
    if len(labels) < len(data.labels):
        wanted = set(labels)
        indices = [i for i in indices if data.row(i).label in wanted]
    if per_class is not None:
        seen: Counter[str | None] = Counter()
        kept = []
        for i in indices:
            label = data.row(i).label
            seen[label] += 1
            if seen[label] <= per_class:
                kept.append(i)
        indices = kept
    if shuffle:
        indices = random.Random(f"snellen/shuffle/{seed}").sample(indices, len(indices))
    if limit is not None:
        indices = indices[:limit]
    if not indices:
        raise DataError(f"{data.name}: no samples are left. Loosen the filters.")
    filters = {
        "classes": [classes] if isinstance(classes, str) else list(classes) or None,
        "num_classes": num_classes,
        "per_class": per_class,
        "shuffle": shuffle or None,
        "limit": limit,
    }
    kept_filters = {k: v for k, v in filters.items() if v is not None}
    return Selection(data, indices, labels, kept_filters, skip_invalid)


def _choose(data: Dataset, classes: Sequence[str], num_classes: int | None, seed: int) -> tuple[str, ...]:
    wanted: list[str] = []
    for item in [classes] if isinstance(classes, str) else classes:
        wanted += [item] if item in data.labels else [part.strip() for part in item.split(",")]
    for name in filter(None, wanted):
        if name not in data.labels:
            some = ", ".join(data.labels[:20]) + (" …" if len(data.labels) > 20 else "")
            raise BadOption(
                f"{data.name} has no class {name!r}.{did_you_mean(name, data.labels)} "
                f"Its {len(data.labels)} classes: {some}"
            )
    labels = tuple(name for name in data.labels if not wanted or name in wanted)
    if num_classes is None or num_classes >= len(labels):
        return labels
    pool = [name for name in labels if name != data.background]
    # One order for all sizes: a smaller subset lies within a larger one.
    ordered = random.Random(f"snellen/classes/{seed}").sample(pool, len(pool))
    take = num_classes - (data.background in labels)
    kept = {*ordered[:take], data.background}
    return tuple(name for name in labels if name in kept)


DATASETS: Registry[Dataset] = Registry("data set", "snellen.datasets", bare="folder")
