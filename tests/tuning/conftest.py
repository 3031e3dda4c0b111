"""What the tests of fine-tuning share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def uncollected(no_collection: None) -> None:
    """Trainers collect garbage at their ends."""


@pytest.fixture(scope="module")
def ws(tmp_path_factory) -> Path:
    """A workspace that knows what the models were before."""
    return tmp_path_factory.mktemp("ws")
