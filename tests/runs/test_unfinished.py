"""Runs that ended early: what they show, and how they are resumed from anywhere."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers import TESTS, Scripted, command_line, until
from snellen._util.environment import is_gone, this_process
from snellen.api import run
from snellen.errors import UsageError
from snellen.reports import page, tables
from snellen.reports.leaderboard import leaderboards
from snellen.runs.compare import compare
from snellen.runs.resume import plan_of
from snellen.runs.run import Run, list_runs, open_run
from snellen.storage.store import Store

DATA: dict[str, Any] = {"data": "chart:shapes?n=28", "protocol": "closed-set?rounds=1"}


class Stopping(Scripted):
    """Answers, until it is interrupted at its question number ``at``."""

    def __init__(self, at: int, name: str = "stopping") -> None:
        super().__init__(self._say, batch_size=4, name=name)
        self.at = at

    def _say(self, _: Any) -> str:
        if len(self.asked) > self.at:
            raise KeyboardInterrupt
        return "star"


@pytest.fixture
def interrupted(workspace: Path) -> Run:
    with pytest.raises(KeyboardInterrupt):
        run(model=Stopping(10), **DATA)
    return open_run()


def plain(table: Any) -> str:
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


class TestFigures:
    def test_it_is_interrupted_and_has_the_figures_of_its_samples(self, interrupted):
        assert interrupted.status == "interrupted"
        n = interrupted.metrics.n
        assert 4 <= n < 28
        assert interrupted.headline is not None
        assert len(interrupted.predictions) == n

    def test_lists_reports_and_tables_show_them(self, interrupted):
        said = f"interrupted at {interrupted.metrics.n} of 28"
        assert said in plain(tables.runs_table([interrupted]))
        assert said in plain(leaderboards([interrupted])[0])
        assert said in page.html([interrupted])
        assert said in page.markdown([interrupted])
        assert "accuracy" in plain(tables.figures_table(interrupted))

    def test_it_is_compared_on_the_samples_that_it_has(self, interrupted):
        whole = run(model=Scripted(lambda _: "ring", name="whole"), **DATA)
        (comparison,) = compare([interrupted, whole])
        assert comparison.result.n == interrupted.metrics.n
        assert comparison.left_out == 28 - interrupted.metrics.n
        assert f"{interrupted.id} is interrupted at" in plain(tables.comparison_table([comparison]))

    def test_a_run_without_any_result_is_refused(self, workspace):
        with pytest.raises(KeyboardInterrupt):
            run(model=Stopping(0), **DATA)
        (nothing,) = list_runs()
        assert nothing.status == "interrupted"
        with pytest.raises(UsageError, match="no results yet"):
            compare([nothing, nothing])

    def test_while_it_runs_again_it_is_running(self, interrupted):
        seen = []

        def say(_: Any) -> str:
            seen.append(open_run().status)
            return "star"

        found = run(model=Scripted(say, batch_size=4, name="stopping"), **DATA)
        assert set(seen) == {"running"}
        assert (found.id, found.status) == (interrupted.id, "finished")

    @pytest.mark.slow
    def test_a_killed_one_too(self, tmp_path):
        """Nothing could be stored as it ended."""
        workspace = tmp_path / "killed"
        command = [sys.executable, TESTS / "interrupted.py", workspace, tmp_path / "log", "0.05"]
        with subprocess.Popen([str(part) for part in command]) as process:
            until(lambda: (workspace / "snellen.db").exists())
            until(lambda: any(len(found.predictions) for found in list_runs(workspace)))
            (going,) = list_runs(workspace)
            assert going.status == "running"
            assert going.metrics.n > 0
            process.kill()
        (killed,) = list_runs(workspace)
        assert killed.status == "interrupted"
        assert killed.metrics.n == len(killed.predictions) > 0
        assert killed.metrics.figure("accuracy") is not None

    def test_which_processes_are_gone(self):
        here = this_process()
        assert not is_gone(here)
        assert is_gone({**here, "started": here["started"] - 100})  # its number is used again
        assert not is_gone({**here, "host": "elsewhere", "pid": -1})


class TestFromElsewhere:
    """Relative paths are those of the folder in which the run began."""

    @pytest.fixture
    def began(self, tmp_path, photos, monkeypatch):
        home = tmp_path / "home"
        shutil.copytree(photos, home / "photos")
        (home / "names.csv").write_text("".join(f"{c},{c.upper()}\n" for c in photos_of(photos)))
        monkeypatch.chdir(home)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("snellen.models.dual_encoder.DualEncoder.answer", interrupt)
            command = ["run", "-m", "pico:clip", "-d", "folder:photos", "-D", "names=names.csv"]
            assert command_line(*command, "-w", "ws", "--quiet") == 130
        return home

    def test_it_resumes(self, began, tmp_path, monkeypatch, capsys):
        (found,) = list_runs(began / "ws")
        monkeypatch.chdir(tmp_path)
        code = command_line("resume", found.id, "-w", str(began / "ws"), "--quiet", "--json")
        assert code == 0
        (done,) = json.loads(capsys.readouterr().out)["runs"]
        assert (done["id"], done["status"]) == (found.id, "finished")

    def test_or_says_from_where(self, began, tmp_path, monkeypatch):
        (found,) = list_runs(began / "ws")
        (began / "photos").rename(began / "pictures")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError, match=f"began in {began}; resume it from there"):
            plan_of(Store(began / "ws"), found.id)


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def photos_of(photos: Path) -> list[str]:
    return sorted(path.name for path in photos.iterdir())


def test_skipped_images_are_named(workspace, tmp_path, photos, capsys):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    for i in range(7):
        (folder / "star" / f"broken{i}.png").write_bytes(b"no picture")
    command = ["run", "-m", "pico:clip", "-d", f"folder:{folder}", "-p", "rank", "--skip-invalid"]
    assert command_line(*command, "--quiet") == 0
    said = capsys.readouterr().err
    assert "7 samples of folder:photos" in said
    assert "star/broken0.png: " in said
    assert "… and 2 more" in said
    assert command_line("show", "@last") == 0
    shown = capsys.readouterr().out
    assert "Skipped (7)" in shown
    assert "star/broken6.png" in shown
    assert command_line(*command, "--quiet", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["runs"][0]["skipped"]) == 7
    assert document["incompatible"] == []
