"""The page of suspicious labels in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from served import served
from snellen.decisions.labels import LabelReview, Suspect
from snellen.decisions.record import keep_review
from snellen.reports.labels import labels_page
from snellen.storage.store import Store
from snellen.web.security import Policy
from snellen.web.state import AppState

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("where", ["file", "app"])
def test_it_saves_decisions(where: str, tmp_path: Path, store: Store, chromium: Browser) -> None:
    """Choose, save, and read the file; the script that does so is the only one that may run."""
    suspects = tuple(
        Suspect(id=f"a/{i} \"'<b>.png", label="a", suggested="b & c", agreeing=2, of=3, quality=0.1)
        for i in range(3)
    )
    review = LabelReview(
        data="photos",
        fingerprint="f",
        runs=("x", "y", "z"),
        classes=("a", "b & c", "d"),
        n=9,
        suspects=suspects,
        contradicted=3,
        wrong=None,
        alike=(),
    )
    with served(AppState(store, Policy())) as address:
        page = chromium.new_page(accept_downloads=True)
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text))
        if where == "file":
            file = tmp_path / "labels.html"
            file.write_text(labels_page(review, store))
            page.goto(file.as_uri())
        else:
            kept = keep_review(store, review)
            assert kept is not None
            page.goto(f"{address}/labels/{kept.id}")
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
