"""What a fine-tuning recorded in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["MANIFEST", "recorded"]

#: The file's name. Not JSON, because a checkpoint's identity hashes its JSON files and weights.
MANIFEST = "tuning.yaml"


def recorded(folder: Path | str | None) -> Mapping[str, Any]:
    """Return the manifest of the fine-tuning that wrote a folder; empty if there is none that can be read."""
    import yaml

    if not folder:
        return {}
    try:
        content = yaml.safe_load((Path(folder).expanduser() / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, Mapping) else {}
