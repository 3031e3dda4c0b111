"""Benchmarks run, in small: a script that nobody runs for months does not run any more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPT = BENCHMARKS / "gpu.py"

pytestmark = pytest.mark.slow


def measured(out: Path, stages: str) -> tuple[dict, str]:
    given = ["--size", "tiny", "--device", "cpu", "--dtype", "float32", "--minutes", "5"]
    command = [sys.executable, str(SCRIPT), *given, "--stages", stages, "--out", str(out)]
    environment = {**os.environ, "TMPDIR": str(out)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=330, check=True, env=environment)
    (file,) = out.glob("gpu-CPU-*.json")
    assert list(out.glob("tmp*")) == [], "checkpoints are removed"
    return json.loads(file.read_text()), done.stdout


def test_a_gpu_is_measured_in_one_command(tmp_path):
    found, printed = measured(tmp_path, "look")
    assert found["card"] == "CPU"
    stages = found["stages"]
    assert {name: stage["state"] for name, stage in stages.items()} == dict.fromkeys(stages, "done"), stages
    row = stages["look"]["rows"]["closed set, 21 names x 5 rounds, 8 tokens"]
    for arm in ("shared 1", "shared 4", "plain 8"):
        assert row[arm]["failed"] == {}
        assert f"{row[arm]['seconds']:.4f}" in printed
    assert row["plain 8"]["seconds"] > row["shared 4"]["seconds"] > row["floor"] / 20 > 0


@pytest.mark.exhaustive
def test_the_other_stages_run_too(tmp_path):
    stages = measured(tmp_path, "memory,profile,exact,tune,run,pico")[0]["stages"]
    assert {name: stage["state"] for name, stage in stages.items()} == dict.fromkeys(stages, "done"), stages
    assert all(row["same"] == row["of"] > 0 for row in stages["exact"]["rows"].values())
    commands = [row for name in ("tune", "run", "pico") for row in stages[name]["rows"].values()]
    assert {row["status"] for row in commands if "status" in row} == {"0"}
    assert stages["pico"]["rows"]["predictions"] == {"same": 16, "of": 16}


def test_an_unknown_stage_is_named():
    command = [sys.executable, str(SCRIPT), "--stages", "lok"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no such stages: lok; there are look, exact" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("api.py memory 30", "30 samples: "),
        ("store.py 2000", "snellen ls runs: "),
        *(
            pytest.param(words, said, marks=pytest.mark.exhaustive)
            for words, said in (
                ("arena.py 2000 5 100", "everything that its page shows"),
                ("choose.py 3", "equal models"),
                ("exposure.py 200 20", "occurrences: "),
                ("feeding.py 8 64", " times ("),
                ("preferences.py --images 84 --test 14 --steps 2", "| grpo |"),
                ("web.py --runs 30 --samples 200", "/heatmap"),
            )
        ),
    ],
)
def test_the_others_run_in_small(words, said):
    script, *arguments = words.split()
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
