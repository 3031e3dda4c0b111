"""Images for pages: uploads, previews, and the originals of samples, if still available."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

from snellen._util.files import write_atomic
from snellen.datasets.base import Selection
from snellen.errors import ImageError, SnellenError, StoreError, UnknownName
from snellen.images import is_hash
from snellen.images.sending import as_sent
from snellen.images.uploads import cleaned
from snellen.runs.filters import DataSource, Filters
from snellen.runs.run import Run
from snellen.storage.store import Store
from snellen.storage.vote_rows import Battle

__all__ = ["MAX_UPLOAD", "PNG", "BattleImages", "SourceImages", "Uploads"]

#: The first bytes of a PNG.
PNG = b"\x89PNG"
#: The most bytes of an upload.
MAX_UPLOAD = 16 * 2**20
#: Local data sets: showing their images fetches nothing.
_LOCAL = frozenset({"chart", "folder", "jsonl", "csv", "parquet", "tsv"})
#: The most data sets held open.
_OPEN = 4
#: The longest side of an original as sent.
_SIDE = 2048
_FORMATS = ("PNG", "JPEG", "WEBP")
#: Decoding a large picture takes hundreds of megabytes, so few are decoded at once.
_DECODING = threading.BoundedSemaphore(2)


class Uploads:
    """Uploaded images, decoded, re-encoded and stored under their hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "uploads"

    def path(self, sha256: str) -> Path:
        """Return the path of the image with a hash."""
        return self.folder / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Return whether this is the hash of a stored image."""
        return is_hash(sha256) and self.path(sha256).is_file()

    def read(self, sha256: str) -> tuple[str, bytes] | None:
        """Return media type and bytes of an image; None if it is not stored. It is a PNG or JPEG: see
        :func:`snellen.images.cleaned`.
        """
        if not self.has(sha256):
            return None
        data = self.path(sha256).read_bytes()
        return ("image/png" if data.startswith(PNG) else "image/jpeg"), data

    def keep(self, data: bytes, name: str = "the upload") -> str:
        """Store an image; return its hash.

        Raises:
            ImageError: too large, or not of an accepted format.
            StoreError: it cannot be written.
        """
        if len(data) > MAX_UPLOAD:
            raise ImageError(f"{name}: {len(data):,} bytes; the limit is {MAX_UPLOAD:,}. Shrink it.")
        with _DECODING:
            bare = cleaned(data, name)
        sha256 = hashlib.sha256(bare).hexdigest()
        path = self.path(sha256)
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                write_atomic(path, bare)
            except OSError as error:
                raise StoreError(f"{self.folder}: cannot be written ({error.strerror}).") from error
        return sha256


class SourceImages:
    """Original images of samples, read from local data sets. They must have the hash in the run's record, so
    that no other file can be obtained this way.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._open: OrderedDict[str, Selection | None] = OrderedDict()
        self._lock = threading.Lock()

    def of_battle(self, battle: Battle, sha256: str) -> tuple[str, bytes] | None:
        """Return media type and bytes of an image of a battle between runs, as :meth:`image`."""
        runs, sample = battle.content.get("runs"), battle.content.get("sample")
        if not runs or sample is None:
            return None
        try:
            position = self.store.sample_row(runs[0], sample)["position"]
        except UnknownName:  # the run is in another workspace
            return None
        return self.image(runs[0], position, sha256)

    def image(self, run: str, position: int, sha256: str) -> tuple[str, bytes] | None:
        """Return media type and bytes of a sample's image, encoded for a browser; None if it is not
        available.
        """
        with self._lock:
            if run not in self._open:
                self._open[run] = self._selection(run)
                if len(self._open) > _OPEN:
                    self._open.popitem(last=False)
            selection = self._open[run]
        if selection is None or position >= len(selection):
            return None
        try:
            for image in selection[position].images:
                if image.sha256 == sha256:
                    return as_sent(image, _FORMATS, _SIDE)
        except SnellenError:
            pass  # the file has been removed or damaged since
        return None

    def _selection(self, run: str) -> Selection | None:
        recipe = Run(self.store, run).manifest.plan
        if recipe is None or recipe.data[0].partition(":")[0] not in _LOCAL:
            return None
        filters = Filters.of(recipe.filters)
        split = {"split": filters.split} if filters.split else {}
        try:
            options = {**recipe.data_options, **split}
            return DataSource(recipe.data[0], options, filters, recipe.seed)()
        except (SnellenError, OSError):
            return None


class BattleImages:
    """Writes images of battles as files, for exported votes.

    Args:
        folder: created if necessary.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._uploads, self._originals = Uploads(store.folder), SourceImages(store)
        self._store, self.folder = store, folder

    def __call__(self, battle: Battle, sha256: str) -> str:
        """Write an image at the largest available size and return its path; empty if it is not available.

        Raises:
            StoreError: it cannot be written.
        """
        if not is_hash(sha256):  # imported votes may name any file
            return ""
        original = self._uploads.read(sha256) or self._originals.of_battle(battle, sha256)
        data = original[1] if original is not None else preview(self._store, sha256)
        if data is None:
            return ""
        target = self.folder / f"{sha256}.{'png' if data.startswith(PNG) else 'jpg'}"
        if data[8:12] == b"WEBP":
            target = target.with_suffix(".webp")
        try:
            write_atomic(target, data)
        except OSError as error:
            raise StoreError(f"{target}: cannot be written ({error.strerror}).") from error
        return str(target)


def preview(store: Store, sha256: str) -> bytes | None:
    """Return the small preview of an image; None if there is none."""
    path = store.preview_path(sha256)
    return path.read_bytes() if path.is_file() else None
