"""A run's samples to files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from snellen.errors import BadOption, StoreError, require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ENDINGS", "Format", "rows_as_text", "write_rows", "write_text"]

Format = Literal["jsonl", "csv", "parquet"]
#: What a file's ending says.
ENDINGS: dict[str, Literal["jsonl", "csv", "parquet", "latex", "markdown"]] = {
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".tex": "latex",
    ".md": "markdown",
}


def rows_as_text(frame: pd.DataFrame, format: Format) -> str:
    """The rows as JSON lines, or as CSV whose lists and mappings are JSON.

    Raises:
        BadOption: the format is no text.
    """
    if format == "jsonl":
        rows = (_plain(row) for row in frame.to_dict("records"))
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if format == "csv":
        text: str = _flat(frame).to_csv(index=False)
        return text
    raise BadOption(f"format={format!r} cannot go to the screen; add: -o FILE.{format}")


def write_rows(frame: pd.DataFrame, format: Format, path: Path) -> None:
    """Write the rows; nested values are JSON in csv and parquet.

    Raises:
        MissingExtra: parquet without pyarrow.
        StoreError: the file cannot be written.
    """
    if format != "parquet":
        write_text(path, rows_as_text(frame, format))
        return
    require("pyarrow", "local", "Writing parquet")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _flat(frame).to_parquet(path, index=False)


def write_text(path: Path, text: str) -> None:
    """Write a text file, and the folders that lead to it.

    Raises:
        StoreError: it cannot be written.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}).") from error


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        str(key): None if isinstance(value, float) and math.isnan(value) else value
        for key, value in row.items()
    }


def _flat(frame: pd.DataFrame) -> pd.DataFrame:
    flat = frame.copy()
    for column in flat.columns:
        if flat[column].map(lambda value: isinstance(value, list | dict)).any():
            flat[column] = flat[column].map(
                lambda value: (
                    json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else None
                )
            )
    return flat
