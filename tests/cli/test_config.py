"""A run in a file, names that users mean, and terminals without Unicode."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from snellen import cli
from snellen.api import run
from snellen.datasets.base import DATASETS
from snellen.errors import DataError, UnknownName
from snellen.models.base import MODELS
from snellen.protocols.base import PROTOCOLS
from snellen.runs.config import RunConfig

RUN = (
    "run",
    "-m",
    "pico:llava",
    "-d",
    "chart:shapes",
    "-p",
    "closed-set",
    "-P",
    "rounds=1",
    "--quiet",
    "--json",
)


@pytest.fixture
def command(workspace, monkeypatch, capsys):
    def call(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["snellen", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return call


class TestConfig:
    def test_what_was_saved_is_the_same_run(self, command, tmp_path):
        file = tmp_path / "run.yaml"
        code, out, err = command(
            *RUN, "--per-class", 1, "--classes", "star,ring", "--seed", 3, "--save-config", file
        )
        assert code == 0, err
        (first,) = json.loads(out)["runs"]
        assert yaml.safe_load(file.read_text()) == {
            "models": ["pico:llava"],
            "data": ["chart:shapes"],
            "protocols": ["closed-set"],
            "filters": {"classes": ["star,ring"], "per_class": 1},
            "protocol_options": {"rounds": "1"},
            "seed": 3,
        }
        code, out, err = command("run", "--config", file, "--quiet", "--json")
        assert code == 0, err
        assert [run["id"] for run in json.loads(out)["runs"]] == [first["id"]]

    def test_options_override_it(self, command, tmp_path):
        file = tmp_path / "run.yaml"
        file.write_text(
            "models: [pico:llava]\ndata: [chart:shapes]\nfilters: {limit: 5}\nprotocols: [rank]\n"
        )
        code, out, _ = command("run", "--config", file, "-m", "pico:clip", "--limit", 3, "--quiet", "--json")
        assert code == 0
        (run,) = json.loads(out)["runs"]
        assert (run["model"], run["metrics"]["n"]) == ("pico:clip", 3)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("modles: [x]\n", "line 1.*modles"),
            ("models: [x]\ndata: [y]\nfilters: {limitt: 3}\n", "no filter 'limitt'. Did you mean 'limit'"),
            ("- x\n", "must be a mapping"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, text, said):
        (tmp_path / "run.yaml").write_text(text)
        with pytest.raises(DataError, match=said):
            RunConfig.read(tmp_path / "run.yaml")

    def test_without_a_model(self, command, tmp_path):
        code, _, err = command("run", "-d", "chart:shapes")
        assert code == 2
        assert "At least one --model is required, or a file with models: --config run.yaml" in err
        code, _, err = command(*RUN, "--limit", 0)
        assert code == 2
        assert "--limit 0 is not allowed" in err

    def test_keys_are_not_written(self, tmp_path):
        RunConfig(models=("vllm:x?api_key=sk-1234567890abcdef1234",), data=("d",)).write(tmp_path / "r.yaml")
        assert "sk-1234567890" not in (tmp_path / "r.yaml").read_text()


class TestNames:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("llava", "'pico:llava' or 'hf:llava-hf/llava-1.5-7b-hf'"), ("gpt-4o", "'openai:gpt-4o'"),
            ("claude-sonnet-4", "'anthropic:claude-sonnet-4'"), ("gemini-2.0", "'gemini:gemini-2.0'"),
            ("Qwen2-VL-7B", "'hf:Qwen/"), ("clip", "'pico:clip' or 'clip:openai/"), ("clip:", "'pico:clip'"),
            ("org/name", "'hf:org/name'"), ("olama:x", "'ollama'"),
        ],
    )  # fmt: skip
    def test_of_models(self, name, meant):
        with pytest.raises(UnknownName) as caught:
            MODELS.make(name)
        assert f"Did you mean {meant}" in str(caught.value)

    def test_of_data_sets(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "photos").mkdir()
        for name, meant in {
            "json:x.json": "jsonl:x.json", "rows.csv": "csv:rows.csv", "a/b.zip": "zip:a/b.zip",
            "photos": "folder:photos", "hf:o/n": "hub:o/n", "cifar": "cifar10", "fodler:x": "folder",
        }.items():  # fmt: skip
            with pytest.raises(UnknownName) as caught:
                DATASETS.make(name)
            assert f"Did you mean {meant!r}?" in str(caught.value)

    def test_of_protocols(self):
        for name, meant in {"mcq": "multiple-choice", "pope": "yes-no", "close-set": "closed-set"}.items():
            with pytest.raises(UnknownName) as caught:
                PROTOCOLS.make(name)
            assert f"Did you mean {meant!r}?" in str(caught.value)

    def test_every_suggestion_can_be_made(self):
        from snellen.models.suggest import FAMILIES

        schemes = {form.format(name="x").partition(":")[0] for _, form in FAMILIES}
        assert schemes <= MODELS.entries.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoding",
    ["ascii", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("cp1252", "latin-1"))],
)
def test_terminals_without_unicode(tmp_path, encoding):
    """Names of classes in another script, and our own dashes, become plain signs rather than tracebacks."""
    rows = "".join(f"{i}.png,{name}\n" for i, name in enumerate(["熊猫", "café", "dog…"] * 2))
    for i in range(6):
        from PIL import Image as pillow

        pillow.new("RGB", (16, 16), (i * 40, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "data.csv").write_text(f"image,label\n{rows}", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    environment["SNELLEN_WORKSPACE"] = str(tmp_path / "ws")

    def call(*arguments: str) -> bytes:
        done = subprocess.run(
            [sys.executable, "-m", "snellen.cli", *arguments], cwd=tmp_path, env=environment,
            capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        return done.stdout

    run(model="pico:clip", data=f"csv:{tmp_path / 'data.csv'}", workspace=tmp_path / "ws")
    for arguments in (["show", "@last"], ["ls", "datasets"]):
        call(*arguments).decode(encoding)
    document = json.loads(call("show", "@last", "--json").decode(encoding))
    assert {"熊猫", "café", "dog…"} == {row["class"] for row in document["classes"]}


def test_tables_of_60_columns(command, monkeypatch, tmp_path: Path):
    """On a narrow terminal, no line is longer."""
    command("run", "-m", "pico:clip", "-m", "pico:classifier", "-d", "chart:shapes?n=28", "--quiet")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    for arguments in (
        ["show", "@last"],
        ["ls", "runs"],
        ["ls", "protocols"],
        ["ls", "datasets"],
        ["ls", "models"],
    ):
        _, out, _ = command(*arguments)
        lines = re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()
        assert max(map(len, lines)) <= 60, (arguments, max(lines, key=len))


def test_lists_explain_options(command):
    for what, words in {
        "protocols": ["order=shuffled (shuffled, fixed)"],
        "models": ["dtype=auto (auto, float32, float16, bfloat16)"],
        "datasets": ["level=top (top, leaf)", "raw_names=False (true, false)"],
    }.items():
        code, out, _ = command("ls", what)
        assert code == 0
        flat = " ".join(out.replace("│", " ").split())
        for text in words:
            assert text in flat, (what, text, flat[:3000])
        _, out, _ = command("ls", what, "--json")
        rows = {row["name"]: row for row in json.loads(out)}
        assert any(row.get("allowed") for row in rows.values())
        if what == "models":
            assert "auto: float32 on the CPU" in rows["hf:ORG/NAME or hf:FOLDER"]["about"]
