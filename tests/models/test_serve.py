"""The real thing: transformers' own server, over HTTP, beside the same model in this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import snellen
from snellen.models.pico import WEIGHTS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `transformers serve` with pico:llava, on the CPU."""
    home = tmp_path_factory.mktemp("home")
    (home / "hub").mkdir()  # without the Hub's cache folder it does not list its models
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(WEIGHTS / "llava")]
    log = (home / "log").open("w+")
    server = subprocess.Popen(
        [*command, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and server.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            log.seek(0)
            pytest.fail(f"the server did not start: {log.read()[-2000:]}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(15)
        log.close()


@pytest.mark.parametrize("protocol", ["closed-set?rounds=2", "binary", "open-world"])
def test_answers_over_http_are_those_in_process(workspace, served, protocol):
    far = f"openai:{WEIGHTS / 'llava'}?base_url={served}"
    # Its answers begin with the blank that this model's tokenizer puts there.
    data = "chart:shapes?n=28"
    over_http = snellen.run(model=far, data=data, protocol=protocol, limit=14, max_concurrency=4)
    in_process = snellen.run(model="pico:llava?prefix=off", data=data, protocol=protocol, limit=14)
    here, there = in_process.predictions, over_http.predictions
    assert over_http.metrics.outcomes["ok"] == 14, there["reason"].tolist()
    assert there["prediction"].tolist() == here["prediction"].tolist()
    answers = [[text.strip() for text in row] for row in there["answers"]]
    assert answers == [[text.strip() for text in row] for row in here["answers"]]
    assert over_http.metrics.completion_tokens > 0


def test_what_it_refuses_is_said_in_its_words(workspace, served):
    with pytest.raises(snellen.Stopped, match=r"Server is pinned to .*requested 'other'"):
        snellen.run(
            model=f"openai:other?base_url={served}&max_consecutive_failures=2",
            data="chart:shapes?n=28",
            protocol="closed-set",
        )
