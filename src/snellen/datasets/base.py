"""The registry of data sets, and the filters that all of them take."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

from snellen.datasets.dataset import Dataset, InvalidRow, Row
from snellen.datasets.suggest import suggest
from snellen.datasets.wrappers import finish, merge_alike
from snellen.errors import BadOption, DataError, UsageError, did_you_mean
from snellen.registry import Registry
from snellen.types import Message, Sample

__all__ = ["DATASETS", "Dataset", "InvalidRow", "Row", "Selection", "choose_classes", "select"]


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
        #: Examples to show before each question.
        self.shots: tuple[Message, ...] = ()
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Sample]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, position: int) -> Sample:
        index = self.indices[position]
        sample = self.data.sample(index, self.labels, self.background)
        if sample.id != (known := self.data.row(index).id):
            raise UsageError(
                f"{self.name}: item {index} has the id {known!r} by row(), but {sample.id!r} by sample(); "
                "they must be equal."
            )
        return replace(sample, shots=self.shots) if self.shots else sample

    def after(self, shots: tuple[Message, ...]) -> Selection:
        """Return the same samples with examples to show before each question."""
        shown = copy(self)
        shown.shots = shots
        return shown

    def part(self, indices: Sequence[int]) -> Selection:
        """Return a selection of other items of the same data set."""
        part = Selection(self.data, indices, self.labels, self.filters, self.skip_invalid)
        part.name = self.name
        return part

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
        for index in self.indices:
            row = self.data.row(index)
            if row.id in seen:
                raise DataError(f"{self.name}: two samples have the id {row.id!r}; ids must be unique.")
            seen.add(row.id)
        contents: dict[int, str] = {}
        invalid: list[DataError] = []
        for index in sorted(self.indices):  # in the order of the file, which can be read in one pass
            try:
                contents[index] = self.data.digest(index)
            except DataError as error:
                invalid.append(error)
                contents[index] = "bad"
        for index in self.indices:
            digest.update(json.dumps([*self.data.row(index), contents[index]]).encode())
        if invalid and not self.skip_invalid:
            raise _all_of(invalid)
        self._fingerprint = digest.hexdigest()
        return self._fingerprint


#: The most unreadable items to name.
NAMED = 20


def _all_of(invalid: Sequence[DataError]) -> DataError:
    """Return one error for all unreadable items: the first if there is one, or a list of the first."""
    text = f"{str(invalid[0]).rstrip('.')}. "
    if len(invalid) > 1:
        lines = [f"{len(invalid)} samples cannot be read:", *(f"  {error}" for error in invalid[:NAMED])]
        lines += [f"  … and {len(invalid) - NAMED} more"] * (len(invalid) > NAMED)
        text = "\n".join([*lines, ""])
    return type(invalid[0])(f"{text}Or skip invalid samples with --skip-invalid")


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
            raise BadOption(f"--{name} {number} is not allowed; allowed: whole numbers, 1 or more.")
    data = merge_alike(data)
    if data.invalid and not skip_invalid:
        where, reason = data.invalid[0]
        more = f" (the first of {len(data.invalid)})" if len(data.invalid) > 1 else ""
        raise DataError(f"{where}: {reason}{more}. Fix it, or skip invalid rows with --skip-invalid")
    labels = choose_classes(data, classes, num_classes, seed)
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


def choose_classes(
    data: Dataset, classes: Sequence[str], num_classes: int | None = None, seed: int = 0
) -> tuple[str, ...]:
    """Return the labels that are asked for by name (all by default), or some of these at random.

    Raises:
        BadOption: an unknown class.
    """
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


DATASETS: Registry[Dataset] = Registry(
    "data set", "snellen.datasets", bare="folder", finish=finish, suggest=suggest
)
