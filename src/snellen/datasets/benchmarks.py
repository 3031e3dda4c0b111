"""The catalog: benchmarks by name, each a few declarative lines in ``catalog/NAME.yaml``.

An entry says where a data set is, which columns hold what, how its authors evaluate it, and where all of that
is documented. To add one, add such a file to the package, or use any file as ``benchmark:FILE.yaml``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from snellen._util.yaml import read_model
from snellen.datasets.base import DATASETS
from snellen.datasets.columns import ColumnMapping
from snellen.datasets.dataset import Dataset
from snellen.datasets.hub import LoadedTable, load, table_of
from snellen.datasets.names import read_names
from snellen.datasets.records import JsonLines
from snellen.datasets.table import Table
from snellen.datasets.wrappers import renamed
from snellen.errors import BadOption, DataError, did_you_mean, require
from snellen.metrics.official import OfficialFigure

__all__ = ["FOLDER", "Benchmark", "entry", "names"]

FOLDER = Path(__file__).parent / "catalog"
Task = Literal[
    "classification", "multiple-choice", "yes-no", "vqa", "caption", "instruct", "rationale", "grounding"
]
#: The folder of local copies, each in a subfolder with its benchmark's name.
COPIES = "SNELLEN_DATA"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """An entry of the catalog; its fields are the keys of its file (see docs/benchmarks.md)."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    name: str
    title: str
    task: Task
    protocol: str
    columns: Mapping[str, Any]
    documented: str = ""
    citation: str = ""
    license: str = "unknown"
    samples: int = 0
    features: Mapping[str, Any] = field(default_factory=dict)
    hub: str | None = None
    config: str | None = None
    configs: tuple[str, ...] = ()
    split: str | None = None
    revision: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    asked: str = ""
    where: Mapping[str, Any] = field(default_factory=dict)
    classes: int | None = None
    background: str | None = None
    names: Literal["clean", "listed", "imagenet"] | Mapping[str, str] | None = None
    drop: str | None = None
    figures: Mapping[str, OfficialFigure] = field(default_factory=dict)
    comparable: str = ""
    note: str = ""

    @classmethod
    def read(cls, path: Path) -> Benchmark:
        """Read an entry from its file.

        Raises:
            DataError: the file is missing, not YAML, or has unknown keys.
        """
        return read_model(path, cls, "benchmark", name=path.stem)

    def __post_init__(self) -> None:
        self.roles()
        before: set[str] = set()
        for name, figure in self.figures.items():
            if unknown := {*figure.average, *figure.total} - before:
                raise ValueError(f"figures: {name}: unknown figure {min(unknown)!r} (name those before it)")
            try:
                re.compile(figure.pattern or "")
            except re.error as error:
                raise ValueError(f"figures: {name}: the pattern is invalid ({error})") from error
            before.add(name)

    def roles(self) -> ColumnMapping:
        """Its columns.

        Raises:
            ValueError: an unknown role.
        """
        values = {
            ("reference" if role == "references" else role): value for role, value in self.columns.items()
        }
        roles = {option.name: option for option in fields(ColumnMapping)}
        for role, value in values.items():
            if role not in roles:
                raise ValueError(f"columns: unknown role {role!r}.{did_you_mean(role, roles)}")
            if isinstance(roles[role].default, tuple):
                values[role] = tuple(value) if isinstance(value, list) else (value,)
        # A column named "id" need not be unique, so rows without a declared id are numbered.
        return ColumnMapping(**{"id": "", **values})

    def open(
        self,
        *,
        path: str | None = None,
        split: str | None = None,
        revision: str | None = None,
        config: str | None = None,
        reference: tuple[str, ...] = (),
        limit: int | None = None,
    ) -> Dataset:
        """Open the samples, from a local copy or the Hub.

        Raises:
            DataError: the data set is not available, or an expected column is missing.
        """
        loaded, where = self._load(path, split, revision, config, limit)
        columns = replace(self.roles(), reference=reference) if reference else self.roles()
        for column, role in {
            **columns.named(),
            **dict.fromkeys(self.where, "where"),
            **self._printed(),
        }.items():
            if column not in loaded.rows.columns:
                hint = f" It is documented at {self.documented}." if self.documented else ""
                hint += " Try another revision with -D revision=COMMIT" if loaded.root is None else ""
                raise DataError(
                    f"{self.name}: no column {column!r} ({role}) in {where}; its columns: "
                    f"{', '.join(loaded.rows.columns)}.{hint}"
                )
        given, synonyms = self._names(loaded.names(columns.label))
        table = table_of(loaded, self.name, columns, names=given, where=self.where)
        if self.drop is not None:
            short = {label: re.sub(self.drop, "", label) for label in table.labels}
            synonyms = {label: (name,) for label, name in short.items() if name not in table.labels}
        table.synonyms = synonyms
        if self.background in table.labels:
            table.background = self.background
        table.figures, table.whole = self.figures, self.samples
        table.protocol, table.protocol_options = self.protocol, dict(self.options)
        table.notes = (*table.notes, f"{self.title}: {where}", *([self.note] if self.note else []))
        return self._renamed(table)

    def _renamed(self, table: Table) -> Dataset:
        """Replace class names that a model cannot read.

        Raises:
            DataError: a class has no other name.
        """
        if self.names in (None, "listed"):
            return table
        given: Mapping[str, tuple[str, ...]]
        if self.names == "clean":
            given = {label: (_clean(label),) for label in table.labels}
        elif self.names == "imagenet":
            given = read_names("imagenet")
        else:
            assert isinstance(self.names, Mapping)
            given = {label: (name,) for label, name in self.names.items()}
        return renamed(table, given, f"{self.name}.yaml")

    def _printed(self) -> dict[str, str]:
        """Return the columns that its figures read."""
        return {column: "figures" for figure in self.figures.values() for column in figure.columns()}

    def _names(self, raw: Sequence[str]) -> tuple[list[str] | None, dict[str, tuple[str, ...]]]:
        """Return the class names to use, and their synonyms."""
        return listed(raw) if self.names == "listed" else (None, {})

    def _load(
        self, path: str | None, split: str | None, revision: str | None, config: str | None, limit: int | None
    ) -> tuple[LoadedTable, str]:
        """Return the rows, and a description of their source."""
        local = self._copy(path)
        split = split or self.split
        # Class names in the rows are known after all rows have been read.
        named = self.task != "classification" or any(isinstance(f, Mapping) for f in self.features.values())
        few = limit if named and not self.where else None
        if local is not None and (lines := sorted(local.glob("*.jsonl"))):
            file = self._of_lines(lines, split)
            rows: Any = JsonLines(file)  # another kind of records with the same interface
            return LoadedTable(rows, {}, file.stem, None, file.parent), str(file)
        if local is not None:
            loaded = load(self.name, str(local), split=split if _has(local, split) else None, limit=few)
            return loaded, f"{local}, split {loaded.split!r}"
        if self.hub is None:
            raise DataError(
                " ".join(filter(None, [f"{self.name} is not on the Hub.", self.note]))
                + f" Give its folder with -D path=FOLDER, or put it in ${COPIES}/{self.name}"
            )
        configs: Sequence[str | None] = (config,) if config else self.configs or (self.config,)
        try:
            loaded = load(f"hub:{self.hub}", self.hub, configs, split, revision or self.revision, few)
        except DataError as error:
            raise DataError(
                f"{error}\nTo use a local copy, add -D path=FOLDER or put it in ${COPIES}/{self.name}"
            ) from error
        return loaded, f"hub:{self.hub}, split {loaded.split!r}, revision {loaded.revision or 'not known'}"

    def _of_lines(self, files: Sequence[Path], split: str | None) -> Path:
        """Return the file of a copy in JSON lines: the one named like the split, or the only one.

        Raises:
            DataError: several files, none of which is named like the split.
        """
        chosen = [file for file in files if file.stem == split] or (files if len(files) == 1 else [])
        if not chosen:
            names_of_files = ", ".join(file.name for file in files)
            raise DataError(
                f"{self.name}: which of {names_of_files}? Choose one with --split, without its extension."
            )
        return chosen[0]

    def _copy(self, path: str | None) -> Path | None:
        """Return the folder of the local copy; None if there is none.

        Raises:
            DataError: the named folder does not exist.
        """
        if path is not None:
            folder = Path(path).expanduser()
            if not folder.is_dir():
                raise DataError(f"{self.name}: path={path!r} is not a folder.")
            return folder
        base = os.environ.get(COPIES)
        folder = Path(base or ".").expanduser() / self.name
        return folder if base and folder.is_dir() else None


