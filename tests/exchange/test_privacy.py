"""Nothing that is published names a folder of the machine, and so its user."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
import yaml

from helpers import Scripted
from served import served
from snellen._util.paths import is_local, without_folders
from snellen.api import run
from snellen.errors import BadOption
from snellen.exchange import harness, hub, inspect_log, predictions, tables
from snellen.exchange.export import write_run
from snellen.reports import page
from snellen.runs.run import Run, open_run
from snellen.storage.store import Store
from snellen.web.security import Policy
from snellen.web.state import AppState

SECRET = "ann-of-the-clinic"


@pytest.fixture
def data(tmp_path: Path, photos: Path) -> Path:
    """Photos below a folder whose name is nobody's business; one of them cannot be read."""
    folder = tmp_path / SECRET / "my photos"
    shutil.copytree(photos, folder)
    (folder / "star" / "0.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture
def found(workspace: Path, data: Path) -> Run:
    return evaluate(workspace, data)


def evaluate(workspace: Path, data: Path, **more: Any) -> Run:
    model = Scripted(lambda _: "star")
    return run(
        model=model, data=f"folder:{data}", workspace=workspace, protocol="closed-set?rounds=1",
        skip_invalid=True, **more,
    )  # fmt: skip


def texts(folder: Path) -> Iterator[str]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        yield pd.read_parquet(path).to_json() if path.suffix == ".parquet" else path.read_text()


def test_files_name_no_folder(found, tmp_path):
    assert SECRET in found.source
    assert found.data.startswith("folder:my photos (")
    assert found.manifest.data.fingerprint[:8] in found.data
    out = tmp_path / "out"
    write_run(found, out / "run")
    predictions.write([found], out / "predictions")
    hub.write([found], out / "hub")
    harness.write(found, out / "harness")
    inspect_log.write(found, out / "inspect.json")
    (out / "report.html").write_text(page.html([found]))
    (out / "report.md").write_text(page.markdown([found]))
    (out / "table.md").write_text(tables.markdown([found]) + tables.latex([found]))
    written = list(texts(out))
    assert len(written) >= 10
    assert any("my photos" in text for text in written)
    assert not [text for text in written if SECRET in text]


def test_pages_name_no_folder(found, workspace):
    store = Store(workspace)
    state = AppState(store, Policy())
    with served(state) as address:
        for place in ("/", f"/runs/{found.id}", "/leaderboard.md", "/leaderboard.json", "/leaderboard.csv"):
            answer = httpx.get(f"{address}{place}")
            assert answer.status_code == 200
            assert SECRET not in answer.text, place


def test_a_chosen_name(workspace, data, found):
    same = evaluate(workspace, data, data_name="Clinic A")
    assert same.id == found.id
    again = open_run(same.id, workspace)
    assert again.data == again.as_dict()["data"] == again.published_manifest()["data"]["name"] == "Clinic A"
    assert "Clinic A" in page.html([again])
    assert SECRET in again.source


def test_as_many_names_as_data_sets(workspace, data):
    from snellen.runs.plan import Plan

    with pytest.raises(BadOption, match="2 names .--data-name. for 1 data set "):
        Plan(models=["pico:clip"], data=[f"folder:{data}"], data_names=["a", "b"], workspace=workspace)


def test_two_folders_of_one_name_are_two_data_sets(workspace, data, found, tmp_path):
    other = tmp_path / "elsewhere" / "my photos"
    shutil.copytree(data, other)
    (other / "ring" / "0.png").unlink()
    second = evaluate(workspace, other)
    assert second.data != found.data


@pytest.mark.parametrize(
    ("name", "local"),
    [("folder:photos", True), ("csv:/data/x.csv?image=a", True), ("hub:org/name@test", False),
     ("chart:shapes?n=3", False), ("mmstar", False), ("hf:org/name", False), ("hf:~/models/x", True)],
)  # fmt: skip
def test_which_names_are_local(name, local):
    assert is_local(name) is local


@pytest.mark.parametrize(
    "text",
    ["and/or", "https://example.com/a/b", "3/4", "hub:o/n", "a / b", "s3://bucket/x", "<img/>", "</b>", "/"],
)
def test_what_is_no_path_stays(text):
    assert without_folders(text) == text


def test_settings_of_a_tuning_are_pushed_without_folders(tmp_path, monkeypatch):
    from snellen.exchange import publish

    pushed: dict[str, bytes] = {}

    class Hub:
        def create_repo(self, name: str, **_: Any) -> str:
            return f"https://huggingface.co/{name}"

        def repo_info(self, name: str, **_: Any) -> Any:
            return type("Info", (), {"private": True})

        def create_commit(self, _: str, operations: list[Any], **__: Any) -> None:
            pushed.update({step.path_in_repo: step.path_or_fileobj for step in operations})

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    (tmp_path / "tuning.yaml").write_text(f"data: folder:/home/{SECRET}/my photos\nmodel: pico:llava\n")
    publish.publish(tmp_path, "org/name")
    assert yaml.safe_load(pushed["tuning.yaml"]) == {"data": "folder:my photos", "model": "pico:llava"}
