"""Many copies of a model by Ray: the same answers, and nothing lost when copies die."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from snellen.api import run
from snellen.cli import app
from snellen.engine.completing import complete
from snellen.engine.replicas import Engine, Replicated, portable
from snellen.errors import BadOption, ModelError, Unsupported
from snellen.protocols.base import ask
from snellen.registry import DATASETS, MODELS
from snellen.runs import Run
from snellen.types import Outcome, Request, Response

ray = pytest.importorskip("ray")
runner = CliRunner()


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """A cluster on this machine, for all tests of this page."""
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    try:
        start()
    except Exception as error:  # a machine without shared memory, say
        pytest.skip(f"Ray does not start here: {error}")
    yield
    ray.shutdown()
    MODELS._entries.pop("deadly", None)


def start() -> None:
    ray.init(
        num_cpus=4,  # replicas of several tests side by side
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
        runtime_env={
            "env_vars": {"PYTHONPATH": str(Path(__file__).parent)},
            "worker_process_setup_hook": "deadly.known",
        },
    )


@pytest.fixture(scope="module")
def llavas(cluster) -> Iterator[Replicated]:
    """Two copies of the built-in model, started once."""
    model = Replicated("pico:llava", {}, Engine(replicas=2), batch_size=8)
    close = model.close
    model.close = lambda: None  # type: ignore[method-assign]
    model.load()
    yield model
    close()


async def answers(model: Replicated, requests: list[Request]) -> list[Response]:
    async with model.connected():
        return list(await model.respond(requests))


def pids(model: Replicated) -> list[int]:
    return [about[2] for about in ray.get([one.about.remote() for one in model._actors])]


def rows_of(found: Run) -> list[list[Any]]:
    kept = ("id", "label", "prediction", "outcome", "details", "ranking", "marks", "images")
    return [[row[key] for key in kept] for row in sorted(found.findings(), key=lambda row: row["position"])]


def test_the_same_as_one_process(llavas, tmp_path):
    """Sample by sample: predictions, texts, figures; it is the same run, so one goes on with the other's."""
    how = {"data": "chart:shapes?n=56", "protocol": "closed-set?rounds=2"}
    one = run(model="pico:llava", **how, workspace=tmp_path / "one")
    other = run(model=llavas, **how, workspace=tmp_path / "many")
    assert one.id == other.id
    assert rows_of(one) == rows_of(other)
    texts = [
        {
            row["id"]: [(reply.text, reply.prompt_tokens) for reply in replies]
            for row, replies in found.answered()
        }
        for found in (one, other)
    ]
    assert texts[0] == texts[1]
    for figure in ("accuracy", "macro_f1", "outcomes", "requests", "prompt_tokens"):
        assert one.metrics[figure] == other.metrics[figure]
    assert other.manifest["model"]["facts"]["replicas"] == 2
    again = run(model="pico:llava", **how, workspace=tmp_path / "many")
    assert again.manifest["finished"] == other.manifest["finished"]  # it came back as it was


def test_a_killed_replica_loses_nothing(llavas, tmp_path):
    """A worker killed in the middle: its batch is asked again, by another process, and nothing is doubled."""
    how = {"data": "chart:shapes?n=140", "protocol": "closed-set?rounds=3"}
    whole = run(model="pico:llava", **how, workspace=tmp_path / "whole")
    victim = pids(llavas)[0]
    killed = threading.Timer(0.5, os.kill, (victim, signal.SIGKILL))
    killed.start()
    found = run(model=llavas, **how, workspace=tmp_path / "killed")
    killed.join()
    assert victim not in pids(llavas)
    assert found.metrics["outcomes"]["error"] == 0
    assert rows_of(found) == rows_of(whole)


def test_what_a_model_raises_is_told(llavas):
    (reply,) = complete(answers(llavas, [Request(ask([], "x " * 9000).messages)]))
    assert reply.outcome is Outcome.ERROR
    assert "context" in reply.reason


def test_a_poisoned_sample_ends_as_an_error_alone(tmp_path):
    """A request that kills whoever is asked it, tried a bounded number of times; all others are answered."""
    import deadly

    assert deadly.known() is None
    data = DATASETS.make("chart:shapes?n=8")
    samples = [data.sample(i, data.labels, None) for i in range(8)]
    model = Replicated("deadly:star", {}, Engine(replicas=1))
    model.load()
    requests = [Request(ask(s.images, "bang" if i == 5 else "What?").messages) for i, s in enumerate(samples)]

    replies = complete(answers(model, requests))
    model.close()
    assert [reply.outcome for reply in replies] == [Outcome.ERROR if i == 5 else Outcome.OK for i in range(8)]
    assert "died" in replies[5].reason.lower() or "Actor" in replies[5].reason


def test_requests_travel_without_what_they_do_not_need():
    data = DATASETS.make("chart:shapes?n=1")
    one = data.sample(0, data.labels, None)
    asked = [Request(ask(one.images, f"{i}?").messages, sample=one) for i in range(40)]
    sent = portable(asked)
    assert sent == [Request(r.messages) for r in sent]
    assert [r.messages[0].text for r in sent] == [r.messages[0].text for r in asked]
    assert {r.images[0].sha256 for r in sent} == {one.images[0].sha256}
    import ray.cloudpickle as pickling

    assert len(pickling.dumps(sent)) < 2 * len(one.images[0].data) + 20_000  # the image once


def test_refusals(tmp_path):
    with pytest.raises(Unsupported, match="--max-concurrency"):
        Replicated("openai:gpt-4o", {}, Engine())
    with pytest.raises(BadOption, match="ray://HOST"):
        Engine.read("spark")
    with pytest.raises(BadOption, match="--replicas 0"):
        Engine(replicas=0)
    with pytest.raises(ModelError, match="room for 4"):
        Replicated("pico:llava", {}, Engine(replicas=9)).load()
    words = "run --model pico:llava --data chart:shapes --replicas 2".split()
    assert "go with --engine" in str(runner.invoke(app, words).exception)


def test_the_command(tmp_path):
    """A dual encoder by rank, as users start it."""
    words = "run --model pico:clip --data chart:shapes?n=28 --protocol rank --json --quiet"
    words += " --engine ray --replicas 2"
    done = runner.invoke(app, [*words.split(), "--workspace", str(tmp_path / "many")])
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["runs"] if "runs" in done.stdout else json.loads(done.stdout)
    one = run(model="pico:clip", data="chart:shapes?n=28", protocol="rank", workspace=tmp_path / "one")
    assert found["id"] == one.id
    assert found["metrics"]["accuracy"] == one.metrics["accuracy"]
