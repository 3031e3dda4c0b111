"""Which samples of a data set to evaluate, in a form that other processes can repeat."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

from snellen.datasets.base import DATASETS, Dataset, Selection, select
from snellen.errors import did_you_mean

__all__ = ["DataSource", "Filters"]


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The part of a data set to evaluate (see :func:`snellen.datasets.base.select`)."""

    classes: Sequence[str] = ()
    num_classes: int | None = None
    per_class: int | None = None
    shuffle: bool = False
    limit: int | None = None
    split: str | None = None
    skip_invalid: bool = False

    def __post_init__(self) -> None:
        # As Python's own types, whatever a notebook has at hand: arrays, numbers of numpy, generators.
        classes = (self.classes,) if isinstance(self.classes, str) else self.classes
        object.__setattr__(self, "classes", () if classes is None else tuple(map(str, classes)))
        for name in ("num_classes", "per_class", "limit"):
            with suppress(TypeError):  # select() refuses it
                object.__setattr__(self, name, operator.index(getattr(self, name)))

    @classmethod
    def refuse_unknown(cls, names: Iterable[str]) -> None:
        """Refuse a name that no filter has.

        Raises:
            ValueError: as stated.
        """
        known = [option.name for option in fields(cls)]
        for name in names:
            if name not in known:
                raise ValueError(f"no filter {name!r}.{did_you_mean(name, known)}")

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Filters:
        """Return the filters of the plan in a run's manifest."""
        return cls(**{**stored, "classes": tuple(stored["classes"])})

    def apply(self, data: Dataset, seed: int) -> Selection:
        """Select from a data set."""
        chosen = {name: value for name, value in vars(self).items() if name != "split"}
        return select(data, **chosen, seed=seed)


@dataclass(frozen=True)
class DataSource:
    """How to build a named data set, in any process.

    Args:
        few: the number of rows that suffice, if no other filter applies.
    """

    name: str
    options: Mapping[str, Any]
    filters: Filters
    seed: int
    few: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Selection:
        selection = self.filters.apply(DATASETS.make(self.name, self.options, **self.few), self.seed)
        selection.name = self.name
        return selection
