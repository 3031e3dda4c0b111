"""Data sets of the Hugging Face Hub, or folders in its format, through the datasets library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from snellen.datasets.records import Record, Records
from snellen.datasets.table import Columns, Table
from snellen.errors import DataError, reason_of, require
from snellen.hub import settle
from snellen.registry import DATASETS

__all__ = ["hub"]


@DATASETS.register("hub", example="hub:ORG/NAME[:CONFIG][@SPLIT]")
def hub(
    name: str,
    *,
    image: str | None = None,
    label: str | None = None,
    id: str | None = None,
    question: str | None = None,
    reference: tuple[str, ...] = (),
    labels: tuple[str, ...] = (),
    background: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    limit: int | None = None,
) -> Table:
    """A data set of the Hub, or a folder in its format: hub:ORG/NAME, with :CONFIG and @SPLIT if need be.

    Options: ``image``, ``label``, ``id``, ``question``, ``reference``, ``labels``, ``background`` as for
    jsonl (class names come from ClassLabel features); ``split`` (also as @SPLIT; by default test, else
    validation, else train); ``revision``; ``limit``: read only the first so many rows, streaming them
    (``--limit`` sets it where rows are not shuffled or filtered by class).

    Raises:
        MissingExtra: the datasets library is not installed.
        DataError: no such data set, configuration, split or column; or the Hub cannot be reached.
    """
    datasets: Any = require("datasets", "local", f"The data set 'hub:{name}'")
    settle()
    datasets.disable_progress_bars()
    address, _, at = name.partition("@")
    path, config = _address(address)
    local = Path(path).expanduser().is_dir()
    pinned = None if local else _pin(path, revision)
    split = _split(datasets, path, config, at or split, pinned, name)
    rows = _load(datasets, name, path, config, split, pinned, streaming=limit is not None)
    if limit is not None:
        rows = datasets.Dataset.from_list(list(rows.take(limit)), features=rows.features)
    features = rows.features
    pictures = [c for c, f in features.items() if type(f).__name__ == "Image"]
    for column in pictures:
        rows = rows.cast_column(column, datasets.Image(decode=False))
    columns = Columns(image or (pictures[0] if pictures else None), label, id, question, reference)
    chosen = columns.resolve(list(features), f"hub:{name}")["label"]
    names = getattr(features.get(chosen), "names", None) or ()
    table = Table(
        f"hub:{address}@{split}",
        Arrow(rows, f"hub:{address}@{split}"),
        columns,
        root=Path(path) if local else None,
        labels=labels,
        names=names,
        background=background,
    )
    table.notes = (*table.notes, f"hub:{address}: split {split!r}, revision {pinned or 'local'}")
    return table


class Arrow(Records):
    """Rows of a datasets.Dataset: memory-mapped, images undecoded."""

    def __init__(self, rows: Any, name: str) -> None:
        self._rows, self._name = rows, name
        self.columns = tuple(rows.column_names)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Record:
        found: Record = self._rows[index]
        return found

    def scan(self, columns: Sequence[str]) -> Iterator[Record]:
        if not columns:
            return iter({} for _ in range(len(self)))
        return iter(self._rows.select_columns(list(columns)))

    def where(self, index: int) -> str:
        return f"{self._name}, row {index}"


def _address(address: str) -> tuple[str, str | None]:
    """Path and configuration; a drive's colon is no configuration's."""
    match = re.fullmatch(r"(.+):([^:/\\]+)", address)
    return (match[1], match[2]) if match else (address, None)


def _pin(path: str, revision: str | None) -> str | None:
    """The commit that this revision is now; None where it cannot be told (offline, from the cache)."""
    from huggingface_hub import HfApi

    with suppress(Exception):
        return str(HfApi().dataset_info(path, revision=revision).sha)
    return revision


def _split(
    datasets: Any, path: str, config: str | None, split: str | None, pinned: str | None, name: str
) -> str:
    if split:
        return split
    with _explained(name):
        found = datasets.get_dataset_split_names(path, config, revision=pinned)
    for usual in ("test", "validation", "val", "dev", "train"):
        if usual in found:
            return usual
    return str(found[0])


def _load(
    datasets: Any,
    name: str,
    path: str,
    config: str | None,
    split: str,
    pinned: str | None,
    *,
    streaming: bool,
) -> Any:
    with _explained(name):
        return datasets.load_dataset(path, config, split=split, revision=pinned, streaming=streaming)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what the datasets library raises into one sentence."""
    try:
        yield
    except Exception as error:
        path = name.partition("@")[0].partition(":")[0]
        raise DataError(
            f"hub:{name} cannot be loaded ({reason_of(error)}). Check name, "
            "configuration and split; while online, fetch it with: "
            f"hf download --repo-type dataset {path}"
        ) from error
