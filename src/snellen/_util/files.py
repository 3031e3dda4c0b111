"""Atomic file writes, and hashes of folders."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from snellen.errors import StoreError

__all__ = ["cache_folder", "explained", "hash_files", "write_atomic", "write_text"]


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file atomically, creating its folders; readers see the old content or the new, never a part.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, creating its folders.

    Raises:
        StoreError: it cannot be written.
    """
    with explained(path):
        write_atomic(path, text)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of the file system into a StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror}).") from error


def hash_files(folder: Path, files: Iterable[Path]) -> str:
    """Hash the names and contents of files (SHA-256, hex). Hashes of large files are remembered by path,
    size, inode and times of change, in ``$XDG_CACHE_HOME/snellen``; the others are computed in parallel.

    Args:
        folder: the names are relative to it, so that a folder has the same hash wherever it is.
    """
    ordered = sorted(files)
    known = _remembered()
    with ThreadPoolExecutor(THREADS) as pool:
        rows = list(pool.map(lambda file: _hashed(file, known), ordered))
    digest = hashlib.sha256()
    for file, (*_, content) in zip(ordered, rows, strict=True):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + bytes.fromhex(content))
    large = {str(f.resolve()): row for f, row in zip(ordered, rows, strict=True) if row[0] >= LARGE}
    _remember({path: row for path, row in large.items() if row != known.get(path)}, known)
    return digest.hexdigest()


#: Files of fewer bytes are always read.
LARGE = 2**20
#: The most hashes to remember.
REMEMBERED = 2_000
THREADS = 4
#: A file that changed less than so many nanoseconds ago may change again without a trace.
SETTLED = 2_000_000_000


def _hashed(file: Path, known: Mapping[str, Sequence[Any]]) -> list[Any]:
    """Return a file's size, inode, times of change and hash; the last as remembered, if nothing changed."""
    facts = file.stat()
    stamp = [facts.st_size, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns]
    row = list(known.get(str(file.resolve()), ()))
    if stamp[0] >= LARGE and row[:-1] == stamp and time.time_ns() - max(stamp[2:]) > SETTLED:
        return row
    with file.open("rb") as stream:
        return [*stamp, hashlib.file_digest(stream, "sha256").hexdigest()]


def cache_folder() -> Path:
    """Return the user's folder for what can be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snellen"


def _memory() -> Path:
    return cache_folder() / "hashes.json"


def _remembered() -> dict[str, list[Any]]:
    """Read the remembered hashes; none if the file is missing or broken."""
    try:
        rows = json.loads(_memory().read_text(encoding="utf-8"))
        return {str(path): list(row) for path, row in rows.items() if len(row) == 5}
    except (OSError, ValueError, AttributeError, TypeError, RuntimeError):
        return {}


def _remember(new: Mapping[str, list[Any]], known: Mapping[str, list[Any]]) -> None:
    """Store hashes, the newest last; a folder that cannot be written is no problem."""
    if not new:
        return
    rows = {path: row for path, row in known.items() if path not in new} | dict(new)
    kept = dict(list(rows.items())[-REMEMBERED:])
    with suppress(OSError, RuntimeError):
        write_atomic(_memory(), json.dumps(kept))
