"""What a user may have meant by the name of a data set."""

from __future__ import annotations

from pathlib import Path

__all__ = ["suggest"]

#: Schemes by the extension of a file.
FILES = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".zip": "zip", ".tar": "webdataset",
}  # fmt: skip
#: Schemes under other names.
OTHER_NAMES = {
    "json": "jsonl", "ndjson": "jsonl", "images": "folder", "dir": "folder", "directory": "folder",
    "imagefolder": "folder", "path": "folder", "hf": "hub", "huggingface": "hub", "wds": "webdataset",
    "tar": "webdataset", "pascal": "voc",
}  # fmt: skip


def suggest(name: str) -> list[str]:
    """Return full names for a name that no scheme fits.

    >>> suggest("json:x.json"), suggest("rows.csv"), suggest("cifar")
    (['jsonl:x.json'], ['csv:rows.csv'], [])
    """
    scheme, colon, rest = name.partition(":")
    if colon and scheme in OTHER_NAMES:
        return [f"{OTHER_NAMES[scheme]}:{rest}"]
    if (ending := Path(name.partition("?")[0]).suffix.lower()) in FILES:
        return [f"{FILES[ending]}:{name}"]
    return [f"folder:{name}"] if Path(name).expanduser().is_dir() else []
