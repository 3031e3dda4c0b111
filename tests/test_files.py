"""Hashes of folders, and what is remembered of them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from snellen._util import files
from snellen._util.files import hash_files


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a large and a small file, last changed a while ago; nothing is remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "SETTLED", 0)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights.bin").write_bytes(os.urandom(files.LARGE))
    return folder


def whole(folder: Path) -> str:
    """The hash by its definition."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """The hash, and how many files were read for it."""
    read = []
    digest = hashlib.file_digest
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *a: read.append(a) or digest(*a))
        return hash_files(folder, folder.iterdir()), len(read)


def test_a_large_file_is_read_once(weights, monkeypatch):
    assert counted(weights, monkeypatch) == (whole(weights), 2)
    assert counted(weights, monkeypatch) == (whole(weights), 1)


def test_any_change_is_seen(weights, monkeypatch):
    hash_files(weights, weights.iterdir())
    file = weights / "weights.bin"
    old = file.stat()
    file.write_bytes(os.urandom(files.LARGE))
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))  # as if nothing had happened
    assert counted(weights, monkeypatch) == (whole(weights), 2)
    other = weights.with_name("other")
    other.write_bytes(os.urandom(files.LARGE))
    other.replace(file)
    assert counted(weights, monkeypatch) == (whole(weights), 2)
    assert counted(weights, monkeypatch) == (whole(weights), 1)


def test_a_file_that_has_just_changed_is_read_again(weights, monkeypatch):
    monkeypatch.setattr(files, "SETTLED", 10**12)
    hash_files(weights, weights.iterdir())
    assert counted(weights, monkeypatch) == (whole(weights), 2)


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', '{"x": [1]}', "\0"])
def test_a_broken_memory_is_ignored(weights, tmp_path, content):
    memory = tmp_path / "cache" / "snellen" / "hashes.json"
    memory.parent.mkdir(parents=True)
    memory.write_text(content)
    assert hash_files(weights, weights.iterdir()) == whole(weights)
    assert len(json.loads(memory.read_text())) == 1


def test_without_a_place_to_remember(weights, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    assert hash_files(weights, weights.iterdir()) == whole(weights)


def test_only_so_many_are_remembered(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "REMEMBERED", 3)
    for i in range(5):
        (weights / f"{i}.bin").write_bytes(os.urandom(files.LARGE))
        hash_files(weights, weights.iterdir())
    assert len(json.loads((tmp_path / "cache" / "snellen" / "hashes.json").read_text())) == 3
