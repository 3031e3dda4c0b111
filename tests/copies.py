"""Tiny local copies of the catalog's benchmarks: exactly their documented columns and types, few rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from snellen.datasets.benchmarks import entry
from snellen.datasets.shapes import KINDS, draw, figure
from snellen.images import encode

ROWS = Path(__file__).parent / "catalog"


def picture(key: str, side: int = 64) -> bytes:
    return encode(draw(figure(key, KINDS[hash_of(key) % len(KINDS)]), side))


def hash_of(key: str) -> int:
    return sum(map(ord, key))


def feature(kind: Any, names: Sequence[str] | None) -> Any:
    from datasets import ClassLabel, Image, List, Value

    if kind == "image":
        return Image()
    if isinstance(kind, str):
        return Value(kind)
    if isinstance(kind, list):
        return List(feature(kind[0], names))
    if set(kind) == {"class"}:
        return ClassLabel(names=list(names) if names else [chr(65 + i) for i in range(kind["class"])])
    return {key: feature(one, None) for key, one in kind.items()}


def write_copy(name: str, base: Path, without: str | None = None) -> Path:
    """A copy in ``base/name``, as parquet, or JSON lines with pictures beside where rows hold paths."""
    from datasets import Dataset, Features

    bench = entry(name)
    told = yaml.safe_load((ROWS / f"{name}.yaml").read_text(encoding="utf-8"))
    names = told.get("names") or {}
    folder = base / name
    folder.mkdir(parents=True)
    rows = []
    columns = {c: k for c, k in bench.features.items() if c != without}
    for i, row in enumerate(told["rows"]):
        whole = {}
        for column, kind in columns.items():
            if kind == "image" and column not in row:
                whole[column] = {"bytes": picture(f"{name}/{i}/{column}"), "path": None}
            else:
                whole[column] = row[column]
        rows.append(whole)
    looked_at = bench.columns["image"]
    if isinstance(looked_at, str) and bench.features[looked_at] == "string":
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            path = folder / row[looked_at]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(str(row[looked_at])))
        return folder
    features = Features({c: feature(k, names.get(c)) for c, k in columns.items()})
    Dataset.from_list(rows, features=features).to_parquet(str(folder / f"{bench.split}-00000.parquet"))
    return folder
