"""What Python users call: functions of the package, progress, notebooks, pickles."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest

import snellen
from helpers import PAYLOADS, Scripted
from snellen.errors import BadOption, UnknownName
from snellen.storage.store import Store

DATA: dict[str, Any] = {"data": "chart:shapes?n=28", "protocol": "closed-set?rounds=1"}


@pytest.fixture
def found(workspace: Path) -> snellen.Run:
    return snellen.run(model=Scripted(lambda _: "star", name="<b>A</b>"), **DATA)


def test_help_documents_every_parameter():
    for function in (snellen.run, snellen.report, snellen.export, snellen.leaderboard, snellen.diagnose):
        for name in inspect.signature(function).parameters:
            assert f"        {name}: " in (function.__doc__ or ""), (function.__name__, name)


def test_a_bar_shows_progress(workspace, capsys):
    snellen.run(model=Scripted(lambda _: "star"), **DATA)
    said = capsys.readouterr().err
    assert "scripted closed-set" in said
    assert "28/28" in said
    assert "score " in said
    snellen.run(model=Scripted(lambda _: "star", name="other"), **DATA, progress=False)
    assert capsys.readouterr().err == ""


def test_a_watcher_takes_the_place_of_the_bar(workspace, capsys):
    seen = []
    snellen.run(model=Scripted(lambda _: "x"), **DATA, watch=lambda _, state: seen.append(state.done))
    assert seen[-1] == 28
    assert capsys.readouterr().err == ""


def test_report_and_export(found, tmp_path):
    assert "<!doctype html>" in snellen.report(found)
    assert snellen.report([found], tmp_path / "r.md") == (tmp_path / "r.md").read_text()
    assert len(snellen.export(found, format="jsonl").splitlines()) == 28
    assert snellen.export([found], tmp_path / "rows.csv") == [tmp_path / "rows.csv"]
    with pytest.raises(BadOption, match="extension"):
        snellen.export(found, tmp_path / "rows.doc")
    with pytest.raises(BadOption, match="takes one run"):
        snellen.export([found, found], format="csv")


def test_the_leaderboard_is_a_frame(found):
    other = snellen.run(model=Scripted(lambda _: "no idea", name="B"), **DATA)
    frame = snellen.leaderboard()
    assert list(frame["id"]) == [found.id, other.id]
    assert {"rank", "value", "low", "high", "n", "outcomes"} <= set(frame.columns)
    assert list(snellen.leaderboard([other])["model"]) == ["B"]
    assert snellen.leaderboard([]).empty


@pytest.mark.slow
def test_diagnose(workspace, tmp_path):
    diagnosis = snellen.diagnose(model="pico:llava", data="chart:shapes?n=28", only=["confusions"])
    assert [finding.part for finding in diagnosis.findings] == ["confusions"]
    with pytest.raises(UnknownName, match="Unknown part"):
        snellen.diagnose(model="pico:llava", data="chart:shapes?n=28", only=["nothing"])


def test_tune_names_an_unknown_option(tmp_path):
    with pytest.raises(BadOption, match="no option 'recipie'. Did you mean 'recipe'"):
        snellen.tune(model="pico:llava", data="chart:shapes", out=tmp_path / "out", recipie="lora")


def test_a_run_in_a_notebook(found):
    shown = found._repr_html_()
    assert "accuracy %" in shown
    assert "&lt;b&gt;A&lt;/b&gt;" in shown
    assert not any(payload in shown for payload in PAYLOADS)


def test_a_run_can_be_pickled(found, tmp_path):
    elsewhere = snellen.run(model=Scripted(lambda _: "star"), **DATA, workspace=tmp_path / "other")
    for one in (found, elsewhere):
        again = pickle.loads(pickle.dumps(one))
        assert again.id == one.id
        assert again.metrics == one.metrics


def test_a_pickle_holds_no_password(found, monkeypatch):
    monkeypatch.setattr(Store, "where", "postgresql://me:hunter2hunter2@example.com/runs", raising=False)
    found.store.__dict__.pop("where", None)
    assert b"hunter2" not in pickle.dumps(found)
