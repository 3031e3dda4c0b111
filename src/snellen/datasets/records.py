"""Random access to the rows of JSON lines, delimited text and parquet files, which stay on disk."""

from __future__ import annotations

import csv
import json
import re
import sys
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from snellen.datasets.cells import well_formed
from snellen.errors import DataError, require

__all__ = ["Delimited", "JsonLines", "JsonList", "Parquet", "Records", "json_records"]

Record = Mapping[str, Any]
#: The most bytes of row groups of a parquet file that are held in memory (the latest one always is).
HELD = 512 * 1024**2


class Records(ABC):
    """A sequence of rows with named columns."""

    columns: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows."""

    @abstractmethod
    def __getitem__(self, index: int) -> Record:
        """Return one row.

        Raises:
            DataError: it cannot be read.
        """

    @abstractmethod
    def scan(self, columns: Sequence[str]) -> Iterator[Record]:
        """Yield all rows in order, with at least these columns."""

    def class_names(self, column: str | None) -> Sequence[str]:
        """Return the names that the numbers in a column stand for, if the file has them."""
        return ()

    @abstractmethod
    def where(self, index: int) -> str:
        """Return a row's location, for messages."""


def _there(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    return path


class _Lines(Records):
    """Rows of a text file, located by their byte offsets."""

    def __init__(self, path: Path) -> None:
        self.path = _there(path)
        self._starts = array("q")
        self._lines = array("q")

    def __len__(self) -> int:
        return len(self._starts)

    def where(self, index: int) -> str:
        return f"{self.path}, line {self._lines[index]}"

    def _text(self, start: int = 0) -> Iterator[tuple[int, str]]:
        """Yield lines from an offset on, each with its offset."""
        with self.path.open("rb") as file:
            file.seek(start)
            offset = start
            for raw in file:
                here, offset = offset, offset + len(raw)
                if here == 0 and raw.startswith(b"\xef\xbb\xbf"):
                    raw = raw[3:]
                try:
                    yield here, raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{self.path}: not UTF-8 at byte {here + error.start}. Save it as UTF-8 (in Excel: "
                        "CSV UTF-8), or convert it: iconv -f ENCODING -t UTF-8"
                    ) from error


class JsonLines(_Lines):
    """One JSON object per line; blank lines are ignored."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        names: dict[str, None] = {}
        for number, (start, line) in enumerate(self._text(), 1):
            if line.strip():
                self._starts.append(start)
                self._lines.append(number)
                names |= dict.fromkeys(self._parse(line, len(self._starts) - 1))
        self.columns = tuple(names)

    def __getitem__(self, index: int) -> Record:
        _, line = next(self._text(self._starts[index]))
        return self._parse(line, index)

    def scan(self, columns: Sequence[str]) -> Iterator[Record]:
        rows = (line for _, line in self._text() if line.strip())
        return (self._parse(line, index) for index, line in enumerate(rows))

    def _parse(self, line: str, index: int) -> Record:
        try:
            row = json.loads(line)
            if "\\u" in line:
                row = well_formed(row)
        except ValueError as error:
            raise DataError(f"{self.where(index)}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise DataError(f"{self.where(index)}: expected a JSON object, found {type(row).__name__}.")
        return row


class JsonList(Records):
    """A JSON file with a list of objects, read as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = _there(path)
        try:
            rows = well_formed(json.loads(path.read_text(encoding="utf-8-sig")))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not JSON ({error}).") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{path}: expected a list of JSON objects, or one object per line.")
        self._objects: list[Record] = rows
        self.columns = tuple(dict.fromkeys(name for row in rows for name in row))

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> Record:
        return self._objects[index]

    def scan(self, columns: Sequence[str]) -> Iterator[Record]:
        return iter(self._objects)

    def where(self, index: int) -> str:
        return f"{self.path}, object {index}"


def json_records(path: Path) -> Records:
    """Open JSON lines, or a JSON list."""
    with _there(path).open("rb") as file:
        listed = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    return JsonList(path) if listed else JsonLines(path)


