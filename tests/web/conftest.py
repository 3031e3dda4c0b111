"""What the tests of the web app share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from snellen.storage.store import Store

CHROMIUM = os.environ.get("SNELLEN_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A Chromium that is on this machine (playwright's own is not fetched)."""
    if CHROMIUM is None:
        if os.environ.get("SNELLEN_NEEDS_CHROMIUM"):
            pytest.fail("there is no Chromium here")
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        found.close()


@pytest.fixture
def store(workspace: Path) -> Iterator[Store]:
    found = Store(workspace)
    yield found
    found.close()
