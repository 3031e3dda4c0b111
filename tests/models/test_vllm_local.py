"""A vLLM that is started for a model: it is asked, and ends with whoever started it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import snellen
from helpers import TESTS, until
from snellen.errors import BadOption, MissingExtra, ModelError
from snellen.models.base import MODELS
from snellen.models.remote.local_server import VllmLocal
from snellen.reports.listings import schemes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A folder that looks like one."""
    folder = tmp_path / "seer"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def program(tmp_path) -> Path:
    """A command that behaves as ``vllm`` does."""
    file = tmp_path / "bin" / "vllm"
    file.parent.mkdir()
    file.write_text(f'#!/bin/sh\nexec {sys.executable} {TESTS / "standin_vllm.py"} "$@"\n')
    file.chmod(0o755)
    return file


def told(checkpoint: Path) -> list[str]:
    """A line for each server that was started: its process and its arguments."""
    file = checkpoint / "told"
    return file.read_text().splitlines() if file.exists() else []


def gone(checkpoint: Path) -> bool:
    """Whether no server is left."""
    for line in told(checkpoint):
        try:
            os.kill(int(line.split()[0]), 0)
        except ProcessLookupError:
            continue
        return False
    return True


def ask(model: str, workspace: Path, **more) -> snellen.Run:
    how = {"data": "chart:shapes?n=28", "protocol": "closed-set?rounds=1", "progress": False}
    return snellen.run(model=model, workspace=workspace, **{**how, **more})


def test_it_is_started_once_and_ended(checkpoint, program, tmp_path):
    name = f"vllm-local:{checkpoint}?program={program}&max_model_len=512&gpus=2&serve=--seed 7"
    found = ask(name, tmp_path / "ws", limit=14)
    assert found.metrics.outcomes["ok"] == 14
    (line,) = told(checkpoint)
    for words in ("'--max-model-len': '512'", "'--tensor-parallel-size': '2'", "'--seed': '7'"):
        assert words in line
    assert "'--served-model-name': 'seer'" in line
    assert gone(checkpoint)
    # Where it was asked is no part of what was asked: all is known, and nothing is started.
    (checkpoint / "told").unlink()
    again = ask(name, tmp_path / "ws", limit=14)
    assert again.metrics.n == 14
    assert told(checkpoint) == []
    manifest = json.dumps(found.manifest.model_dump(mode="json"), default=str)
    assert "127.0.0.1" not in manifest
    assert manifest.count("vllm-local") >= 1


def test_other_weights_or_arguments_are_another_model(checkpoint, program):
    def identity(options: str = "") -> str:
        made = MODELS.make(f"vllm-local:{checkpoint}?program={program}{options}")
        return json.dumps(dict(made.identity()), sort_keys=True, default=str)

    first = identity()
    assert identity("&timeout=7") == first
    assert len({first, identity("&dtype=float32"), identity("&serve=--seed 1"), identity("&system=x")}) == 4
    (checkpoint / "model.safetensors").write_bytes(b"x")
    assert identity() != first


def test_what_is_wrong_is_said_with_its_cause(checkpoint, program, tmp_path):
    name = f"vllm-local:{checkpoint}?program={program}"
    with pytest.raises(ModelError) as failed:
        ask(f"{name}&dtype=float16", tmp_path / "ws")
    said = str(failed.value)
    assert "vLLM ended with status 3" in said
    assert said.index("ValueError: half is not enough.") < said.index("RuntimeError: Engine core")
    assert "of no importance" not in said
    with pytest.raises(ModelError, match="did not answer within 0.5 seconds"):
        ask(f"{name}&dtype=bfloat16&start_timeout=0.5", tmp_path / "ws")
    assert gone(checkpoint)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"])
def test_ended_in_any_way_it_leaves_no_server(checkpoint, program, tmp_path, how):
    """The command with all of its group: by a user, a terminal that is closed, or ``timeout``."""
    words = [
        *("run", "--model", f"vllm-local:{checkpoint}?program={program}&dtype=bfloat16"),
        *("--data", "chart:shapes", "--workspace", str(tmp_path / "ws"), "--quiet"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "snellen", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until(lambda: bool(told(checkpoint)))
        assert not gone(checkpoint)
    finally:
        os.killpg(process.pid, getattr(signal, how))
        said = process.communicate(timeout=30)[1]
    until(lambda: gone(checkpoint))
    if how == "SIGINT":  # obeyed at once, though the server has not answered yet
        assert process.returncode == 130
        assert "Answers so far are saved" in said


@pytest.mark.parametrize(
    ("rest", "error", "said"),
    [
        ("{folder}?base_url=http://x/v1", BadOption, "has no option .base_url."),
        ("{folder}?batch=true", BadOption, "has no option .batch."),
        ("{folder}?gpus=0", BadOption, "gpus=0 is not allowed"),
        ("{folder}?max_model_len=0", BadOption, "max_model_len=0 is not allowed"),
        ("{folder}?start_timeout=nan", BadOption, "start_timeout=nan is not allowed"),
        ("{folder}?serve=--api-key x", BadOption, "serve=--api-key … is not allowed"),
        ("{folder}?serve=--seed sk-abcdefghijklmnopqrstuvwx123456", BadOption, "looks like a key"),
        ("{folder}?serve='", BadOption, "No closing quotation"),
        ("{folder}/..", ModelError, "no config.json"),
        ("./nowhere", ModelError, "no such folder"),
        ("", ModelError, "no such folder"),
        ("name", ModelError, "no such folder"),
    ],
)
def test_what_it_refuses(checkpoint, rest, error, said):
    with pytest.raises(error, match=said):
        MODELS.make(f"vllm-local:{rest.format(folder=checkpoint)}")


def test_without_vllm_it_says_how_to_get_it(checkpoint):
    model = MODELS.make(f"vllm-local:{checkpoint}?program=no-such-vllm")
    assert isinstance(model, VllmLocal)
    with pytest.raises(MissingExtra, match=r"pip install 'snellen\[vllm\]'.*program="):
        model.check()
    assert MODELS.make("vllm-local:Org/Name").name == "vllm-local:Org/Name"


def test_shorthands_do_not_repeat_what_their_target_says():
    """Which vllm-local: is not: it has options that others lack."""
    rows = {row["name"].partition(":")[0]: row for row in schemes("models")}
    assert rows["openai"]["options"]["timeout"] == rows["vllm-local"]["options"]["timeout"]
    assert "gpus" in rows["vllm-local"]["options"]
    assert "max_model_len" in rows["vllm-local"]["about"]
    assert [name for name, row in rows.items() if row["about"] == rows["openai"]["about"]] == ["openai"]
    assert rows["groq"]["what"].endswith("with the options of openai.")
    assert (rows["groq"]["about"], rows["groq"]["options"]) == ("", {})
