"""Fine-tuning by several processes: in parallel on parts of the data, and with the model in shards."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers import TESTS
from snellen.errors import Unsupported
from snellen.storage.store import Store
from snellen.tuning.tuning import Tuning

pytestmark = pytest.mark.slow

TWO = ("-m", "torch.distributed.run", "--nproc_per_node", "2")
SHARDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "NO_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "PYTHONPATH": str(TESTS / "fsdp_on_cpu"),
}


def tuned(folder: Path, *more: str, **environment: str) -> dict[str, Any]:
    """Train by two processes, and return the result."""
    words = (
        "tune pico:llava-skewed --data chart:shapes?n=28 --limit 14 --train-limit 56 -T max_steps=1 --json"
    )
    port = str(random.randint(20000, 60000))
    done = subprocess.run(
        [
            *(sys.executable, *TWO, "--master_port", port, "-m", "snellen", *words.split(), *more),
            *("-o", str(folder / "out"), "--workspace", str(folder / "ws")),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return result


def test_one_of_them_examines_and_writes_and_all_learn(tmp_path):
    result = tuned(tmp_path)
    assert result["effective"]["lora"]["batch"] == 2 * 32
    assert len(result["results"]) == 3
    assert len(Store(tmp_path / "ws").list_runs()) == 6 + bool(result["validation"])


@pytest.mark.exhaustive
@pytest.mark.parametrize("recipe", ["lora", "full"])
def test_a_model_in_shards_is_saved_whole(tmp_path, recipe):
    """Each process has a part of every weight, yet the weights are those of training in parallel."""
    file = "adapter_model.safetensors" if recipe == "lora" else "model.safetensors"
    tuned(tmp_path / "parallel", "--recipe", recipe)
    tuned(tmp_path / "sharded", "--recipe", recipe, **SHARDED)
    parallel, sharded = (load_file(tmp_path / name / "out" / file) for name in ("parallel", "sharded"))
    assert parallel.keys() == sharded.keys()
    for name, weight in parallel.items():
        torch.testing.assert_close(sharded[name], weight, atol=1e-4, rtol=0)


def test_a_dual_encoder_in_shards_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(Unsupported, match="without FSDP and DeepSpeed"):
        Tuning(model="pico:clip", data="chart:shapes", out=tmp_path / "out")
