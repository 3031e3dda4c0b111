"""The contents of a suite file: parts, published figures, claims, reference scores, an average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from snellen._util.yaml import read_model
from snellen.errors import BadOption, UnknownName, did_you_mean
from snellen.runs.filters import Filters

__all__ = ["FOLDER", "Claim", "Part", "Published", "Select", "Suite", "find", "names"]

FOLDER = Path(__file__).parent
#: Unknown keys are refused.
STRICT: Mapping[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class Published:
    """Published figures for a part.

    Attributes:
        source: the publication.
        columns: first the columns that identify a row (``model``, and what the part varies), then metrics.
        rows: one per published line; None for missing values.
        scale: the factor that turns rates into shares of 1.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    scale: float = 1.0

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                mismatch = f"{len(row)} cells, but there are {len(self.columns)} columns"
                raise ValueError(f"the row {list(row)} has {mismatch}.")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A group of evaluations.

    Attributes:
        vary: one option (``filters.num_classes``, ``protocol.candidates``, ``data.NAME``) and its values.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    name: str
    data: tuple[str, ...]
    protocols: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    protocol_options: Mapping[str, Any] = field(default_factory=dict)
    vary: Mapping[str, list[Any]] = field(default_factory=dict)
    published: Published | None = None
    note: str = ""

    def __post_init__(self) -> None:
        Filters.refuse_unknown(self.filters)
        for key in self.vary:
            if key.partition(".")[0] not in ("filters", "protocol", "data") or len(self.vary) > 1:
                raise ValueError(f"vary accepts filters.NAME, protocol.NAME or data.NAME; found {key!r}.")
        for row in self.published.rows if self.published else ():
            figures = row[2 if self.vary else 1 :]
            if not all(cell is None or isinstance(cell, int | float) for cell in figures):
                raise ValueError(f"published: the row {list(row)} has a figure that is not a number.")

    def settings(self) -> Iterator[dict[str, Any]]:
        """Yield one mapping per value of the varied option; a single empty mapping if nothing varies."""
        if not self.vary:
            yield {}
        for key, values in self.vary.items():
            for value in values:
                yield {key: value}


@dataclass(frozen=True, kw_only=True)
class Select:
    """Selects runs of a suite by part and by kind of model (``generative``, ``dual encoder`` …)."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    parts: tuple[str, ...]
    kind: str | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A finding, and how to test it.

    Attributes:
        text: the finding in words.
        lower, higher: the best of the first is claimed to be below the best of the second.
        spread: the means of these parts, per model, are claimed to differ by less than the gap between
            ``lower`` and ``higher``.
        not_measured: why this suite cannot test it.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    text: str
    lower: Select | None = None
    higher: Select | None = None
    spread: Select | None = None
    not_measured: str = ""

    def __post_init__(self) -> None:
        if not self.not_measured and (self.lower is None or self.higher is None):
            raise ValueError("a claim needs lower and higher, or not_measured.")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """See :mod:`snellen.suites`; its fields are the keys of its file (docs/suites.md)."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = STRICT

    name: str
    title: str
    source: str
    models: tuple[str, ...]
    parts: tuple[Part, ...]
    claims: tuple[Claim, ...] = ()
    findings: Mapping[str, float] = field(default_factory=dict)
    reference: tuple[tuple[str, str, str, str, float], ...] = ()
    tolerance: float = 0.0
    average: tuple[tuple[str, str, float], ...] = ()
    note: str = ""

    @classmethod
    def read(cls, path: Path) -> Suite:
        """Read a suite from its file.

        Raises:
            DataError: the file is missing, not YAML, or not a suite.
        """
        return read_model(path, cls, "suite", name=path.stem)

    def __post_init__(self) -> None:
        known = [part.name for part in self.parts]
        if not known or len(set(known)) < len(known):
            raise ValueError("a suite needs parts with unique names.")
        for claim in self.claims:
            for select in (claim.lower, claim.higher, claim.spread):
                for name in select.parts if select else ():
                    if name not in known:
                        raise ValueError(f"claims: no part {name!r}.{did_you_mean(name, known)}")
        for key, rows in (("reference", self.reference), ("average", self.average)):
            for row in rows:
                if row[0] not in known:
                    raise ValueError(f"{key} has the row {list(row)}, whose first cell must be a part.")


def names() -> tuple[str, ...]:
    """Return the names of the built-in suites."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def find(name: str) -> Suite:
    """Find a suite by name, or read it from a file.

    Raises:
        UnknownName: neither.
    """
    if name in names():
        return Suite.read(FOLDER / f"{name}.yaml")
    if name.endswith((".yaml", ".yml")):
        return Suite.read(Path(name).expanduser())
    raise UnknownName(
        f"Unknown suite {name!r}.{did_you_mean(name, names())} Known: {', '.join(names())}; or a suite "
        "file: FILE.yaml."
    )


def check_limit(limit: int | None) -> None:
    """Refuse a limit that leaves nothing.

    Raises:
        BadOption: as stated.
    """
    if limit is not None and limit < 1:
        raise BadOption(f"--limit {limit} is not allowed; allowed: 1 or more.")
