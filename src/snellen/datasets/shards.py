"""Tar shards in the layout of webdataset, as CLIP's benchmark data sets are published."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from snellen.datasets.base import DATASETS, Dataset, Row
from snellen.errors import BadOption, DataError
from snellen.images import EXTENSIONS, MAX_BYTES, Image, too_many_bytes
from snellen.types import Sample

__all__ = ["WebDataset", "webdataset"]

SPLITS = ("test", "val", "validation", "train")
#: The file of class names, one per line, in the order of their numbers.
NAMES = "classnames.txt"
#: Members with more bytes are no labels or captions.
TEXT_BYTES = 2**20


@DATASETS.register("webdataset", example="webdataset:FOLDER")
def webdataset(path: str, *, split: str | None = None) -> WebDataset:
    """Tar shards of images, each with its class (``.cls``) or captions (``.txt``) under the same name.

    The path is a shard, or a folder of shards, or of one folder of shards for each split; ``classnames.txt``
    next to them names the classes by number. Shards are read in place; compressed ones are refused.

    Options: ``split`` (default: the first of test, val, train that exists).

    Source: github.com/webdataset/webdataset; the layout of huggingface.co/clip-benchmark.

    Raises:
        DataError: no shards, a broken one, or no samples.
        BadOption: an unknown split.
    """
    return WebDataset(path, split)


class WebDataset(Dataset):
    """See :func:`webdataset`. Keeps where each image is in its shard, never an image."""

    def __init__(self, path: str, split: str | None) -> None:
        self.name = f"webdataset:{path}"
        self._shards = self._find(Path(path).expanduser(), split)
        self._ids: list[str] = []
        self._shard, self._offset, self._size = array("l"), array("q"), array("q")
        self._texts: list[tuple[str, ...]] = []
        classes: list[str | None] = []
        for number, shard in enumerate(self._shards):
            for key, (offset, size), text in _samples(shard):
                self._ids.append(key if len(self._shards) == 1 else f"{shard.stem}/{key}")
                self._shard.append(number)
                self._offset.append(offset)
                self._size.append(size)
                classes.append(text.get("cls"))
                self._texts.append(tuple(line for line in text.get("txt", "").splitlines() if line.strip()))
        if not self._ids:
            raise DataError(f"{self.name}: no images in its shards.")
        if classes[0] is None and not any(self._texts):
            raise DataError(f"{self.name}: images without a class (.cls) or a caption (.txt).")
        self._labels = self._named(classes)
        self.labels = tuple(dict.fromkeys(label for label in self._labels if label is not None))
        if self._classes:
            present = set(self.labels)
            self.labels = tuple(name for name in self._classes if name in present)
        self.protocol = None if self.labels else "caption"

    def _find(self, top: Path, split: str | None) -> list[Path]:
        """Return the shards of a split, and note which."""
        self._classes: list[str] = []
        folder = top
        if top.is_dir():
            splits = [name for name in SPLITS if any((top / name).glob("*.tar"))]
            if split is not None and split not in splits:
                raise BadOption(f"{top} has no split {split!r}; its splits: {', '.join(splits) or 'none'}.")
            if splits:
                folder = top / (split or splits[0])
                self.notes = (f"{self.name}: split {folder.name!r} of {', '.join(splits)}",)
            shards = sorted(folder.glob("*.tar"), key=lambda shard: (len(shard.stem), shard.stem))
        else:
            shards = [top] if top.is_file() else []
        if not shards:
            raise DataError(f"{top}: no shards (.tar). Give a folder of shards, or one shard.")
        names = next(
            (place / NAMES for place in (top, folder, top.parent) if (place / NAMES).is_file()), None
        )
        if names is not None:
            self._classes = [line.strip() for line in names.read_text(encoding="utf-8").splitlines()]
        return shards

    def _named(self, classes: Sequence[str | None]) -> list[str | None]:
        labels: list[str | None] = []
        for row, text in enumerate(classes):
            if text is None or not self._classes:
                labels.append(text)
            elif text.isdecimal() and int(text) < len(self._classes):
                labels.append(self._classes[int(text)])
            else:
                raise DataError(
                    f"{self._ids[row]}: the class {text!r} is not one of {len(self._classes)} in {NAMES}."
                )
        return labels

    def __len__(self) -> int:
        return len(self._ids)

    def row(self, index: int) -> Row:
        return Row(self._ids[index], self._labels[index])

    def _image(self, index: int) -> Image:
        shard = self._shards[self._shard[index]]
        name = f"{shard}: {self._ids[index]}"
        return Image(partial(_read, shard, self._offset[index], self._size[index], name), name)

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        row = self.row(index)
        return Sample(
            row.id, (self._image(index),), label=row.label, labels=labels, background=background,
            synonyms=self.synonyms, references=self._texts[index],
        )  # fmt: skip

    def digest(self, index: int) -> str:
        content = json.dumps([self._image(index).proven, self._texts[index]])
        return hashlib.sha256(content.encode()).hexdigest()


def _samples(shard: Path) -> Iterator[tuple[str, tuple[int, int], dict[str, str]]]:
    """Yield the name of each image of a shard, its place (offset, size), and its texts by extension."""
    image: tuple[int, int] | None = None
    texts: dict[str, str] = {}
    last = ""
    try:
        with tarfile.open(shard, "r:") as members:
            for member in members:
                if not member.isfile() or not (
                    key := re.match(r"((?:.*/)?[^./][^/.]*)\.([^/]+)$", member.name)
                ):
                    continue
                if key[1] != last:
                    if image is not None:
                        yield last, image, texts
                    last, image, texts = key[1], None, {}
                ending = key[2].lower()
                if f".{ending.rpartition('.')[2]}" in EXTENSIONS:
                    image = image or (member.offset_data, member.size)
                elif ending in ("cls", "txt", "json") and member.size <= TEXT_BYTES:
                    content = members.extractfile(member)
                    more = _texts(ending, content.read() if content is not None else b"")
                    texts = {**more, **texts} if ending == "json" else {**texts, **more}
    except tarfile.ReadError as error:
        raise DataError(
            f"{shard}: not an uncompressed tar file ({error}). Unpack compressed ones first: gunzip FILE"
        ) from error
    if image is not None:
        yield last, image, texts


def _texts(ending: str, content: bytes) -> dict[str, str]:
    """Return a class or captions, by the extension that they usually have."""
    text = content.decode("utf-8", "replace").strip()
    if ending != "json":
        return {ending: text}
    try:
        fields: Any = json.loads(text)
    except ValueError:
        return {}
    found = {"cls": ("label", "cls", "class"), "txt": ("caption", "text")}
    fields = fields if isinstance(fields, dict) else {}
    return {key: str(fields[name]) for key, names in found.items() for name in names if name in fields}


def _read(shard: Path, offset: int, size: int, name: str) -> bytes:
    if size > MAX_BYTES:
        raise too_many_bytes(name, MAX_BYTES)
    with shard.open("rb") as file:
        file.seek(offset)
        return file.read(size)
