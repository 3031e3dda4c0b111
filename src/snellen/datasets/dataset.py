"""The interface of data sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from snellen.metrics.official import OfficialFigure
from snellen.types import Sample

__all__ = ["Around", "Dataset", "InvalidRow", "Row"]


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
        figures: those that its authors print, by name.
        whole: how many samples those are of, if that is documented.
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
    figures: Mapping[str, OfficialFigure] = {}
    whole: int = 0
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


class Around(Dataset):
    """A data set around another, which it resembles unless a subclass says otherwise."""

    def __init__(self, data: Dataset, note: str) -> None:
        self._data = data
        self.name, self.invalid, self.labels = data.name, data.invalid, data.labels
        self.protocol, self.protocol_options = data.protocol, data.protocol_options
        self.background, self.synonyms, self.figures = data.background, data.synonyms, data.figures
        self.whole = data.whole
        self.notes = (*data.notes, note)

    def __len__(self) -> int:
        return len(self._data)

    def row(self, index: int) -> Row:
        return self._data.row(index)

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        return self._data.sample(index, labels, background)

    def digest(self, index: int) -> str:
        return self._data.digest(index)
