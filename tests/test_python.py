"""What Python users call: functions of the package, progress, notebooks, pickles."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest

import snellen
from helpers import PAYLOADS, Scripted, picture
from snellen.datasets.base import DATASETS, Dataset, Row
from snellen.errors import BadOption, UnknownName, UsageError
from snellen.models.base import MODELS
from snellen.runs.filters import Filters
from snellen.storage.store import Store
from snellen.types import Response, Sample, Score

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


class TestWhatNotebooksGive:
    """Arrays, numbers of numpy, generators and paths, where names and numbers are expected."""

    def test_filters(self):
        numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
        names = ("star", "ring")
        for classes in (numpy.array(names), pandas.Series(names), (name for name in names), list(names)):
            assert Filters(classes=classes).classes == names  # type: ignore[arg-type]
        assert Filters(classes=None).classes == ()  # type: ignore[arg-type]
        assert Filters(classes="star").classes == ("star",)
        assert Filters(limit=numpy.int64(5)).limit == 5
        for limit in (1.5, "5"):
            with pytest.raises(BadOption, match="allowed: whole numbers, 1 or more"):
                Filters(limit=limit).apply(DATASETS.make("chart:shapes?n=28"), 0)  # type: ignore[arg-type]

    def test_scores_of_numpy(self, workspace):
        numpy = pytest.importorskip("numpy")

        def scored(request):
            scores = tuple(Score(numpy.float32(-i), 1) for i, _ in enumerate(request.continuations))
            return Response(scores=scores)

        found = snellen.run(model=Scripted(scored), data="chart:shapes?n=4", protocol="rank")
        assert found.metrics.outcomes["ok"] == 4

    def test_runs_and_paths(self, workspace, tmp_path):
        for name in ("a", "b"):
            (tmp_path / "photos" / name).mkdir(parents=True)
            for i, color in enumerate(("red", "green", "blue")):
                image = picture(color, size=(20 + i, 30 if name == "a" else 40))
                (tmp_path / "photos" / name / f"{i}.png").write_bytes(image.data)
        models = [Scripted(lambda r: "a", "a"), Scripted(lambda r: "b", "b")]
        runs = [snellen.run(model=m, data=tmp_path / "photos", protocol="closed-set") for m in models]
        assert len(snellen.compare(run for run in runs)) == 1
        with pytest.raises(BadOption, match="format='pdf' is not allowed. Allowed: html, markdown"):
            snellen.report(runs, format="pdf")  # type: ignore[arg-type]
        with pytest.raises(BadOption, match="prefer='cheapest' is not allowed"):
            snellen.choose(models=["pico:llava"], data=tmp_path / "photos", prefer="cheapest")  # type: ignore[arg-type]
        found = snellen.diagnose(
            model="pico:llava", data=tmp_path / "photos", only="confusions", references="pico:clip"
        )
        assert [finding.part for finding in found.findings] == ["confusions"]
        with pytest.raises(BadOption, match="a diagnosis takes names"):
            snellen.diagnose(model="pico:llava", data=DATASETS.make("chart:shapes"))  # type: ignore[arg-type]

    def test_a_data_set_whose_ids_disagree(self, workspace):
        class Odd(Dataset):
            name, labels = "odd", ("a", "b")

            def __len__(self):
                return 4

            def row(self, index):
                return Row(str(index), "ab"[index % 2])

            def sample(self, index, labels, background):
                return Sample(str(index // 2), (picture(),), label="ab"[index % 2], labels=labels)

            def digest(self, index):
                return str(index)

        with pytest.raises(UsageError, match=r"item 1 has the id '1' by row\(\), but '0' by sample\(\)"):
            snellen.run(model=Scripted(lambda r: "a"), data=Odd(), protocol="closed-set")


@pytest.mark.slow
def test_models_are_loaded_in_threads(tmp_path):
    """transformers replaces functions of the whole process while it reads weights."""
    from concurrent.futures import ThreadPoolExecutor

    def load(name: str) -> int:
        model = MODELS.make(name)
        model.load()
        return len(list(model.decoder.parameters()))  # type: ignore[attr-defined]

    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(load, ["pico:llava", "pico:llava-skewed"] * 6))
    assert len(set(counts)) == 1
