"""The batches that were submitted, in a file, so that a restart collects them instead of paying again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Ledger", "Submission"]


@dataclass
class Submission:
    """A batch.

    Attributes:
        name: ours for it.
        began: when it was submitted, in seconds since 1970.
        keys: of its requests that nobody has collected yet.
        batch: the provider's id; None if it is not known whether the provider received it.
    """

    name: str
    began: float
    keys: set[str] = field(default_factory=set)
    batch: str | None = None
    count: int = 0


class Ledger:
    """Batches whose answers are not all collected yet.

    Args:
        path: a file of JSON lines, each written before or after one step; None keeps them in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Submission] = {}
        for row in self._rows():
            self._apply(row)

    def open(self) -> list[Submission]:
        """Return the batches with answers to collect."""
        return [submission for submission in self._known.values() if submission.keys]

    def begin(self, name: str, keys: Iterable[str]) -> Submission:
        """Record a batch that is about to be submitted."""
        self._write({"begin": name, "time": time.time(), "keys": sorted(keys)})
        return self._known[name]

    def submitted(self, name: str, batch: str) -> None:
        """Record the provider's id of a batch."""
        self._write({"submitted": name, "batch": batch})

    def collected(self, name: str, keys: Collection[str] | None = None) -> None:
        """Record requests of a batch whose answers nobody needs any more; None: all."""
        self._write({"collected": name, "keys": None if keys is None else sorted(keys)})

    def _apply(self, row: Mapping[str, Any]) -> None:
        if name := row.get("begin"):
            keys = set(row["keys"])
            self._known[name] = Submission(name, row["time"], keys, None, len(keys))
        elif (submission := self._known.get(row.get("submitted") or row["collected"])) is None:
            return
        elif "submitted" in row:
            submission.batch = row["batch"]
        else:
            submission.keys -= submission.keys if row["keys"] is None else set(row["keys"])

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Yield the file's whole lines: a crash may have cut one."""
        if self._path is None or not self._path.exists():
            return
        for line in self._path.read_bytes().splitlines():
            with suppress(ValueError):
                yield json.loads(line)

    def _write(self, row: Mapping[str, Any]) -> None:
        self._apply(row)
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")  # a crash has cut the last line
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
