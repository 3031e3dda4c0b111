"""Runs that are killed, interrupted, or share a workspace: nothing is lost, and nothing is asked twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import snellen
from helpers import until
from served_runs import DATA, PROTOCOL, by_question, command, examine, of
from snellen.runs.run import open_run
from snellen.storage.store import Store
from snellen.testing import Server, first_name

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]


def predictions(found):
    """The predictions table, byte for byte, and the answers behind it."""
    frame = found.predictions.drop(columns="latencies")
    return json.dumps(frame.to_dict("records"), sort_keys=True, default=str)


def questions(server, start=0):
    """What was asked, as (image, text)."""
    return [(hashlib.sha256(a.images[0]).hexdigest(), a.text) for a in server.asked[start:]]


def remembered(workspace):
    """What the store holds, as (image, text)."""
    if not (Path(workspace) / "snellen.db").exists():
        return set()
    store = Store(workspace)
    from snellen.storage.schema import responses

    with store.database.engine.connect() as connection:
        rows = connection.execute(responses.select()).mappings().all()
    contents = [row["request"]["messages"][0]["content"] for row in rows]
    return {(content[0]["image"], content[1]) for content in contents}


@pytest.mark.exhaustive
def test_killed_at_a_dozen_instants_nothing_is_lost_and_nothing_asked_twice(tmp_path):
    """Over HTTP, many requests under way: what was remembered is never asked again, and the predictions are
    those of an uninterrupted run."""
    rng = random.Random(20)
    last = math.inf  # questions that are answered; who asks more waits for the kill

    async def answer(asked):
        life = last
        while asked.number >= last and last == life:
            await asyncio.sleep(0.005)
        return by_question(asked)

    with Server(answer) as server:
        for _ in range(12):
            before, already = remembered(tmp_path / "killed"), len(server.asked)
            last = already + rng.randint(0, 4)
            with subprocess.Popen(
                command(server, tmp_path / "killed", "--quiet"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as process:
                until(lambda: len(server.asked) > last)  # noqa: B023  # it is waited for here
                time.sleep(rng.uniform(0, 0.02))  # in the middle of whatever it does then
                process.kill()
            assert process.returncode == -signal.SIGKILL
            assert before <= remembered(tmp_path / "killed")
            assert not before & set(questions(server, already))
        before, already, last = remembered(tmp_path / "killed"), len(server.asked), math.inf
        subprocess.run(command(server, tmp_path / "killed", "--quiet"), check=True, capture_output=True)
        assert not before & set(questions(server, already))
        asked = server.asked.copy()
        uninterrupted = examine(server, tmp_path / "whole")
    assert len(asked) - len(remembered(tmp_path / "killed")) < 145 * 12  # at most what was under way
    assert predictions(open_run(workspace=tmp_path / "killed")) == predictions(uninterrupted)
    assert open_run(workspace=tmp_path / "killed").metrics.outcomes == {
        "ok": 56,
        "unparsed": 0,
        "refused": 0,
        "truncated": 0,
        "error": 0,
    }


def test_interrupted_it_ends_what_is_under_way_and_says_how_to_go_on(tmp_path):
    told_to_end = threading.Event()

    async def answer(asked):
        while asked.number >= 20 and not told_to_end.is_set():
            await asyncio.sleep(0.01)
        return by_question(asked)

    workspace = tmp_path / "ws"
    with Server(answer) as server:
        with subprocess.Popen(
            command(server, workspace), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            until(lambda: len(server.asked) > 20)
            process.send_signal(signal.SIGINT)
            message = ""
            while "requests in flight" not in message:
                line = process.stderr.readline()
                assert line, message
                message += line
            told_to_end.set()
            message += process.stderr.read()
        assert process.returncode == 130
        received = set(questions(server))
        assert remembered(workspace) == received  # what was under way was paid for, and is kept
        assert re.search(r"waiting for \d+ requests in flight", message)
        words = re.search(r"Resume this run with: snellen (resume .*)", message)[1].split()
        already = len(server.asked)
        done = subprocess.run(
            [sys.executable, "-m", "snellen.cli", *words, "--json"],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert not received & set(questions(server, already))
        whole = examine(server, tmp_path / "whole")
    (found,) = json.loads(done.stdout)["runs"]
    assert (found["status"], found["metrics"]["n"]) == ("finished", 56)
    assert predictions(open_run(workspace=workspace)) == predictions(whole)


@pytest.mark.parametrize("times", [1, 2])
def test_interrupted_within_an_event_loop(tmp_path, times):
    """From Python, where a loop runs already: the first interrupt ends what is under way, a second waits for
    nothing."""
    script = (
        "import asyncio, sys, snellen\n"
        "async def go():\n"
        "    snellen.run(model=sys.argv[1], data=sys.argv[2], protocol=sys.argv[3], workspace=sys.argv[4])\n"
        "asyncio.run(go())\n"
    )

    async def slow(asked):
        await asyncio.sleep(1.0 if times == 1 else 20)
        return by_question(asked)

    with Server(slow) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", script, of(server), DATA, PROTOCOL, str(tmp_path / "ws")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        until(lambda: server.asked)
        time.sleep(0.3)
        began = time.monotonic()
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.7)
        process.communicate(timeout=15)
        assert process.returncode not in (0, None)
        assert time.monotonic() - began < 10
        if times == 1:
            assert remembered(tmp_path / "ws") == set(questions(server))
            assert len(server.asked) < 56


def test_two_processes_on_one_workspace_and_one_run(anywhere, tmp_path):
    """Each does what it can; every response stands once, and the predictions agree with what stands."""
    answered: dict[str, Any] = {}

    def moody(asked):
        """Another answer each time it is asked: only one of them may count."""
        key = questions_of(asked)
        answered[key] = answered.get(key, 0) + 1
        names = asked.text.partition("{")[2].partition("}")[0].split(", ")
        return names[(int(key[:6], 16) + answered[key]) % len(names)]

    def questions_of(asked):
        return hashlib.sha256(asked.text.encode() + asked.images[0]).hexdigest()

    with Server(moody) as server:
        running = [
            subprocess.Popen(
                command(server, anywhere, "--quiet", "--json"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        ended = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    ids = {json.loads(out)["runs"][0]["id"] for out, _ in ended}
    assert len(ids) == 1
    found = open_run(workspace=anywhere)
    assert found.metrics.n == found.metrics.outcomes["ok"] == 56
    store = Store(anywhere)
    for row in store.findings(found.id):
        texts = [reply.text for reply in found.replies(row["id"])]
        assert texts == row["details"]["votes"]


def test_images_that_are_there_twice_are_asked_about_once(workspace, tmp_path):
    """Also while they are being asked about."""
    from snellen.images import encode

    for i in range(24):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(__import__("PIL.Image").Image.new("RGB", (9, 9), ("red", "blue")[i % 2])))

    async def slow(asked):
        await asyncio.sleep(0.05)
        return first_name(asked)

    with Server(slow) as server:
        found = snellen.run(
            model=of(server), data=tmp_path / "photos", protocol="closed-set?rounds=1&order=fixed"
        )
        assert len(server.asked) == 2
    assert found.metrics.outcomes["ok"] == 24


def test_cancelled_while_something_is_stored_nothing_that_was_paid_for_is_lost(workspace):
    """An interrupt finds the examination wherever it is: here, between two blocks."""
    import asyncio

    from snellen.datasets.base import DATASETS, select
    from snellen.engine import evaluation
    from snellen.models.base import MODELS, Limits
    from snellen.protocols.base import PROTOCOLS

    async def slow(asked):
        await asyncio.sleep(0.02 + 0.001 * (asked.number % 40))
        return by_question(asked)

    async def go(server, workspace):
        model = MODELS.make(of(server))
        model.limits = Limits(max_concurrency=8)  # so not all is asked before the first is stored
        exam = evaluation.Evaluation(
            model, select(DATASETS.make(DATA)), PROTOCOLS.make(PROTOCOL), Store(workspace)
        )
        seen = asyncio.Event()
        task = asyncio.create_task(exam.evaluate(lambda progress: seen.set()))
        await seen.wait()  # the examination is about to wait for more to gather
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Server(slow) as server:
        asyncio.run(go(server, workspace))
        assert 0 < len(server.asked) < 56 * 3
        assert set(questions(server)) == remembered(workspace)


class TestDatabases:
    def test_two_that_write_the_same_in_different_orders(self, postgres, tmp_path, monkeypatch):
        from snellen.storage.rows import CacheEntry
        from snellen.types import Response

        monkeypatch.setenv("SNELLEN_FILES", str(tmp_path))
        address = postgres.database()
        stores = [Store(address) for _ in range(4)]
        rows = [CacheEntry(f"{i:05}", "m", {}, Response("x")) for i in range(900)]
        failed = []

        def write(number):
            order = rows if number % 2 else rows[::-1]
            try:
                for start in range(0, 900, 150):
                    stores[number].put(order[start : start + 150])
                    stores[number].put(order)
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []

    def test_a_server_that_restarts_in_mid_run(self, postgres, tmp_path, monkeypatch):
        monkeypatch.setenv("SNELLEN_FILES", str(tmp_path))
        restarts = []

        def answer(asked):
            if asked.number in (30, 90):
                restarts.append(
                    threading.Thread(target=postgres.control, args=("restart", "-m", "immediate"))
                )
                restarts[-1].start()
            return by_question(asked)

        address = postgres.database()
        with Server(answer) as server:
            found = examine(server, address)
            assert len(server.asked) == 56 * 3
            for thread in restarts:
                thread.join()
            whole = examine(server, tmp_path / "whole")
        assert len(restarts) == 2
        assert predictions(found) == predictions(whole)

    def test_a_full_disk(self, tmp_path):
        """A file system without room: the run ends in a sentence, and goes on when there is room."""
        script = (
            "import resource, signal, sys\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (260_000, 260_000))\n"
            "from snellen import cli\n"
            "cli.main()\n"
        )
        workspace = tmp_path / "ws"
        with Server(by_question) as server:
            done = subprocess.run(
                [sys.executable, "-c", script, *command(server, workspace, "--quiet")[3:]],
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 1, done.stderr
            assert "the workspace's database reported an error" in done.stderr
            assert "Traceback" not in done.stderr
            before, already = remembered(workspace), len(server.asked)
            assert before
            found = examine(server, workspace)
            assert not before & set(questions(server, already))
            whole = examine(server, tmp_path / "whole")
        assert predictions(found) == predictions(whole)

    @pytest.mark.skipif(os.geteuid() != 0, reason="to mount a file system takes root")
    def test_a_file_system_without_room(self, tmp_path):
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], capture_output=True
        )
        if mounted.returncode:
            pytest.skip("this machine lets nobody mount")
        try:
            with Server(by_question) as server:
                done = subprocess.run(
                    command(server, small / "ws", "--quiet"), capture_output=True, text=True, timeout=120
                )
                assert done.returncode in (1, 2), done.stderr
                assert "Traceback" not in done.stderr
                shutil.copytree(small / "ws", tmp_path / "ws")
                before, already = remembered(tmp_path / "ws"), len(server.asked)
                found = examine(server, tmp_path / "ws")
                assert not before & set(questions(server, already))
                whole = examine(server, tmp_path / "whole")
            assert predictions(found) == predictions(whole)
        finally:
            subprocess.run(["umount", "-l", str(small)], check=False)


def test_weights_trained_again_in_place_miss_the_memory(workspace, tmp_path):
    """The same folder, the same names, other weights: what the old ones said is not taken for theirs."""
    import torch
    from safetensors.torch import load_file, save_file

    from snellen.models.pico import WEIGHTS

    folder = tmp_path / "mine"
    shutil.copytree(WEIGHTS / "llava", folder)

    def look():
        return snellen.run(
            model=f"hf:{folder}", data="chart:shapes?n=28&size=48", protocol="closed-set?rounds=1"
        )

    first = look()
    assert look().id == first.id
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = next(key for key in weights if "lm_head" in key or "embed_tokens" in key)
    weights[name] = weights[name] + torch.full_like(weights[name], 0.25) * torch.randn_like(weights[name])
    stamp = file.stat()
    save_file(weights, file, {"format": "pt"})
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    second = look()
    assert second.id != first.id
    assert second.metrics.items_per_second is not None  # the model was asked
    assert list(second.predictions["answers"]) != list(first.predictions["answers"])
