"""A suite as its file says it: parts, published rows, claims, reference scores, an average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from snellen._util.yaml import read_mapping, refuse_unknown
from snellen.errors import BadOption, DataError, UnknownName, did_you_mean
from snellen.runs.plan import Filters

__all__ = ["FOLDER", "Claim", "Part", "Published", "Select", "Suite", "find", "names"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Published:
    """Figures that somebody published for a part.

    Attributes:
        source: where.
        columns: the first are what tells rows apart (``model``, and what the part varies), the rest figures:
            names of metrics.
        rows: one a published line; None where nothing was published.
        scale: what the figures must be multiplied by to be shares of 1, where they are rates.
    """

    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is examined together.

    Attributes:
        vary: one option (``filters.num_classes``, ``protocol.candidates``, ``data.NAME``) and the values that
            it takes in turn.
    """

    name: str
    data: tuple[str, ...]
    protocols: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    protocol_options: Mapping[str, Any] = field(default_factory=dict)
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    published: Published | None = None
    note: str = ""

    def settings(self) -> Iterator[dict[str, Any]]:
        """What the part varies, value by value; one empty mapping where it varies nothing."""
        if not self.vary:
            yield {}
        for key, values in self.vary.items():
            for value in values:
                yield {key: value}


@dataclass(frozen=True, kw_only=True)
class Select:
    """Some runs of a suite: of parts, and of a sort of models (``generative``, ``dual encoder`` …)."""

    parts: tuple[str, ...]
    kind: str | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A finding, and what would show it.

    Attributes:
        text: in words.
        lower, higher: the best of the first is said to stay below the best of the second.
        spread: how far the means of these parts, model by model, are said to lie apart at most: less than
            the gap between ``lower`` and ``higher``.
        not_measured: why nothing here can show it.
    """

    text: str
    lower: Select | None = None
    higher: Select | None = None
    spread: Select | None = None
    not_measured: str = ""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """See :mod:`snellen.suites`; its fields are the keys of its file (docs/suites.md)."""

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
        """A suite from its file.

        Raises:
            DataError: it is not there, no YAML, or not of the form of a suite.
        """
        content = read_mapping(path, "suite")
        where = str(path)
        for key in ("parts", "claims", "reference", "average"):
            if not isinstance(content.get(key, []), list):
                raise DataError(f"{where}: {key} is a list; found {content[key]!r}.")
        parts = [_part(raw, f"{where}, part {i}") for i, raw in enumerate(content.pop("parts", []), 1)]
        claims = [_claim(raw, f"{where}, claim {i}") for i, raw in enumerate(content.pop("claims", []), 1)]
        rows = {
            key: tuple(tuple(row) if isinstance(row, list) else (row,) for row in content.pop(key, ()))
            for key in ("reference", "average")
        }
        given = {**content, **rows, "name": path.stem, "parts": tuple(parts), "claims": tuple(claims)}
        made: Suite = _made(cls, given, where)
        known = {part.name for part in made.parts}
        for claim in made.claims:
            for select in (claim.lower, claim.higher, claim.spread):
                for name in select.parts if select else ():
                    if name not in known:
                        raise DataError(f"{where}: no part {name!r}.{did_you_mean(name, known)}")
        for key, width in (("reference", 5), ("average", 3)):
            for row in getattr(made, key):
                if len(row) != width or row[0] not in known:
                    raise DataError(
                        f"{where}: {key} has the row {list(row)}; of {width} cells, a part first."
                    )
        if not made.parts or len(known) < len(made.parts):
            raise DataError(f"{where}: a suite needs parts, each of a name of its own.")
        return made


def _made(kind: Any, given: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a mapping, lists as tuples.

    Raises:
        DataError: a key that it does not have, or one that it lacks.
    """
    if not isinstance(given, Mapping):
        raise DataError(f"{where}: expected keys and values, found {given!r}.")
    refuse_unknown(given, [option.name for option in fields(kind)], where)
    sorts = {option.name: str(option.type).partition("[")[0] for option in fields(kind)}
    for key, value in given.items():
        wanted = {"tuple": list | tuple, "Mapping": Mapping, "str": str, "float": int | float}.get(sorts[key])
        if wanted is not None and not isinstance(value, wanted):
            words = {"tuple": "a list", "Mapping": "keys and values", "str": "a text", "float": "a number"}
            raise DataError(f"{where}: {key} is {words[sorts[key]]}; found {value!r}.")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise DataError(f"{where}: {error}.") from error


def _part(given: Any, where: str) -> Part:
    given = dict(given) if isinstance(given, Mapping) else given
    if isinstance(given, dict) and (published := given.pop("published", None)) is not None:
        if not isinstance(published, Mapping):
            raise DataError(f"{where}: published is keys and values; found {published!r}.")
        rows = tuple(tuple(row) if isinstance(row, list) else (row,) for row in published.get("rows", ()))
        made_published: Published = _made(Published, {**published, "rows": rows}, f"{where}, published")
        for row in rows:
            figures = row[2 if given.get("vary") else 1 :]
            if not all(cell is None or isinstance(cell, int | float) for cell in figures):
                raise DataError(f"{where}, published: the row {list(row)} has a figure that is no number.")
            if len(row) != len(made_published.columns):
                mismatch = f"{len(row)} cells, and there are {len(made_published.columns)} columns"
                raise DataError(f"{where}, published: the row {list(row)} has {mismatch}.")
        given["published"] = made_published
    made: Part = _made(Part, given, where)
    for key in made.filters:
        if key not in {option.name for option in fields(Filters)}:
            raise DataError(
                f"{where}: no filter {key!r}.{did_you_mean(key, [f.name for f in fields(Filters)])}"
            )
    for key, values in made.vary.items():
        if not isinstance(values, list):
            raise DataError(f"{where}: vary.{key} is a list of values; found {values!r}.")
    for key in made.vary:
        if key.partition(".")[0] not in ("filters", "protocol", "data") or len(made.vary) > 1:
            raise DataError(
                f"{where}: vary takes one of filters.NAME, protocol.NAME, data.NAME; found {key!r}."
            )
    return made


def _claim(given: Any, where: str) -> Claim:
    given = dict(given) if isinstance(given, Mapping) else given
    for key in ("lower", "higher", "spread"):
        if isinstance(given, dict) and key in given:
            given[key] = _made(Select, given[key], f"{where}, {key}")
    made: Claim = _made(Claim, given, where)
    if not made.not_measured and (made.lower is None or made.higher is None):
        raise DataError(f"{where}: it needs lower and higher, or not_measured.")
    return made


def names() -> tuple[str, ...]:
    """The suites of the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def find(name: str) -> Suite:
    """A suite by its name, or from a file of its form.

    Raises:
        UnknownName: neither.
    """
    if name in names():
        return Suite.read(FOLDER / f"{name}.yaml")
    if name.endswith((".yaml", ".yml")):
        return Suite.read(Path(name).expanduser())
    raise UnknownName(
        f"Unknown suite {name!r}.{did_you_mean(name, names())} Known: {', '.join(names())}; or a file of "
        "that form: FILE.yaml."
    )


def check_limit(limit: int | None) -> None:
    """Refuse a limit that leaves nothing.

    Raises:
        BadOption: as said.
    """
    if limit is not None and limit < 1:
        raise BadOption(f"--limit {limit} is not allowed; allowed: 1 or more.")
