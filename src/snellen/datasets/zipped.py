"""Image folders in a zip file, read in place."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from snellen.datasets.base import DATASETS
from snellen.datasets.folder import Folder
from snellen.errors import DataError, ImageError
from snellen.images import EXTENSIONS, MAX_BYTES, Image, too_many_bytes

__all__ = ["ZipTree", "zip_"]


@DATASETS.register("zip", example="zip:FILE")
def zip_(
    path: str,
    *,
    split: str | None = None,
    raw_names: bool = False,
    level: Literal["top", "leaf"] = "top",
    background: str | None = None,
) -> Folder:
    """A zip file of image folders, one per class, or train/val/test folders of such; read in place.

    Options: as for ``folder``: ``split``; ``raw_names=true`` keeps folder names unchanged; ``level=leaf``
    takes the class from the folder that contains the image; ``background=CLASS``.

    Raises:
        DataError: no such file, not a zip file, or no images in class folders.
        BadOption: an unknown split or background.
    """
    tree = ZipTree(Path(path).expanduser())
    return Folder(f"zip:{path}", tree, split=split, raw_names=raw_names, level=level, background=background)


class ZipTree:
    """The folders of a zip file (see :class:`snellen.datasets.folder.Tree`). A single folder that contains
    everything else is skipped.
    """

    def __init__(self, file: Path) -> None:
        self.name, self.extensions = str(file), EXTENSIONS
        try:
            self._archive = zipfile.ZipFile(file)  # several threads may read from it
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{file}: not a readable zip file ({error}).") from error
        paths = [info.filename for info in self._archive.infolist() if not info.is_dir()]
        # Files of macOS and hidden ones are no data.
        shown = [
            path
            for path in paths
            if not any(part[:1] == "." or part == "__MACOSX" for part in path.split("/"))
        ]
        tops = {path.split("/", 1)[0] for path in shown if "/" in path}
        self._prefix = ""
        if len(tops) == 1 and all(path.count("/") >= 2 for path in shown):
            self._prefix = f"{tops.pop()}/"
        self._folders: dict[str, list[str]] = {}
        for path in sorted(shown):
            folder, _, name = path.removeprefix(self._prefix).rpartition("/")
            self._folders.setdefault(folder, []).append(name)

    def folders(self, at: str) -> list[str]:
        """Return the names of the folders in a folder; "" is the top."""
        start = f"{at}/" if at else ""
        inside = (folder.removeprefix(start) for folder in self._folders if folder.startswith(start))
        return sorted({folder.split("/", 1)[0] for folder in inside} - {""})

    def walk(self, at: str) -> Iterator[tuple[str, list[str]]]:
        """Yield each folder in or below a folder, relative to it ("." for itself), with its files."""
        for folder, files in sorted(self._folders.items()):
            if not at or folder == at or folder.startswith(f"{at}/"):
                yield folder.removeprefix(at).strip("/") or ".", files

    def images(self, path: str) -> tuple[Image, ...]:
        """Return the image of a file."""
        return (self._image(path),)

    def digest(self, path: str) -> str:
        """Return the hash of an image."""
        return self._image(path).proven

    def _image(self, path: str) -> Image:
        return Image(partial(self._read, f"{self._prefix}{path}"), f"{self.name}/{path}")

    def _read(self, member: str) -> bytes:
        """Read a member, whose stated size need not be true."""
        try:
            with self._archive.open(member) as content:
                data = content.read(MAX_BYTES + 1)
        except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
            raise ImageError(f"{self.name}: {member} cannot be read ({error}).") from error
        if len(data) > MAX_BYTES:
            raise too_many_bytes(f"{self.name}: {member}", MAX_BYTES)
        return data
