"""What the tests of the web app share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snellen.storage.store import Store


@pytest.fixture
def store(workspace: Path) -> Iterator[Store]:
    found = Store(workspace)
    yield found
    found.close()
