"""The interface of data sets, and the filters that all of them take."""

from __future__ import annotations

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from snellen.datasets.names import odd_names, read_labels, read_names, read_synonyms
from snellen.errors import BadOption, DataError, did_you_mean
from snellen.parsing.text import normalize
from snellen.registry import Registry
from snellen.types import Sample

__all__ = ["DATASETS", "Dataset", "InvalidRow", "Renamed", "Row", "Selection", "merge_alike", "select"]


class Row(NamedTuple):
    """What is known about an item without decoding its image."""

    id: str
    label: str | None


class InvalidRow(NamedTuple):
    """A row or file that is not a valid sample, and why."""

    where: str
    reason: str


class Dataset(ABC):
    """A sequence of samples that are built on access.

    Attributes:
        name: as the user named it.
        labels: the label set, in a fixed order.
        background: the label that means "none of the others", if there is one.
        synonyms: other names of labels.
        protocol, protocol_options: how its authors evaluate it; the default.
        notes: decisions to report to the user (such as the chosen split).
        bad: items found invalid when the data set was opened.
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
        """The number of items."""

    @abstractmethod
    def row(self, index: int) -> Row:
        """Return the id and label of an item; cheap."""

    @abstractmethod
    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        """Return an item as a sample with this label set."""

    @abstractmethod
    def digest(self, index: int) -> str:
        """Return a hash of everything in the item that can change an evaluation."""


class Selection:
    """Items of a data set in some order, with some of its labels: the input of a run."""

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
        """The first sample, or the first valid one if invalid ones are skipped.

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
        """Return a sample's id without building the sample."""
        return self.data.row(self.indices[position]).id

    def digest(self, position: int) -> str:
        """Return a hash of a sample's content without building the sample."""
        return self.data.digest(self.indices[position])

    def fingerprint(self) -> str:
        """A hash of labels, ids and contents, in order (SHA-256, hex). Reads every item on first use.

        Raises:
            DataError: an item cannot be read (unless invalid ones are skipped), or an id is duplicated.
        """
        if self._fingerprint is not None:
            return self._fingerprint
        digest = hashlib.sha256(json.dumps([self.labels, self.background]).encode())
        synonyms = {k: list(v) for k, v in sorted(self.data.synonyms.items())}
        digest.update(json.dumps(synonyms).encode())
        seen: set[str] = set()
        invalid: list[DataError] = []
        for index in self.indices:
            row = self.data.row(index)
            if row.id in seen:
                raise DataError(f"{self.name}: two samples have the id {row.id!r}; ids must be unique.")
            seen.add(row.id)
            try:
                content = self.data.digest(index)
            except DataError as error:
                invalid.append(error)
                content = "bad"
            digest.update(json.dumps([*row, content]).encode())
        if invalid and not self.skip_invalid:
            raise _all_of(invalid)
        self._fingerprint = digest.hexdigest()
        return self._fingerprint


#: The most unreadable items to name.
NAMED = 20


