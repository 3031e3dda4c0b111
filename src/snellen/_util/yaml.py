"""Benchmarks and suites are YAML files: read safely, and what is wrong with one is said."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snellen.errors import DataError, did_you_mean

__all__ = ["read_mapping", "refuse_unknown"]


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        DataError: it is not there, no YAML, or something else than keys and values.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: no {what} can be read from it ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: a {what} is a mapping of keys to values; this is none.")
    return content


def refuse_unknown(keys: Iterable[Any], known: Iterable[str], where: str) -> None:
    """Refuse a key that is none of those that are known.

    Raises:
        DataError: as said.
    """
    known = list(known)
    for key in keys:
        if key not in known:
            raise DataError(f"{where}: unknown key {key!r}.{did_you_mean(str(key), known)}")
