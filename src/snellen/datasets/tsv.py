"""VLMEvalKit's benchmark files (github.com/open-compass/VLMEvalKit): one TSV per benchmark."""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snellen._util.words import counted
from snellen.datasets.base import DATASETS, Dataset, InvalidRow, Row
from snellen.datasets.cells import as_list, texts_of
from snellen.datasets.records import Delimited
from snellen.datasets.table import read_image
from snellen.errors import BadOption, DataError, ImageError
from snellen.images import Image
from snellen.metrics.official import OfficialFigure
from snellen.types import Sample

__all__ = ["VLMEvalKit", "tsv"]

#: An image cell of at most this many characters is the index of the row with the image.
REFERENCE = 64
#: Added to a row's index per position by which its options are rotated.
ROLLED = 1_000_000


@DATASETS.register("tsv", example="tsv:FILE")
def tsv(path: str, *, split: str | None = None, allow_outside: bool = False) -> VLMEvalKit:
    """A benchmark file in VLMEvalKit's layout: index, image, question, hint, A … Z, answer, category.

    Options: ``split``: only rows whose column ``split`` has this value; ``allow_outside=true``: paths in
    ``image_path`` may lead out of the file's folder. Cells are taken literally: an option "None" or
    "N/A" stays an option; an empty cell is no option.

    Raises:
        DataError: no such file, a missing column, or no rows.
        BadOption: no such split.
    """
    return VLMEvalKit(Path(path).expanduser(), f"tsv:{path}", split, allow_outside)


class VLMEvalKit(Dataset):
    """See :func:`tsv`. The correct option's letter is the sample's ``meta["answer"]``, its text the
    reference; ``meta`` keeps the other columns.
    """

    def __init__(self, path: Path, name: str, split: str | None, allow_outside: bool) -> None:
        self.name, self._outside, self._root = name, allow_outside, path.parent
        self._records = Delimited(path, "\t")
        columns = self._records.columns
        for needed in ("index", "question"):
            if needed not in columns:
                raise DataError(f"{path}: missing column {needed!r} among {', '.join(columns)}.")
        if "image" not in columns and "image_path" not in columns:
            raise DataError(f"{path}: expected a column 'image' or 'image_path'.")
        self.labels = ()
        # As VLMEvalKit prints any benchmark of options.
        parts = [name for name in ("split", "l2-category", "category") if name in columns]
        self.figures = {"Overall": OfficialFigure(), **{name: OfficialFigure(by=name) for name in parts}}
        self._letters = [letter for letter in string.ascii_uppercase if letter in columns]
        self._numbers: dict[str, int] = {}
        self._ids: list[str] = []
        invalid: list[InvalidRow] = []
        splits: dict[str, None] = {}
        rolled = 0
        for number, record in enumerate(self._records.scan(["index", "split"])):
            index = record["index"].strip()
            splits[record.get("split", "")] = None
            if not index or index in self._numbers:
                reason = f"duplicate index {index!r}" if index else "an empty index"
                invalid.append(InvalidRow(self._records.where(number), reason))
                continue
            self._numbers[index] = number
            if self._rolled(index):
                rolled += 1
                continue
            if split is None or record.get("split") == split:
                self._ids.append(index)
        self.invalid = tuple(invalid)
        self.protocol = "multiple-choice" if self._letters else "vqa"
        if rolled:
            self.notes = (
                f"{path}: {counted(rolled, 'row')} with an index of {ROLLED:,} or more, which repeat "
                "others with rotated options: skipped; multiple-choice?circular=true rotates them itself.",
            )
        if split is not None and not self._ids:
            known = ", ".join(sorted(filter(None, splits))) or "none"
            raise BadOption(f"{path} has no split {split!r}; its splits: {known}.")
        if not self._ids:
            raise DataError(f"{path}: no rows.")

    def _rolled(self, index: str) -> bool:
        """Return whether a row repeats another with rotated options, for CircularEval."""
        return index.isdigit() and int(index) >= ROLLED and str(int(index) % ROLLED) in self._numbers

    def __len__(self) -> int:
        return len(self._ids)

    def row(self, index: int) -> Row:
        return Row(self._ids[index], None)

    def _record(self, index: int) -> Mapping[str, Any]:
        return self._records[self._numbers[self._ids[index]]]

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        record = self._record(index)
        options = {x: record[x].strip() for x in self._letters if record[x].strip()}
        answer = record.get("answer", "").strip()
        letters = list(options)
        right = sorted({letters.index(x) for x in re.findall("[A-Z]", answer) if x in letters})
        if not re.fullmatch(r"[A-Z](?:[\s,;/&]*[A-Z])*", answer):
            right = []
        truths = [", ".join(options[letters[i]] for i in right) or answer]
        if not options:  # any of several answers
            truths = texts_of(answer, "answer")
        kept = {k: v for k, v in record.items() if k not in ("image", "image_path", *self._letters)}
        return Sample(
            self._ids[index],
            self._images(record, self._records.where(self._numbers[self._ids[index]])),
            question=record["question"],
            choices=tuple(options.values()),
            answers=tuple(right),
            references=tuple(filter(None, truths)),
            meta={**kept, "letters": list(options)},
        )

    def _images(self, record: Mapping[str, Any], where: str) -> tuple[Image, ...]:
        cell = self._cell(record, where, hops=1)
        if cell.startswith("["):
            listed = as_list(cell)
            if listed is None:
                raise ImageError(f"{where}: unreadable list of images.")
            cells = [str(item) for item in listed]
        else:
            cells = [cell]
        return tuple(self._promise(item, where) for item in cells)

    def _promise(self, cell: str, where: str) -> Image:
        return Image(lambda: read_image(cell, where, self._root, self._outside), where)

    def _cell(self, record: Mapping[str, Any], where: str, hops: int) -> str:
        """Return the row's image, or that of the row it refers to; a path if there is neither."""
        cell = str(record.get("image", "")).strip()
        if cell and len(cell) <= REFERENCE and cell in self._numbers and hops:
            return self._cell(self._records[self._numbers[cell]], where, hops - 1)
        return cell or str(record.get("image_path", "")).strip()

    def digest(self, index: int) -> str:
        record = self._record(index)
        digest = hashlib.sha256()
        for image in self._images(record, self._records.where(self._numbers[self._ids[index]])):
            digest.update(image.proven.encode())
        rest = {k: v for k, v in record.items() if k != "image"}
        digest.update(json.dumps(rest, sort_keys=True).encode())
        return digest.hexdigest()
