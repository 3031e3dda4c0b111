"""Atomic file writes, and hashes of folders."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

__all__ = ["hash_files", "write_atomic"]


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


def hash_files(folder: Path, files: Iterable[Path]) -> str:
    """Hash the names and contents of files (SHA-256, hex).

    Args:
        folder: the names are relative to it, so that a folder has the same hash wherever it is.
    """
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
