"""Tables of samples: jsonl, csv and parquet files with named columns."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snellen._util.words import counted
from snellen.datasets.base import DATASETS, Dataset, InvalidRow, Row
from snellen.datasets.cells import missing
from snellen.datasets.columns import (
    COLUMNS,
    ROLES,
    ColumnMapping,
    Parts,
    document_columns,
    items_of,
    listed_labels,
    satisfies,
)
from snellen.datasets.names import read_labels
from snellen.datasets.recognize import recognize
from snellen.datasets.records import Delimited, Parquet, Records, json_records
from snellen.errors import BadOption, DataError, ImageError, did_you_mean
from snellen.images import EXTENSIONS, Image
from snellen.types import Sample

__all__ = ["Table", "csv_", "jsonl", "open_image", "parquet", "read_image"]


#: How to allow images in other folders.
ALLOW = "-D allow_outside=true, or after the data set's name: FILE?allow_outside=true"


def _factory(scheme: str, open_: Callable[[Path], Records]) -> Callable[..., Table]:
    def make(
        path: str,
        *,
        columns: ColumnMapping,
        labels: tuple[str, ...] = (),
        background: str | None = None,
        root: str | None = None,
        allow_outside: bool = False,
    ) -> Table:
        file = Path(path).expanduser()
        records = open_(file)
        name = f"{scheme}:{path}"
        columns, note = recognize(columns, records)
        table = Table(
            name,
            records,
            columns,
            root=file.parent if root is None else Path(root).expanduser(),
            labels=read_labels(labels),
            names=records.class_names(columns.resolve(records.columns, name).label) if len(records) else (),
            background=background,
            allow_outside=allow_outside,
        )
        if note:
            table.notes = (*table.notes, f"{name}: {note}")
        return table

    make.__doc__ = f"""A {scheme} file with one row per sample; image paths are relative to it.

    Options: {{columns}} ``labels``: the label set, in order, separated by commas, or ``@FILE`` (default:
    all labels that occur); ``background``: the class that means none of the others; ``root``: the folder that
    image paths are relative to (default: the file's); ``allow_outside=true``: they may lead out of it. Other
    columns are kept with the samples.

    Raises:
        DataError: no such file, no such column, or no rows.
    """
    return document_columns(make)


class Table(Dataset):
    """Samples from rows. Ids and labels are kept in memory (labels as small numbers); rows and images are
    not.

    Args:
        names: class names by number, for numeric labels (ClassLabel features).
        where: keep only rows with these values (see :func:`snellen.datasets.columns.satisfies`).
        pictures: columns that hold images, in addition to the one in use.
        root: the folder that relative image paths are relative to.
    """

    def __init__(
        self,
        name: str,
        records: Records,
        columns: ColumnMapping,
        *,
        root: Path | None,
        labels: Sequence[str] = (),
        names: Sequence[str] = (),
        background: str | None = None,
        allow_outside: bool = False,
        where: Mapping[str, Any] | None = None,
        pictures: Sequence[str] = (),
    ) -> None:
        self.name, self._records, self._root, self._outside = name, records, root, allow_outside
        self._names = tuple(names)
        if len(records) == 0:
            raise DataError(f"{name}: no rows.")
        self._columns = columns.resolve(records.columns, name)
        self.protocol = self._columns.protocol
        self._where = dict(where or {})
        self._kept = [c for c in records.columns if c not in (*self._columns.image, *pictures)]
        if labels and len(set(labels)) < len(labels):
            raise BadOption(f"labels={','.join(labels)}: duplicate class name.")
        given = tuple(labels) or self._names
        self._index(given)
        if background is not None:
            if background not in self.labels:
                raise BadOption(
                    f"background={background!r}: no such class in {name}."
                    f"{did_you_mean(background, self.labels)}"
                )
            self.background = background

    def _index(self, given: tuple[str, ...]) -> None:
        """Read ids and labels once, and record invalid rows."""
        columns = self._columns
        wanted = [c for c in (columns.id, columns.label, columns.each, *self._where) if c]
        seen: set[str] = set()
        known: dict[str, str] = {label: label for label in given}
        invalid: list[InvalidRow] = []
        named: set[str] = set()
        several = 0
        self._ids: list[str] = []
        self._labels: list[str | None] = []
        self._rows: list[int] = []
        self._items: list[int | None] = []
        for number, record in enumerate(self._records.scan([c.partition(".")[0] for c in wanted])):
            if not satisfies(record, self._where):
                continue
            row = str(number)
            if columns.id:
                row = "" if missing(value := record.get(columns.id)) else str(value)
            where = self._records.where(number)
            right, reason = self._right(record.get(columns.label) if columns.label else None, given)
            label = right[0] if right else None
            for item in items_of(record, columns.each):
                name = row if item is None else f"{row}-{item}"
                problem = reason
                if columns.id and not row:
                    problem = problem or "an empty id"
                elif name in seen:
                    problem = problem or f"duplicate id {name!r} (-D id=COLUMN; -D id= numbers the rows)"
                if columns.label and label is not None and not given:
                    label = known.setdefault(label, label)  # one string shared by all samples of a class
                if problem:
                    invalid.append(InvalidRow(where, problem))
                    continue
                seen.add(name)
                self._ids.append(name)
                self._labels.append(known.get(label, label) if label else None)
                named.update(right)
                several += len(right) > 1
                self._rows.append(number)
                self._items.append(item)
        self.invalid = tuple(invalid)
        self.labels = given or tuple(sorted(named))
        if several:
            self.notes = (
                *self.notes,
                f"{self.name}: {counted(several, 'sample')} with several right classes; any of them counts",
            )

    def _right(self, value: Any, given: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
        """Return the right classes and None, or what is wrong."""
        if self._columns.label is None:
            return (), None
        values = listed_labels(value)
        right: dict[str, None] = {}
        for item in values:
            label, problem = self._label(item, given)
            if problem is not None:
                return (), problem
            right[label] = None
        return tuple(right), None if right else "an empty label"

    def _label(self, value: Any, given: tuple[str, ...]) -> tuple[str, str | None]:
        """Return a label and None, or what is wrong."""
        if isinstance(value, float):
            if not math.isfinite(value):
                return "", "an empty label"
            value = int(value) if value == int(value) else value
        if self._names and isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < len(self._names):
                return "", f"the label {value} is not between 0 and {len(self._names) - 1}"
            return self._names[value], None
        if isinstance(value, list | dict):
            return "", f"a {type(value).__name__} where the name of a class is expected"
        text = "" if value is None else str(value).strip()
        if not text:
            return "", "an empty label"
        if given and text not in given:
            return "", f"the label {text!r} is not in the label set{did_you_mean(text, given)}"
        return text, None

    def __len__(self) -> int:
        return len(self._ids)

    def row(self, index: int) -> Row:
        return Row(self._ids[index], self._labels[index])

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        record = self._records[self._rows[index]]
        row = self.row(index)
        images = self._images(record, self._records.where(self._rows[index]))
        said = self._parts(index, record)
        return Sample(
            row.id,
            images,
            label=row.label,
            also=self._also(record, labels),
            labels=labels,
            background=background,
            synonyms=self.synonyms,
            question=said.question,
            choices=said.choices,
            answers=said.answers,
            references=said.references,
            regions=tuple(
                region.scaled(*images[0].size) if shares else region for region, shares in said.regions
            ),
            # What a protocol reads by these names has to be declared.
            meta={
                **{column: record.get(column) for column in self._kept if column not in ROLES},
                **said.extra,
                **self._shadowed(record, said.extra),
            },
        )

    def _also(self, record: Mapping[str, Any], labels: tuple[str, ...]) -> tuple[str, ...]:
        """Return the other right classes."""
        value = record.get(self._columns.label) if self._columns.label else None
        right, _ = self._right(value, ()) if len(listed_labels(value)) > 1 else ((), None)
        return tuple(label for label in right[1:] if label in labels)

    def _shadowed(self, record: Mapping[str, Any], roles: Mapping[str, str]) -> dict[str, Any]:
        """Return the columns that are called like a role that another column has, under ``columns``."""
        mapping = {role: getattr(self._columns, role) for role in roles}
        lost = {role: record[role] for role, column in mapping.items() if role in record and column != role}
        return {"columns": lost} if lost else {}

    def _parts(self, index: int, record: Mapping[str, Any]) -> Parts:
        try:
            return self._columns.parts(record, self._items[index])
        except DataError as error:
            raise DataError(f"{self._records.where(self._rows[index])}: {error}") from error

    def _images(self, record: Mapping[str, Any], where: str) -> tuple[Image, ...]:
        columns = self._columns.image
        cells: list[Any] = []
        for column in columns:
            value = record.get(column)
            if len(columns) > 1 and missing(value):  # some of several image columns may be empty
                continue
            cells += value if isinstance(value, list) else [value]
        if not cells:
            raise ImageError(f"{where}: no image.")
        return tuple(open_image(cell, where, self._root, self._outside) for cell in cells)

    def digest(self, index: int) -> str:
        record = self._records[self._rows[index]]
        digest = hashlib.sha256()
        for image in self._images(record, self._records.where(self._rows[index])):
            digest.update(image.proven.encode())
        rest = {column: record.get(column) for column in self._kept}
        columns = self._columns
        if columns.asks or columns.question or columns.reference:
            # Reading the same cells differently changes the question or the score.
            rest["columns"] = repr(columns)
            self._parts(index, record)  # report an invalid row before the evaluation starts
        digest.update(json.dumps(rest, sort_keys=True, default=repr).encode())
        return digest.hexdigest()


def open_image(value: Any, where: str, root: Path | None, outside: bool = False) -> Image:
    """Return a lazy image for a cell."""
    return Image(lambda: read_image(value, where, root, outside), where)


def read_image(value: Any, where: str, root: Path | None, outside: bool = False) -> bytes:
    """Read the encoded bytes of an image from a cell: bytes, base64 text (optionally a data URI), a path, or
    ``{"bytes": …, "path": …}`` as in the datasets library.

    A path is relative to ``root`` and, unless ``outside``, may not lead out of it. URLs are never fetched.

    Raises:
        ImageError: the cell holds none of these, or a path outside ``root``.
    """
    if isinstance(value, Mapping):
        inner = value.get("bytes")
        value = inner if inner is not None else value.get("path")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str) or not value.strip():
        raise ImageError(f"{where}: the image cell is empty.")
    text = value.strip()
    if text.startswith(("http://", "https://", "ftp://")):
        raise ImageError(
            f"{where}: the image is a URL, {text[:80]!r}. URLs in data are not fetched; download the "
            "image and give its path."
        )
    looks_like_path = len(text) < 1024 and Path(text.split("?")[0]).suffix.lower() in EXTENSIONS
    if not looks_like_path and root is not None and (bare := _with_extension(text, root)) is not None:
        text, looks_like_path = bare, True
    if looks_like_path and not text.startswith("data:"):
        return _from_path(text, where, root, outside)
    body = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(
            f"{where}: {text[:60]!r} is neither a path with an image extension nor base64."
        ) from error


def _with_extension(text: str, root: Path) -> str | None:
    """Return a path with the extension that a table leaves out ("000bec180eb1"), if there is one."""
    if len(text) > 128 or not re.fullmatch(r"[\w./ -]+", text):
        return None
    return next(
        (
            text + ending
            for ending in (".jpg", ".png", ".jpeg", ".webp")
            if (root / f"{text}{ending}").is_file()
        ),
        None,
    )


def _from_path(text: str, where: str, root: Path | None, outside: bool) -> bytes:
    if root is None:
        raise ImageError(f"{where}: {text!r} is a path, but this data set has no folder.")
    path = root / text
    if not path.exists():  # as other systems write paths
        spellings = (text.replace("\\", "/"), *(unicodedata.normalize(form, text) for form in ("NFC", "NFD")))
        path = next((root / other for other in spellings if (root / other).exists()), path)
    if not outside and not path.resolve().is_relative_to(root.resolve()):
        raise ImageError(f"{where}: {text!r} leads out of {root}. To allow it: {ALLOW}")
    return Image.from_path(path).data


jsonl = DATASETS.register("jsonl", example="jsonl:FILE", bundle=COLUMNS)(_factory("jsonl", json_records))
csv_ = DATASETS.register("csv", example="csv:FILE", bundle=COLUMNS)(
    _factory("csv", lambda path: Delimited(path, "\t" if path.suffix == ".tsv" else None))
)
parquet = DATASETS.register("parquet", example="parquet:FILE", bundle=COLUMNS)(_factory("parquet", Parquet))
