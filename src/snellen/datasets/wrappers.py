"""Data sets around others, with other names of classes or other images: the options that all have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from snellen._util.words import counted
from snellen.datasets.corrections import Corrected, read_corrections
from snellen.datasets.dataset import Around, Dataset, Row
from snellen.datasets.names import odd_names, read_labels, read_names, read_synonyms
from snellen.errors import BadOption, DataError, did_you_mean
from snellen.images.degrade import DEGRADATIONS, degraded, read_degradation
from snellen.parsing.text import normalize
from snellen.types import Sample

__all__ = ["Degraded", "Renamed", "Windowed", "finish", "merge_alike"]


class Renamed(Around):
    """A data set whose classes have other names; several may become one.

    Args:
        data: with the original names.
        names: the new name of each class, by the original one.
        synonyms: further names, by the new name.
    """

    def __init__(
        self, data: Dataset, names: Mapping[str, str], synonyms: Mapping[str, tuple[str, ...]], note: str
    ) -> None:
        super().__init__(data, note)
        self._names = names
        self.labels = tuple(dict.fromkeys(names[label] for label in data.labels))
        self.background = data.background and names[data.background]
        both = [(names.get(label, label), more) for label, more in data.synonyms.items()]
        kept: dict[str, tuple[str, ...]] = {}
        for label, more in (*both, *synonyms.items()):
            kept[label] = (*kept.get(label, ()), *more)
        self.synonyms = kept

    def row(self, index: int) -> Row:
        id_, label = super().row(index)
        return Row(id_, None if label is None else self._names.get(label, label))

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        sample = super().sample(index, labels, background)
        also = tuple(self._names.get(label, label) for label in sample.also)
        return replace(sample, label=self.row(index).label, also=also, synonyms=self.synonyms)


def renamed(data: Dataset, table: Mapping[str, tuple[str, ...]], source: str) -> Dataset:
    """Give classes other names: the first of each is the class, the others are synonyms.

    Args:
        source: where the names come from, in words.

    Raises:
        DataError: a class has no name.
    """
    if missing := [label for label in data.labels if label not in table]:
        some = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        raise DataError(f"names={source}: no name for {len(missing)} of {len(data.labels)} classes: {some}")
    first = {label: table[label][0] for label in data.labels}
    more = {table[label][0]: table[label][1:] for label in data.labels if table[label][1:]}
    return Renamed(data, first, more, f"{data.name}: class names from {source}")


class Windowed(Around):
    """A data set whose images of more than 8 bits are shown from one value to another."""

    def __init__(self, data: Dataset, low: float, high: float) -> None:
        super().__init__(data, f"{data.name}: values from {low:g} (black) to {high:g} (white)")
        self._low, self._high = low, high

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        sample = super().sample(index, labels, background)
        return replace(sample, images=tuple(image.windowed(self._low, self._high) for image in sample.images))

    def digest(self, index: int) -> str:
        return f"{super().digest(index)} {self._low!r} {self._high!r}"


class Degraded(Around):
    """A data set whose images are degraded: smaller, blurred, noisy … (see :mod:`snellen.images.degrade`)."""

    def __init__(self, data: Dataset, name: str, level: float) -> None:
        super().__init__(data, f"{data.name}: images degraded, {name} {level:g} {DEGRADATIONS[name].unit}")
        self._degradation, self._level = name, level

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        sample = super().sample(index, labels, background)
        images = tuple(degraded(image, self._degradation, self._level) for image in sample.images)
        return replace(sample, images=images)

    def digest(self, index: int) -> str:
        return f"{super().digest(index)} {self._degradation} {self._level!r}"


def _window(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not low < high:
        raise BadOption(
            f"window={text!r} is not allowed; allowed: LOW,HIGH, two numbers, the smaller one first."
        )
    return low, high


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


def finish(
    data: Dataset,
    *,
    names: str | None = None,
    synonyms: str | None = None,
    labels: tuple[str, ...] = (),
    window: str | None = None,
    degrade: str | None = None,
    corrections: str | None = None,
) -> Dataset:
    """Apply the options that all data sets have: names and corrections of labels, changes of images.

    Options: ``names``: the classes' names by id (see :func:`snellen.datasets.names.read_names`);
    ``corrections``: a JSON file with corrected labels, as ``snellen labels`` writes it (of the names before
    ``names=`` changes them); ``synonyms``: a JSON file with other names of classes; ``labels``: all classes
    to choose from, also those without an image, separated by commas, or ``@FILE`` with one per line;
    ``window=LOW,HIGH``: the values of images of more than 8 bits that become black and white;
    ``degrade=NAME:LEVEL``: degrade all images, such as ``size:448``, ``blur:4``, ``jpeg:20``, ``noise:40``,
    ``contrast:0.2``, ``rotation:90`` or ``crop:0.5``.

    Raises:
        DataError: a file cannot be read, or a class has no name in it.
        BadOption: a class in the synonyms is unknown, the label set lacks a class of the data, the window
            is not two numbers, or there is no such degradation or level.
    """
    if window is not None:
        data = Windowed(data, *_window(window))
    # Long for its options alone.
    if corrections is not None:
        data = Corrected(data, read_corrections(Path(corrections)), corrections)
    if degrade is not None:
        data = Degraded(data, *read_degradation(degrade))
    if names is not None:
        data = renamed(data, read_names(names), names)
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
        data = Renamed(
            data, same, {}, f"{data.name}: {counted(len(chosen), 'class', 'classes')} to choose from"
        )
        data.labels = chosen
    if (odd := odd_names(data.labels)) is not None:
        data.notes = (*data.notes, f"{data.name}: {odd}")
    return data
