"""The page of suspicious labels in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from snellen.decisions.labels import LabelReview, Suspect
from snellen.reports.labels import labels_page
from snellen.storage.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


def test_it_saves_decisions(tmp_path: Path, store: Store, chromium: Browser) -> None:
    """Choose, save, and read the file; the script that does so is the only one that may run."""
    suspects = tuple(
        Suspect(id=f"a/{i} \"'<b>.png", label="a", suggested="b & c", agreeing=2, of=3, quality=0.1)
        for i in range(3)
    )
    review = LabelReview(
        data="photos",
        fingerprint="f",
        runs=("x", "y", "z"),
        n=9,
        suspects=suspects,
        contradicted=3,
        wrong=None,
        alike=(),
    )
    file = tmp_path / "labels.html"
    file.write_text(labels_page(review, store, ["a", "b & c", "d"]))
    page = chromium.new_page(accept_downloads=True)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.goto(file.as_uri())
    page.locator(".suspect").nth(0).locator("input[value=correct]").check()
    page.locator(".suspect").nth(1).locator("input[value=drop]").check()
    page.locator(".suspect").nth(2).locator("input[value=correct]").check()
    page.locator(".suspect").nth(2).locator("input[list]").fill("d")
    with page.expect_download() as waiting:
        page.click("#save")
    saved = tmp_path / "labels.json"
    waiting.value.save_as(saved)
    page.close()
    content = json.loads(saved.read_text())
    assert content["data"] == "photos"
    assert [(row["action"], row["correct"]) for row in content["corrections"]] == [
        ("correct", "b & c"),
        ("drop", "b & c"),
        ("correct", "d"),
    ]
    assert [row["id"] for row in content["corrections"]] == [one.id for one in suspects]
    assert errors == []
