"""Figures of runs in trackers, through their own clients."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from snellen.api import run
from snellen.cli import app
from snellen.errors import BadOption, MissingExtra, SnellenError
from snellen.reports.tracking import TRACKERS, figures, settings, track, tracker

runner = CliRunner()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    where = tmp_path_factory.mktemp("ws")
    return run(model="pico:clip", data="chart:shapes?n=28", protocol="rank", workspace=where)


def test_figures_are_flat(found):
    told = figures(found)
    accuracy = found.metrics["accuracy"]
    assert told["accuracy"] == accuracy.value > 0
    assert (told["accuracy_low"], told["accuracy_high"]) == (accuracy.low, accuracy.high)
    assert told["outcomes_ok"] == 28
    assert told["n"] == 28
    assert all(isinstance(value, float) for value in told.values())
    assert settings(found)["protocol_seed"] == 0
    assert settings(found)["model"] == found.model


def test_mlflow(found, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its databases take the whole of mlflow
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "eyes")
    track("mlflow", found)
    track("mlflow", found)
    (one,) = mlflow.search_runs(experiment_names=["eyes"], output_format="list")
    assert one.info.run_name == found.id
    assert one.data.metrics["accuracy"] == found.metrics["accuracy"].value
    assert one.data.metrics["accuracy_high"] == found.metrics["accuracy"].high
    assert one.data.params["model"] == "pico:clip"
    kept = mlflow.artifacts.load_dict(f"{one.info.artifact_uri}/manifest.json")
    assert kept["data"]["fingerprint"] == found.manifest.data.fingerprint


def test_mlflow_takes_any_category(found, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr(
        "snellen.reports.tracking.figures", lambda _: {"by_category_Arts & Crafts (2D), 7 %": 0.5}
    )
    track("mlflow", found)
    (one,) = mlflow.search_runs(experiment_names=["snellen"], output_format="list")
    assert one.data.metrics == {"by_category_Arts _ Crafts _2D__ 7 _": 0.5}


def test_wandb(found, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    track("wandb", found)
    wandb.teardown()  # its process, which writes the file, has ended
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert found.id in file.name
    told = summary_of(file)
    assert told["accuracy"] == found.metrics["accuracy"].value
    assert told["outcomes_ok"] == 28


def summary_of(file):
    """What wandb wrote down, to be sent later: records of protobuf in LevelDB's log format, of which a block
    has 32 KiB and a piece of a record a header of 7 bytes (checksum, length, kind).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    told: dict[str, Any] = {}
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole one, or the last piece
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            told |= {item.key or ".".join(item.nested_key): item.value_json for item in record.summary.update}
    return {key: json.loads(value) for key, value in told.items()}


def test_trackio(found, tmp_path, monkeypatch):
    trackio = pytest.importorskip("trackio")  # its client wants an older pillow
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    track("trackio", found)
    (one,) = trackio.Api().runs("snellen")
    assert one.name == found.id


def test_the_command_says_what_is_wrong_before_it_begins(tmp_path, monkeypatch):
    words = (
        f"run --model pico:clip --data chart:shapes --limit 2 --protocol rank --workspace {tmp_path} --track"
    )
    asked = runner.invoke(app, [*words.split(), "excel"])
    assert isinstance(asked.exception, BadOption)
    assert "wandb, mlflow, trackio" in str(asked.exception)
    monkeypatch.setattr("snellen.errors.import_module", _nothing)
    with pytest.raises(MissingExtra, match="pip install mlflow"):
        tracker("mlflow")
    assert not list(tmp_path.glob("*.db"))


def _nothing(name):
    raise ModuleNotFoundError(name=name)


def test_what_a_client_raises_loses_nothing(found, monkeypatch):
    def refuses(_):
        raise ConnectionError("no route to host")

    monkeypatch.setitem(TRACKERS, "wandb", refuses)
    with pytest.raises(SnellenError, match=r"no route to host.*snellen resume clip-rank.* --track wandb"):
        track("wandb", found)
    assert found.metrics.n == 28