class Delimited(_Lines):
    """Separated text with a header. Cells are taken literally: an option "None" or "N/A" stays, and an empty
    cell is an empty text. Spaces around the names of columns are dropped.

    Args:
        separator: None for the most frequent in the header of comma, semicolon, tab and bar.
    """

    def __init__(self, path: Path, separator: str | None = None) -> None:
        super().__init__(path)
        csv.field_size_limit(sys.maxsize)  # cells hold images as base64
        _, first = next(self._text(), (0, ""))
        unquoted = re.sub(r'"[^"]*"', "", first)
        self._separator = separator or max(",;\t|", key=unquoted.count)
        rows = self._rows(0)
        header = next(rows, None)
        if header is None:
            raise DataError(f"{path}: the file is empty. The first line must name the columns.")
        self.columns = tuple(cell.strip() for cell in header[2])
        if len(set(self.columns)) < len(self.columns):
            raise DataError(f"{path}: duplicate column names: {', '.join(self.columns)}.")
        for start, number, cells in rows:
            if cells:
                self._starts.append(start)
                self._lines.append(number)
                if len(cells) != len(self.columns):
                    raise DataError(
                        f"{self.where(len(self._starts) - 1)}: {len(cells)} cells, but the header has "
                        f"{len(self.columns)}."
                    )

    def __getitem__(self, index: int) -> Record:
        _, _, cells = next(self._rows(self._starts[index]))
        return dict(zip(self.columns, cells, strict=True))

    def scan(self, columns: Sequence[str]) -> Iterator[Record]:
        rows = self._rows(0)
        next(rows)
        return (dict(zip(self.columns, cells, strict=True)) for _, _, cells in rows if cells)

    def _rows(self, start: int) -> Iterator[tuple[int, int, list[str]]]:
        """Yield (offset, line number from ``start``, cells); a quoted cell may span lines."""
        place = [start]
        count = 0

        def lines() -> Iterator[str]:
            nonlocal count
            for offset, line in self._text(start):
                place.append(offset)
                count += 1
                yield line

        reader = csv.reader(lines(), delimiter=self._separator)
        while True:
            place.clear()
            number = count + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                why = str(error)
                if "new-line character" in why:
                    why = "lines end in a carriage return alone. Save it otherwise (in Excel: CSV UTF-8)"
                raise DataError(f"{self.path}, line {number}: {why}.") from error
            yield place[0], number, cells


class Parquet(Records):
    """Rows of a parquet file, with one row group in memory at a time."""

    def __init__(self, path: Path) -> None:
        parquet: Any = require("pyarrow.parquet", "local", "Reading parquet")
        self.path = _there(path)
        try:
            self._file: Any = parquet.ParquetFile(path)
        except Exception as error:
            raise DataError(f"{path}: not a parquet file ({str(error).splitlines()[0]}).") from error
        self.columns = tuple(self._file.schema_arrow.names)
        groups = self._file.metadata
        self._ends: list[int] = []
        for i in range(groups.num_row_groups):
            self._ends.append((self._ends[-1] if self._ends else 0) + groups.row_group(i).num_rows)
        self._held: OrderedDict[int, Any] = OrderedDict()
        self._lock = Lock()

    def class_names(self, column: str | None) -> Sequence[str]:
        # As the datasets library stores its features.
        try:
            info = json.loads(self._file.schema_arrow.metadata[b"huggingface"])
            feature = info["info"]["features"][column]
            return tuple(map(str, (feature.get("feature") or feature)["names"]))  # of a list, too
        except (KeyError, TypeError, ValueError):
            return ()

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def where(self, index: int) -> str:
        return f"{self.path}, row {index}"

    def __getitem__(self, index: int) -> Record:
        group = bisect_right(self._ends, index)
        first = self._ends[group - 1] if group else 0
        (row,) = self._group(group).slice(index - first, 1).to_pylist()
        record: Record = row
        return record

    def _group(self, group: int) -> Any:
        """Read a row group, or take one of the latest, which are held as far as they fit into ``HELD``: in
        shuffled order, rows of the same group are far apart.
        """
        with self._lock:
            if group not in self._held:
                self._held[group] = self._file.read_row_group(group)
            self._held.move_to_end(group)
            while len(self._held) > 1 and sum(table.nbytes for table in self._held.values()) > HELD:
                self._held.popitem(last=False)
            return self._held[group]

    def scan(self, columns: Sequence[str]) -> Iterator[Record]:
        for batch in self._file.iter_batches(batch_size=1024, columns=list(columns)):
            yield from batch.to_pylist()
