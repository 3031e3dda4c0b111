"""The manifest in the output folder of a fine-tuning."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from snellen._util.files import write_atomic
from snellen.errors import Stopped, UsageError, reason_of
from snellen.models.huggingface.recorded import MANIFEST

__all__ = ["MANIFEST", "TuningManifest"]


class TuningManifest:
    """The manifest in an output folder: written before the training, and updated after it.

    Args:
        specification: a hash of everything that can change the result.
        about: facts recorded in any case.
    """

    def __init__(self, folder: Path, specification: str, about: Mapping[str, Any]) -> None:
        self.folder, self.specification, self._about = folder, specification, dict(about)

    @property
    def _path(self) -> Path:
        return self.folder / MANIFEST

    def held(self) -> dict[str, Any]:
        """The recorded content; empty if there is none, or if it belongs to another fine-tuning."""
        content = self._read()
        return content if content.get("specification") == self.specification else {}

    def _read(self) -> dict[str, Any]:
        if not self._path.is_file():
            return {}
        content = yaml.safe_load(self._path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}

    def begin(self) -> None:
        """Create the folder, or resume in it. A folder without any training results is reused.

        Raises:
            UsageError: it contains something else.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"-o {self.folder}: this is a file. Use a new folder.")
        there = self._read()
        if there.get("specification") == self.specification:
            return
        if there:
            if "log" in there or any((self.folder / "checkpoints").glob("*/checkpoint-*")):
                raise UsageError(
                    f"-o {self.folder} contains another fine-tuning ({there.get('model')} on "
                    f"{there.get('data')}, "
                    f"recipe {there.get('recipe')}, with other options or data). Use another folder, "
                    "or delete this one."
                )
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
            self._path.unlink()
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise UsageError(
                f"-o {self.folder}: the folder is not empty and contains no fine-tuning. Use a new one."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"-o {self.folder}: cannot be made ({reason_of(error)}). Use another."
            ) from error
        self.add({})

    def add(self, facts: Mapping[str, Any]) -> None:
        """Record more facts; the file is always complete.

        Raises:
            Stopped: it cannot be written.
        """
        content = {**self._read(), "specification": self.specification, **self._about, **facts}
        # Only JSON types, so that YAML writes no Python-specific tags.
        plain = json.loads(json.dumps(content, default=str))
        try:
            write_atomic(self._path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        except OSError as error:
            raise Stopped(
                f"-o {self.folder}: cannot be written ({reason_of(error)}). Free some space on this disk, or "
                "use another folder, and rerun the command."
            ) from error