def _all_of(invalid: Sequence[DataError]) -> DataError:
    """Return one error for all unreadable items: the first if there is one, or a list of the first."""
    if len(invalid) == 1:
        return invalid[0]
    lines = [f"{len(invalid)} samples cannot be read:", *(f"  {error}" for error in invalid[:NAMED])]
    if len(invalid) > NAMED:
        lines.append(f"  … and {len(invalid) - NAMED} more")
    return type(invalid[0])("\n".join(lines))


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
    """Filter a data set: classes by name, then a random subset of classes (which always includes the
    background, if any), then the first ``per_class`` of each, then shuffling, then the first ``limit``.

    Classes whose names read alike are merged (see :func:`merge_alike`). An entry of
    ``classes`` is one class, or several separated by commas. With ``skip_invalid``, unreadable
    items are skipped, and the run lists them.

    Raises:
        BadOption: an unknown class, or a number that is not positive.
        DataError: nothing is left, only one class is left, or there are invalid rows.
    """
    # Long for its options alone.
    for name, number in {"num-classes": num_classes, "per-class": per_class, "limit": limit}.items():
        if number is not None and (not isinstance(number, int) or number < 1):
            raise BadOption(f"--{name} {number} is not allowed; allowed: 1 or more.")
    data = merge_alike(data)
    if data.invalid and not skip_invalid:
        where, reason = data.invalid[0]
        more = f" (the first of {len(data.invalid)})" if len(data.invalid) > 1 else ""
        raise DataError(f"{where}: {reason}{more}. Fix it, or skip invalid rows with --skip-invalid")
    labels = _choose(data, classes, num_classes, seed)
    if len(labels) < 2 and data.labels:
        raise DataError(
            f"{data.name}: {len(labels)} class ({', '.join(labels)}), but classification needs at "
            "least two. Use a folder with one subfolder per class, or add --classes."
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
        raise DataError(f"{data.name}: no samples are left after filtering. Relax the filters.")
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
    # The same order for all sizes, so that smaller subsets are contained in larger ones.
    ordered = random.Random(f"snellen/classes/{seed}").sample(pool, len(pool))
    take = num_classes - (data.background in labels)
    kept = {*ordered[:take], data.background}
    return tuple(name for name in labels if name in kept)


class Renamed(Dataset):
    """A data set whose classes have other names; several may become one.

    Args:
        data: with the original names.
        names: the new name of each class, by the original one.
        synonyms: further names, by the new name.
    """

    def __init__(
        self, data: Dataset, names: Mapping[str, str], synonyms: Mapping[str, tuple[str, ...]], note: str
    ) -> None:
        self._data, self._names = data, names
        self.name, self.invalid = data.name, data.invalid
        self.protocol, self.protocol_options = data.protocol, data.protocol_options
        self.notes = (*data.notes, note)
        self.labels = tuple(dict.fromkeys(names[label] for label in data.labels))
        self.background = data.background and names[data.background]
        both = [(names.get(label, label), more) for label, more in data.synonyms.items()]
        kept: dict[str, tuple[str, ...]] = {}
        for label, more in (*both, *synonyms.items()):
            kept[label] = (*kept.get(label, ()), *more)
        self.synonyms = kept

    def __len__(self) -> int:
        return len(self._data)

    def row(self, index: int) -> Row:
        id_, label = self._data.row(index)
        return Row(id_, None if label is None else self._names.get(label, label))

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        sample = self._data.sample(index, labels, background)
        return replace(sample, label=self.row(index).label, synonyms=self.synonyms)

    def digest(self, index: int) -> str:
        return self._data.digest(index)


def merge_alike(data: Dataset) -> Dataset:
    """Merge classes whose names differ in case, Unicode form or spaces alone: no answer can tell them apart.
    The first name stays, and a note names the others.
    """
    if not data.labels:
        return data
    first: dict[str, str] = {}
    names = {label: first.setdefault(" ".join(normalize(label).split()), label) for label in data.labels}
    merged = [f"{old!r} is {new!r}" for old, new in names.items() if old != new]
    if not merged:
        return data
    note = f"Class names that read alike are one class: {', '.join(merged[:5])}{' …' if merged[5:] else ''}"
    return Renamed(data, names, {}, note)


def named(
    data: Dataset, *, names: str | None = None, synonyms: str | None = None, labels: tuple[str, ...] = ()
) -> Dataset:
    """Name the classes of a data set.

    Options: ``names``: the classes' names by id (see :func:`snellen.datasets.names.read_names`);
    ``synonyms``: a JSON file with other names of classes; ``labels``: all classes to choose from, also those
    without an image, separated by commas, or ``@FILE`` with one per line.

    Raises:
        DataError: a file cannot be read, or a class has no name in it.
        BadOption: a class in the synonyms is unknown, or the label set lacks a class of the data.
    """
    if names is not None:
        table = read_names(names)
        if missing := [label for label in data.labels if label not in table]:
            some = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
            raise DataError(
                f"names={names}: no name for {len(missing)} of {len(data.labels)} classes: {some}"
            )
        first = {label: table[label][0] for label in data.labels}
        more = {table[label][0]: table[label][1:] for label in data.labels if table[label][1:]}
        data = Renamed(data, first, more, f"{data.name}: class names from {names}")
    same = {label: label for label in data.labels}
    if synonyms is not None:
        others = read_synonyms(synonyms)
        if unknown := [label for label in others if label not in data.labels]:
            raise BadOption(
                f"synonyms={unknown[0]!r}: no such class in {data.name}."
                f"{did_you_mean(unknown[0], data.labels)}"
            )
        data = Renamed(data, same, others, f"{data.name}: synonyms from {synonyms}")
    if labels:
        chosen = read_labels(labels)
        if lacking := [label for label in data.labels if label not in chosen]:
            raise BadOption(
                f"labels= lacks the class {lacking[0]!r} of {data.name}.{did_you_mean(lacking[0], chosen)}"
            )
        data = Renamed(data, same, {}, f"{data.name}: {len(chosen)} classes to choose from")
        data.labels = chosen
    if (odd := odd_names(data.labels)) is not None:
        data.notes = (*data.notes, f"{data.name}: {odd}")
    return data


DATASETS: Registry[Dataset] = Registry("data set", "snellen.datasets", bare="folder", finish=named)
