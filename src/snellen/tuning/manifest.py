"""What a tuning's folder says of how it came about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from snellen._util.files import write_atomic
from snellen.errors import UsageError

__all__ = ["MANIFEST", "TuningManifest"]

#: The file of a folder. Not JSON: a checkpoint is known by a hash of its JSON and weights.
MANIFEST = "tuning.yaml"


class TuningManifest:
    """The manifest of a tuning's folder: written before the training, gone on with after it.

    Args:
        specification: a hash of all that can change what comes of it.
        about: what is written down of the tuning, whatever happens.
    """

    def __init__(self, folder: Path, specification: str, about: Mapping[str, Any]) -> None:
        self.folder, self.specification, self._about = folder, specification, dict(about)

    @property
    def _path(self) -> Path:
        return self.folder / MANIFEST

    def held(self) -> dict[str, Any]:
        """What was written down; empty where nothing is, or it is of another tuning."""
        content = self._read()
        return content if content.get("specification") == self.specification else {}

    def _read(self) -> dict[str, Any]:
        if not self._path.is_file():
            return {}
        content = yaml.safe_load(self._path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}

    def begin(self) -> None:
        """Make the folder, or go on in it. One in which nothing was learnt yet is taken over.

        Raises:
            UsageError: it holds something else.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"-o {self.folder}: a file; a folder is needed.")
        there = self._read()
        if there.get("specification") == self.specification:
            return
        if there:
            if "log" in there or any((self.folder / "checkpoints").glob("*/checkpoint-*")):
                raise UsageError(
                    f"-o {self.folder} holds another tuning ({there.get('model')} on {there.get('data')}, "
                    f"recipe {there.get('recipe')}, begun with other options or data). Name another folder, "
                    "or remove this one."
                )
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
            self._path.unlink()
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise UsageError(f"-o {self.folder}: not empty, and no tuning. Name a new folder.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.add({})

    def add(self, facts: Mapping[str, Any]) -> None:
        """Write something more down; the file is whole at any time."""
        content = {**self._read(), "specification": self.specification, **self._about, **facts}
        # Only what JSON has, so that YAML writes nothing of Python's own.
        plain = json.loads(json.dumps(content, default=str))
        write_atomic(self._path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
