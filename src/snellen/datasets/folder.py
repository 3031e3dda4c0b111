"""Image folders: one folder per class."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol

from snellen._util.words import counted
from snellen.datasets.base import DATASETS, Dataset, Row
from snellen.errors import BadOption, DataError, did_you_mean
from snellen.images import EXTENSIONS, VIDEOS, Image
from snellen.types import Sample

__all__ = ["Folder", "LocalTree", "Tree", "folder"]

#: The most frames of a video.
MOST_FRAMES = 64
#: Names of split folders, used if the top level contains only such folders, in order of preference
#: for the default split.
SPLITS = ("test", "validation", "valid", "val", "dev", "train", "training")


@DATASETS.register("folder", example="folder:PATH")
def folder(
    path: str,
    *,
    split: str | None = None,
    raw_names: bool = False,
    level: Literal["top", "leaf"] = "top",
    background: str | None = None,
    frames: int | None = None,
) -> Folder:
    """A folder with one subfolder of images per class, or train/val/test folders of such.

    Options: ``split``; ``raw_names=true`` keeps folder names unchanged (otherwise ``_`` and ``-``
    become spaces, and a leading ``257.`` is dropped); ``level=leaf`` takes the class from the folder that
    contains the image (``top``: from the topmost folder); ``background=CLASS`` is the class that means
    none of the others; ``frames=N`` also reads videos (mp4, mov, webm, gif …), as N evenly spaced frames,
    which are asked about together.

    Raises:
        DataError: no such folder, no images, or two folders with the same clean name.
        BadOption: an unknown split or background, or less than one frame.
    """
    if frames is not None and not 1 <= frames <= MOST_FRAMES:
        raise BadOption(f"frames={frames} is not allowed; allowed: 1 to {MOST_FRAMES}.")
    top = Path(path).expanduser()
    if not path or not top.is_dir():
        raise DataError(
            f"{path or '(nothing)'}: no such folder. Give a folder with one subfolder of "
            "images per class, as in: --data folder:./photos"
        )
    return Folder(
        f"folder:{path}",
        LocalTree(top, frames),
        split=split,
        raw_names=raw_names,
        level=level,
        background=background,
    )


class Tree(Protocol):
    """Folders and images, on disk or in an archive; paths are relative, with ``/``."""

    #: In messages.
    name: str
    #: Of the files to read.
    extensions: frozenset[str]

    def folders(self, at: str) -> list[str]:
        """Return the names of the visible folders in a folder; "" is the top."""

    def walk(self, at: str) -> Iterator[tuple[str, list[str]]]:
        """Yield each folder in or below a folder, relative to it ("." for itself), with its files."""

    def images(self, path: str) -> tuple[Image, ...]:
        """Return the images of a file: one, or several frames of a video."""

    def digest(self, path: str) -> str:
        """Return a hash of what :meth:`images` returns."""


class LocalTree:
    """A folder on disk.

    Args:
        frames: the number of frames of a video; None if videos are not read.
    """

    def __init__(self, top: Path, frames: int | None = None) -> None:
        self.name, self._top, self._frames = str(top), top, frames
        self.extensions = EXTENSIONS if frames is None else EXTENSIONS | VIDEOS

    def folders(self, at: str) -> list[str]:
        """Return the names of the visible folders in a folder; "" is the top."""
        return sorted(p.name for p in (self._top / at).iterdir() if p.is_dir() and p.name[0] != ".")

    def walk(self, at: str) -> Iterator[tuple[str, list[str]]]:
        """Yield each folder in or below a folder, relative to it ("." for itself), with its files."""
        root = self._top / at
        for folder_, subfolders, files in os.walk(root, followlinks=True):
            subfolders[:] = sorted(name for name in subfolders if _descend(folder_, name))
            yield Path(folder_).relative_to(root).as_posix(), files

    def images(self, path: str) -> tuple[Image, ...]:
        """Return the images of a file: one, or several frames of a video."""
        file = self._top / path
        count = self._count(file)
        return (Image.from_path(file),) if count is None else Image.frames(file, count)

    def digest(self, path: str) -> str:
        """Return a hash of what :meth:`images` returns; of a video, of the file and the number of frames."""
        file = self._top / path
        count = self._count(file)
        if count is None:
            return Image.from_path(file).proven
        with file.open("rb") as content:
            return f"{hashlib.file_digest(content, 'sha256').hexdigest()} {count}"

    def _count(self, file: Path) -> int | None:
        """Return the number of frames to read of a file; None for an image."""
        return self._frames if file.suffix.lower() in VIDEOS else None


class Folder(Dataset):
    """See :func:`folder`. Keeps a short path for each image, never an image.

    Items alternate between classes (the first of each, then the second of each …), so that any prefix of
    the data set, such as a ``--limit``, is as balanced as possible.
    """

    def __init__(
        self,
        name: str,
        tree: Tree,
        *,
        split: str | None,
        raw_names: bool,
        level: str,
        background: str | None,
    ) -> None:
        self.name, self._tree = name, tree
        self._at = self._split(split)
        self.root = f"{tree.name}/{self._at}".rstrip("/")
        self._paths, folders = self._scan(level)
        self._clean: Callable[[str], str] = str if raw_names else clean
        self.labels, of_folder = self._names(folders)
        self._labels = [of_folder[self._class_folder(path, level)] for path in self._paths]
        if background is not None:
            self.background = self._known(background, "background")

    def __len__(self) -> int:
        return len(self._paths)

    def row(self, index: int) -> Row:
        return Row(self._paths[index], self._labels[index])

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        path, label = self.row(index)
        return Sample(
            path,
            self._tree.images(self._place(path)),
            label=label,
            labels=labels,
            background=background,
            synonyms=self.synonyms,
        )

    def digest(self, index: int) -> str:
        return self._tree.digest(self._place(self._paths[index]))

    def _place(self, path: str) -> str:
        return f"{self._at}/{path}" if self._at else path

    def _split(self, split: str | None) -> str:
        """Return the folder of the split, relative to the top; empty without splits."""
        top, folders = self._tree.name, self._tree.folders("")
        splits = [name for name in SPLITS if name in {f.lower() for f in folders}]
        mixed = len(splits) > 1 and all(self._tree.folders(f) for f in folders if f.lower() in splits)
        if not splits or (len(splits) < len(folders) and not mixed):
            if split is not None:
                raise BadOption(
                    f"{top} has no splits, so split={split!r} is not allowed: split folders are named "
                    f"{', '.join(SPLITS)} and no other folders are next to them. Omit --split."
                )
            return ""
        chosen = split or splits[0]
        match = [f for f in folders if f.lower() == chosen.lower()]
        if not match:
            raise BadOption(f"{top} has no split {chosen!r}; its splits: {', '.join(folders)}.")
        self.notes = (
            f"{self.name}: split {match[0]!r} of {', '.join(f for f in folders if f.lower() in splits)}",
        )
        if len(splits) < len(folders):
            others = ", ".join(f for f in folders if f.lower() not in splits)
            self.notes += (f"{self.name}: {others} next to the splits is skipped",)
        return match[0]

    def _scan(self, level: str) -> tuple[list[str], list[str]]:
        """Collect relative paths (with ``/``), alternating between classes, and the class folders."""
        by_class: dict[str, list[str]] = {}
        left_out: dict[str, Counter[str]] = {}
        walked: list[str] = []
        loose = 0
        for relative, files in self._tree.walk(self._at):
            walked.append(relative)
            for file in sorted(files):
                if file.startswith("."):
                    continue
                if (ending := Path(file).suffix.lower()) not in self._tree.extensions:
                    left_out.setdefault(ending or "no extension", Counter())[relative] += 1
                    continue
                if relative == ".":
                    loose += 1
                    continue
                path = f"{relative}/{file}"
                if any("\ud800" <= char <= "\udfff" for char in path):
                    raise DataError(f"{self.root}: a file name that is not UTF-8: {path!r}. Rename it.")
                by_class.setdefault(self._class_folder(path, level), []).append(path)
        if not by_class:
            hint = f" ({loose} are at the top level, which has no class)" if loose else ""
            if not VIDEOS.isdisjoint(left_out):
                hint = ", only videos, which -D frames=8 reads as 8 evenly spaced frames each"
            raise DataError(
                f"{self.root}: no images in class folders{hint}. Expected {self.root}/CLASS/IMAGE with "
                f"one of the extensions {', '.join(sorted(self._tree.extensions))}."
            )
        self.notes = (*self.notes, *_left_out(self.name, left_out, by_class, walked))
        if loose:
            note = f"{self.name}: {counted(loose, 'image')} outside class folders left out"
            self.notes = (*self.notes, note)
        folders = sorted(by_class)
        rounds = max(map(len, by_class.values()))
        paths = [by_class[f][turn] for turn in range(rounds) for f in folders if turn < len(by_class[f])]
        return paths, folders

    @staticmethod
    def _class_folder(path: str, level: str) -> str:
        return path.split("/", 1)[0] if level == "top" else path.rsplit("/", 1)[0]

    def _names(self, folders: list[str]) -> tuple[tuple[str, ...], dict[str, str]]:
        of_folder: dict[str, str] = {}
        taken: dict[str, str] = {}
        for folder_ in folders:
            label = self._clean(folder_)
            if label in taken:
                raise DataError(
                    f"{self.root}: the folders {taken[label]!r} and {folder_!r} both give the class name "
                    f"{label!r}. Rename one, or use folder names unchanged: -D raw_names=true"
                )
            of_folder[folder_] = label
            taken[label] = folder_
        return tuple(of_folder.values()), of_folder

    def _known(self, name: str, what: str) -> str:
        for candidate in (name, self._clean(name)):
            if candidate in self.labels:
                return candidate
        raise BadOption(
            f"{what}={name!r}: no such class in {self.name}.{did_you_mean(name, self.labels)} "
            f"Its classes: {', '.join(self.labels[:20])}{' …' if len(self.labels) > 20 else ''}"
        )


def _left_out(
    name: str, files: Mapping[str, Counter[str]], classes: Collection[str], walked: Iterable[str]
) -> Iterator[str]:
    """Say which files are no images, by extension and folder, and which folders have no image."""
    parts = []
    for ending, folders in sorted(files.items()):
        some = ", ".join(repr(folder_) for folder_, _ in folders.most_common(3)) + (
            " …" if len(folders) > 3 else ""
        )
        parts.append(f"{folders.total()} {ending} (in {some})")
    if parts:
        yield f"{name}: left out, since they are no images: {'; '.join(parts)}"
    if not VIDEOS.isdisjoint(files):
        yield f"{name}: to read videos, as 8 evenly spaced frames each: -D frames=8"
    top = {folder_.split("/", 1)[0] for folder_ in walked} - {"."}
    if empty := sorted(top - {folder_.split("/", 1)[0] for folder_ in classes}):
        yield f"{name}: no class, since there is no image in it: {', '.join(map(repr, empty[:10]))}"


def _descend(parent: str, name: str) -> bool:
    """Return whether to descend: not into hidden folders, nor into links to a parent folder (an endless
    loop).
    """
    above = os.path.realpath(parent) + os.sep
    return name[0] != "." and not above.startswith(os.path.realpath(Path(parent) / name) + os.sep)


def clean(folder_: str) -> str:
    """Return the class name for a folder name.

    >>> clean("257.clutter"), clean("polar_bear"), clean("big/polar_bear")
    ('clutter', 'polar bear', 'polar bear')
    """
    last = folder_.rsplit("/", 1)[-1]
    last = re.sub(r"^\d+\.(?=\D)", "", last)
    return " ".join(re.sub(r"[_-]+", " ", last).split()) or last
