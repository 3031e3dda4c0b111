"""Write a run's samples to files."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from snellen._util.cells import inert_cell
from snellen._util.files import explained, write_atomic, write_text
from snellen._util.paths import without_folders
from snellen.errors import BadOption, require

if TYPE_CHECKING:
    import pandas as pd

    from snellen.runs.run import Run

__all__ = ["ENDINGS", "Format", "rows_as_text", "writable", "write_rows", "write_run", "write_text"]

Format = Literal["jsonl", "csv", "parquet"]
#: Formats by file extension.
ENDINGS: dict[str, Literal["jsonl", "csv", "parquet", "latex", "markdown"]] = {
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".tex": "latex",
    ".md": "markdown",
}


def rows_as_text(frame: pd.DataFrame, format: Format) -> str:
    """Return the rows as JSON lines, or as CSV with lists and mappings as JSON. In CSV, a text that a
    spreadsheet would take for a formula has an apostrophe before it.

    Raises:
        BadOption: the format is not text.
    """
    frame = _without_folders(frame)
    if format == "jsonl":
        rows = (_plain(row) for row in frame.to_dict("records"))
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if format == "csv":
        flat = _flat(frame).map(inert_cell)
        text: str = flat.rename(columns=inert_cell).to_csv(index=False)
        return text
    raise BadOption(f"format={format!r} cannot be printed. Add: -o FILE.{format}")


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
    with explained(path):
        write_atomic(path, _flat(_without_folders(frame)).to_parquet(index=False))


def write_run(run: Run, folder: Path) -> None:
    """Write results as JSON and samples as JSON lines, as evaluation harnesses do.

    Raises:
        BadOption: the folder is not writable.
    """
    writable(folder)
    results = {**run.as_dict(), "manifest": run.published_manifest()}
    write_text(folder / f"results_{run.id}.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    write_rows(run.predictions, "jsonl", folder / f"samples_{run.id}.jsonl")


def writable(folder: Path) -> None:
    """Create a folder for results, or say why it cannot be created.

    Raises:
        BadOption: it cannot be created or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise BadOption(f"--output {folder}: not a writable folder ({error.strerror}).") from error


def _without_folders(frame: pd.DataFrame) -> pd.DataFrame:
    """Return samples whose reasons name no folders."""
    return frame.assign(reason=frame["reason"].map(without_folders)) if "reason" in frame else frame


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
