"""Recorded answers of models, with what a careful person reads in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data" / "answers"


def recorded(name: str) -> list[dict[str, Any]]:
    """The answers of one file, such as ``yes-no``."""
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()]