def _has(folder: Path, split: str | None) -> bool:
    """Return whether a copy has the split; a tiny one may have a single split with another name."""
    if split is None:
        return False
    datasets: Any = require("datasets", "local", "Reading a local copy")
    if (folder / "dataset_info.json").is_file():
        return False
    if (folder / "dataset_dict.json").is_file():
        return split in datasets.load_from_disk(str(folder))
    try:
        return split in datasets.get_dataset_split_names(str(folder))
    except Exception:  # loading it will report the problem
        return True


def listed(raw: Sequence[str]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """Split class names that are lists of synonyms: each class gets the first name that no other class has,
    and the rest become synonyms.

    >>> listed(["tench, Tinca tinca", "crane", "maillot", "maillot, tank suit"])
    (['tench', 'crane', 'maillot', 'tank suit'], {'tench': ('Tinca tinca',)})
    """
    parts = [[part.strip() for part in name.split(",")] for name in raw]
    owners = Counter(form for some in parts for form in {part.casefold() for part in some})
    names, synonyms = [], {}
    for name, some in zip(raw, parts, strict=True):
        own = [part for part in some if owners[part.casefold()] == 1]
        first = own[0] if own else name
        names.append(first)
        if rest := tuple(part for part in own if part != first):
            synonyms[first] = rest
    return names, synonyms


def _clean(name: str) -> str:
    """Return a class name without its number and with spaces.

    >>> _clean("001.ak47"), _clean("apple_pie")
    ('ak47', 'apple pie')
    """
    return re.sub(r"^\d+\.", "", name).replace("_", " ").strip()


@cache
def names() -> tuple[str, ...]:
    """Return the names in the catalog."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@cache
def entry(name: str) -> Benchmark:
    """Return an entry of the catalog.

    Raises:
        KeyError: no such entry.
    """
    if name not in names():
        raise KeyError(name)
    return Benchmark.read(FOLDER / f"{name}.yaml")


def _opener(find: Callable[[str], Benchmark]) -> Callable[..., Dataset]:
    def make(
        rest: str,
        *,
        path: str | None = None,
        split: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        reference: tuple[str, ...] = (),
        limit: int | None = None,
    ) -> Dataset:
        return find(rest).open(
            path=path, split=split, revision=revision, config=config, reference=reference, limit=limit
        )

    make.__doc__ = """A benchmark from the catalog, or one described by a file in the same format.

    Options: ``path``: the folder of a local copy (default: ``$SNELLEN_DATA/NAME`` if it exists, else
    the Hub); ``split``, ``config``, ``revision`` and ``reference`` (columns of reference answers) instead of
    the entry's; ``limit``: stream only this many rows.

    Raises:
        DataError: the data set is not available, or an expected column is missing.
    """
    return make


def _of_file(rest: str) -> Benchmark:
    if not rest:
        raise BadOption("benchmark: needs a file; write benchmark:FILE.yaml (see docs/benchmarks.md).")
    return Benchmark.read(Path(rest).expanduser())


def _named(name: str) -> Callable[[str], Benchmark]:
    return lambda rest: entry(name)


DATASETS.register("benchmark", example="benchmark:FILE.yaml")(_opener(_of_file))
for _name in names():
    DATASETS.register(_name, listed=False)(_opener(_named(_name)))
