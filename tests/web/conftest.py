"""What the tests of the web app share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from helpers import Scripted
from snellen.api import run
from snellen.arena.live import Live
from snellen.storage.store import Store
from snellen.storage.votes import VoteStore
from snellen.web.images import Uploads
from snellen.web.security import Policy
from snellen.web.state import AppState

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


@pytest.fixture
def runs(workspace, store):
    """Two models that differ on some samples, and a third that fails in every way."""

    def teller(k):
        def script(request):
            number = int(request.images[0].sha256[:6], 16)
            return request.sample.label if number % 4 != k else "star" if number % 8 < 4 else "no idea"

        return script

    kwargs: dict[str, Any] = {"data": "chart:shapes?n=40", "protocol": "closed-set?rounds=1"}
    return [run(model=Scripted(teller(k), f"model-{k}"), **kwargs) for k in range(3)]


@pytest.fixture
def live(store):
    def script(request):
        return f"**{len(request.messages)}** {request.images[0].size}"

    models = [Scripted(script, "secret-one"), Scripted(script, "secret-two")]
    arena = Live(VoteStore(store), models, image_path=Uploads(store.folder).path, rng=Random(0))
    return AppState(store, Policy(), arena)
