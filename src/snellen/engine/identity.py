"""The names and hashes of runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["digest_of", "plain", "slug_of"]


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with JSON types only."""
    result: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return result


def digest_of(specification: Mapping[str, Any]) -> str:
    """Return a hash of a run's identity."""
    return hashlib.sha256(json.dumps(specification, sort_keys=True).encode()).hexdigest()


def slug_of(name: str) -> str:
    """Return the part of a model's or data set's name that a run's id shows.

    >>> slug_of("hf:Qwen/Qwen2-VL-2B-Instruct"), slug_of("chart:shapes")
    ('qwen2-vl-2b-instruct', 'shapes')
    """
    rest = name.rstrip("/")
    last = rest.rsplit("/", 1)[-1] if "/" in rest else rest.partition(":")[2] or rest
    return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")[:32].strip("-") or "x"
