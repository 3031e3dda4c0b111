"""Data sets on the Hugging Face Hub, or folders in its format, through the datasets library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from snellen._util.hub import check_hub
from snellen.datasets.base import DATASETS
from snellen.datasets.columns import COLUMNS, ColumnMapping, document_columns
from snellen.datasets.conversations import Conversations, are_conversations
from snellen.datasets.dataset import Dataset
from snellen.datasets.recognize import recognize
from snellen.datasets.records import Record, Records
from snellen.datasets.table import Table
from snellen.errors import DataError, reason_of, require

__all__ = ["LoadedTable", "hub", "load", "table_of"]


@dataclass(frozen=True)
class LoadedTable:
    """Rows of a data set with their column types, split and commit."""

    rows: Arrow
    features: Mapping[str, Any]
    split: str
    revision: str | None
    root: Path | None

    @property
    def pictures(self) -> list[str]:
        """The columns that hold images."""
        return [name for name, feature in self.features.items() if type(feature).__name__ == "Image"]

    def names(self, column: str | None) -> Sequence[str]:
        """Return a column's class names, if its type has them."""
        feature: Any = self.features.get(column or "")
        return (
            getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None) or ()
        )


def load(
    name: str,
    path: str,
    configs: Sequence[str | None] = (None,),
    split: str | None = None,
    revision: str | None = None,
    limit: int | None = None,
) -> LoadedTable:
    """Load the rows of a data set on the Hub, or of a folder in its format or written by ``save_to_disk``.

    Args:
        name: for messages.
        configs: the configurations to concatenate.
        limit: stream only this many rows.

    Raises:
        MissingExtra: the datasets library is not installed.
        DataError: no such data set, configuration or split; or the Hub cannot be reached.
    """
    datasets: Any = require("datasets", "local", f"The data set {name!r}")
    check_hub()
    datasets.disable_progress_bars()
    folder = Path(path).expanduser()
    local = folder.is_dir()
    pinned = None if local else _pin(path, revision)
    with _explained(name, path):
        if local and any((folder / file).is_file() for file in ("dataset_info.json", "dataset_dict.json")):
            data_sets = datasets.load_from_disk(str(folder))
            split = split or (_usual(list(data_sets)) if hasattr(data_sets, "keys") else "train")
            rows = data_sets[split] if hasattr(data_sets, "keys") else data_sets
            rows = rows.select(range(min(limit, len(rows)))) if limit is not None else rows
        else:
            split = split or _usual(datasets.get_dataset_split_names(path, configs[0], revision=pinned))
            parts = [
                datasets.load_dataset(path, config, split=split, revision=pinned, streaming=limit is not None)
                for config in configs
            ]
            if limit is not None:
                few = list(islice(chain.from_iterable(part.take(limit) for part in parts), limit))
                rows = datasets.Dataset.from_list(few, features=parts[0].features)
            else:
                rows = datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    loaded = LoadedTable(Arrow(rows, name), dict(rows.features), split, pinned, folder if local else None)
    for column in loaded.pictures:
        rows = rows.cast_column(column, datasets.Image(decode=False))
    for column, feature in loaded.features.items():
        if type(getattr(feature, "feature", None)).__name__ == "Image":  # a list of images
            rows = rows.cast_column(column, datasets.List(datasets.Image(decode=False)))
    return replace(loaded, rows=Arrow(rows, name))


@DATASETS.register("hub", example="hub:ORG/NAME[:CONFIG][@SPLIT]", bundle=COLUMNS)
@document_columns
def hub(
    name: str,
    *,
    columns: ColumnMapping,
    labels: tuple[str, ...] = (),
    background: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    limit: int | None = None,
) -> Dataset:
    """A data set on the Hub, or a folder in its format: hub:ORG/NAME, optionally with :CONFIG and @SPLIT.

    Options: {columns} ``labels`` and ``background`` as for jsonl (ClassLabel features supply class
    names); a table of conversations (``messages`` and ``images``, or ``prompt`` and ``completion``) is for
    fine-tuning; ``split`` (also as @SPLIT; default: test, else validation, else train); ``revision``;
    ``limit``: stream only this many rows (set by ``--limit`` unless rows are shuffled or filtered by
    class).

    Raises:
        MissingExtra: the datasets library is not installed.
        DataError: no such data set, configuration, split or column; or the Hub cannot be reached.
    """
    address, _, at = name.partition("@")
    path, config = _address(address)
    loaded = load(f"hub:{name}", path, [config], at or split, revision, limit)
    title = f"hub:{address}@{loaded.split}"
    if columns == ColumnMapping() and are_conversations(loaded.rows.columns):
        talk = Conversations(title, loaded.rows, loaded.root)
        talk.notes = (f"{title}: read as conversations, revision {loaded.revision or 'local'}",)
        return talk
    columns, told = recognize(columns, loaded.rows)
    table = table_of(loaded, title, columns, labels=labels, background=background)
    note = f"hub:{address}: split {loaded.split!r}, revision {loaded.revision or 'local'}"
    table.notes = (*table.notes, note, *([f"{title}: {told}"] if told else []))
    return table


def table_of(loaded: LoadedTable, name: str, columns: ColumnMapping, **more: Any) -> Table:
    """Turn rows into samples. By default, the first image column is used."""
    if not columns.image and loaded.pictures:
        columns = replace(columns, image=(loaded.pictures[0],))
    chosen = columns.resolve(loaded.rows.columns, name).label
    names = more.pop("names", None) or loaded.names(chosen)
    return Table(name, loaded.rows, columns, root=loaded.root, names=names, pictures=loaded.pictures, **more)


class Arrow(Records):
    """Rows of a datasets.Dataset: memory-mapped, with images undecoded."""

    def __init__(self, rows: Any, name: str) -> None:
        self._rows, self._name = rows, name
        self.columns = tuple(rows.column_names)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        row: Record = self._rows[index]
        return row

    def scan(self, columns: Sequence[str]) -> Iterator[Record]:
        if not columns:
            return iter({} for _ in range(len(self)))
        return iter(self._rows.select_columns(list(columns)))

    def where(self, index: int) -> str:
        return f"{self._name}, row {index}"


def _address(address: str) -> tuple[str, str | None]:
    """Split into path and configuration; the colon of a Windows drive does not count."""
    match = re.fullmatch(r"(.+):([^:/\\]+)", address)
    return (match[1], match[2]) if match else (address, None)


def _pin(path: str, revision: str | None) -> str | None:
    """Return the commit of a revision; None if unknown (offline, from the cache)."""
    from huggingface_hub import HfApi

    with suppress(Exception):
        return str(HfApi().dataset_info(path, revision=revision).sha)
    return revision


def _usual(splits: Sequence[str]) -> str:
    """Return the default split."""
    usual = (split for split in ("test", "validation", "val", "dev", "train") if split in splits)
    return next(usual, str(splits[0]))


@contextmanager
def _explained(name: str, path: str) -> Iterator[None]:
    """Turn errors of the datasets library into one message."""
    try:
        yield
    except Exception as error:
        raise DataError(
            f"{name} cannot be loaded ({reason_of(error)}). Check name, "
            "configuration and split. While online, download it with: "
            f"hf download --repo-type dataset {path}"
        ) from error
