"""Nothing is lost: kills, interrupts, full disks, lost databases, budgets; and secrets stay secret."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
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
from helpers import Scripted, until
from snellen import cli
from snellen._util.redaction import guard, redact
from snellen.errors import BadOption, Stopped, UsageError
from snellen.models.remote.chat import ChatModel
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan
from snellen.runs.rescore import rescore
from snellen.runs.resume import plan_of
from snellen.runs.run import Run, open_run
from snellen.storage.store import Store
from snellen.testing import ReceivedRequest, Server, completion, fault, first_name

DATA = "chart:shapes?n=56&size=32"
PROTOCOL = "closed-set?rounds=3"


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]


def by_question(asked):
    """An answer that depends on all of the question and on nothing else."""
    digest = hashlib.sha256(asked.text.encode() + b"".join(asked.images)).hexdigest()
    names = asked.text.partition("{")[2].partition("}")[0].split(", ")
    return names[int(digest[:6], 16) % len(names)]


def of(server, **options):
    return "openai:any?" + "&".join(f"{k}={v}" for k, v in {"base_url": server.url, **options}.items())


def examine(server, workspace=None, protocol=PROTOCOL, data=DATA, **more):
    return snellen.run(model=of(server), data=data, protocol=protocol, workspace=workspace, **more)


def predictions(found):
    """The predictions table, byte for byte, and the answers behind it."""
    frame = found.predictions.drop(columns="latencies")
    return json.dumps(frame.to_dict("records"), sort_keys=True, default=str)


def command(server, workspace, *more, options=""):
    name = of(server) + options
    words = ["--model", name, "--data", DATA, "--protocol", PROTOCOL, "--workspace", str(workspace), *more]
    return [sys.executable, "-m", "snellen.cli", "run", *words]


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
    from snellen.testing import first_name

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


class TestStops:
    def test_failures_end_a_run_with_what_it_has(self, workspace):
        with Server(by_question, faults=lambda n: None if n < 60 else fault.status(400, "no more")) as server:
            with pytest.raises(Stopped, match="after 20 failures in a row; the last: 400 no more"):
                examine(server, max_concurrency=4)
            found = open_run()
            assert found.status == "stopped"
            assert 0 < found.metrics.outcomes["ok"] <= 20
            assert found.metrics["accuracy"] is not None
            assert "failures in a row" in found.manifest.stopped
            server._fault = lambda n: None
            already = len(server.asked)
            again = examine(server)
            assert len(server.asked) - already == 56 * 3 - 60
        assert again.id == found.id
        assert (again.status, again.metrics.n) == ("finished", 56)
        assert "stopped" not in again.manifest

    def test_errors_are_outcomes_and_asked_again(self, anywhere):
        with Server(
            by_question, faults=fault.script(None, None, None, None, fault.status(400, "no"))
        ) as server:
            found = examine(server, protocol="closed-set?rounds=1")
            lost = found.metrics.outcomes["error"]
            assert lost == 11
            assert found.first_error() == "400 no"
            rows = found.predictions.query("outcome == 'error'")
            assert set(rows["prediction"]) == {""}
            server._fault = lambda n: None
            already = len(server.asked)
            again = plan_of(Store(), found.id).run()[0]
            assert len(server.asked) - already == lost
        assert again.id == found.id
        assert again.metrics.outcomes["error"] == 0

    def test_a_budget_is_never_exceeded(self, workspace):
        options = {"price_in": 1000.0, "price_out": 1000.0}  # 105 tokens each: 0.105 dollars
        with Server(by_question) as server:
            with pytest.raises(Stopped, match=r"budget is used up: \$\d\.\d+ of --max-cost 5 "):
                examine(server, model_options=options, max_cost=5.0)
            asked = len(server.asked)
            found = open_run()
            assert 0 < asked * 0.105 <= 5
            assert found.status == "stopped"
            assert found.metrics.cost <= 5
            whole = examine(server, model_options=options, max_cost=100.0)
            assert len(server.asked) == 56 * 3
        assert whole.metrics.cost == pytest.approx(56 * 3 * 0.105)
        assert asked * 0.105 > 2  # and it is used

    def test_a_server_that_does_not_say_what_it_took_costs_what_it_may(self, workspace):
        def answer(asked):
            return {**completion(by_question(asked)), "usage": None}

        options = {"price_in": 1000.0, "price_out": 1000.0}
        with Server(answer) as server:
            with pytest.raises(Stopped, match="budget is used up"):
                examine(server, model_options=options, max_cost=5.0)
            assert 0 < len(server.asked) <= 5 / 0.255  # an image alone is taken for 255 tokens

    def test_how_a_server_counts_is_found_out_by_one_request(self, workspace):
        """Images that it counts a thousand times as dearly as others do: no burst before that is known."""

        def answer(asked):
            usage = {"prompt_tokens": 100_000, "completion_tokens": 1}
            return {**completion(by_question(asked)), "usage": usage}

        with Server(answer) as server:
            with pytest.raises(Stopped, match="budget is used up"):
                examine(server, model_options={"price_in": 2.5, "price_out": 10.0}, max_cost=0.9)
            assert len(server.asked) == 3  # 0.25 dollars each

    def test_what_a_stopped_command_has_is_shown(self, workspace, tmp_path, capsys, monkeypatch):
        with Server(by_question) as server:
            words = [
                "run",
                "--model",
                of(server, system="a"),
                "--model",
                of(server, system="b"),
                "--data",
                DATA,
            ]
            words += ["--protocol", "closed-set?rounds=1", "-M", "price_in=1000", "-M", "price_out=1000"]
            words += ["--max-cost", "9", "--output", str(tmp_path / "out"), "--json"]
            monkeypatch.setattr("sys.argv", ["snellen", *words])
            with pytest.raises(SystemExit) as stop:
                cli.main()
        out, err = capsys.readouterr()
        assert stop.value.code == 1
        first, second = json.loads(out)["runs"]
        assert (first["status"], first["metrics"]["n"]) == ("finished", 56)
        assert second["status"] == "stopped"
        assert 0 < second["metrics"]["n"] < 56
        assert len(list((tmp_path / "out").glob("results_*.json"))) == 2
        assert "budget is used up" in err
        assert (
            f"to resume all runs. Resume this run with: snellen resume {second['id']} --max-cost 9.0" in err
        )

    def test_after_a_fresh_run_only_resuming_is_named(self, workspace, capsys, monkeypatch):
        with Server(by_question, faults=lambda n: fault.status(401, "no") if n > 60 else None) as server:
            words = [
                "run",
                "--model",
                of(server, max_consecutive_failures=3),
                "--data",
                DATA,
                "--protocol",
                PROTOCOL,
                "--fresh",
            ]
            monkeypatch.setattr("sys.argv", ["snellen", *words])
            with pytest.raises(SystemExit):
                cli.main()
        out, err = capsys.readouterr()
        assert "closed-set" in out  # the table of what there is
        assert re.search(r"stopped at \d+ of 56", out)
        assert "same command" not in err
        assert "Resume this run with: snellen resume" in err

    def test_one_budget_for_all_models(self, workspace):
        with Server(by_question) as server:
            plan = Plan(
                models=[of(server, system="a"), of(server, system="b")],
                data=[DATA],
                protocols=["closed-set?rounds=1"],
                model_options={"price_in": 1000, "price_out": 0},
                max_cost=9.0,
            )
            with pytest.raises(Stopped):
                plan.run()
            assert len(server.asked) * 0.1 <= 9
            systems = {asked.body["messages"][0]["content"] for asked in server.asked}
        assert systems == {"a", "b"}

    @pytest.mark.parametrize(
        "more",
        [
            {"prompt_tokens_details": {"cached_tokens": 80}},  # OpenAI, vLLM, Mistral …
            {"prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20},  # DeepSeek
            {"cached_tokens": 80},  # Moonshot
        ],
    )
    def test_cached_tokens_cost_what_they_cost(self, workspace, more):
        def answers(asked):
            usage = {"prompt_tokens": 100, "completion_tokens": 5, **more}
            return {"choices": [{"message": {"content": "star"}, "finish_reason": "stop"}], "usage": usage}

        prices = {"price_in": 2.0, "price_out": 10.0, "price_cached": 0.5}
        with Server(answers) as server:
            run = examine(server, protocol="closed-set?rounds=1", model_options=prices, limit=28)
        assert run.metrics.cached_tokens == 28 * 80 == run.predictions["cached_tokens"].sum()
        assert run.metrics.cost == pytest.approx(28 * (20 * 2 + 80 * 0.5 + 5 * 10) / 1e6)
        again = Run(run.store, rescore(run.store, run.id))
        assert again.metrics.cost == pytest.approx(run.metrics.cost)

    def test_the_cost_is_shown_wherever_a_run_is(self, workspace, capsys, monkeypatch):
        with Server(by_question) as server:
            found = examine(server, model_options={"price_in": 2.0, "price_out": 10.0}, limit=28)
            plain = snellen.run(model="pico:clip", data=DATA, protocol="rank", limit=28)
        cost = 28 * 3 * (100 * 2 + 5 * 10) / 1e6
        assert found.metrics.cost == pytest.approx(cost)
        assert plain.metrics.cost is None
        for words, told in (
            (["run", "--model", "pico:clip", "--data", DATA, "--protocol", "rank", "--limit", "28"], 0),
            (["resume", found.id], 1),
            (["show", found.id], 1),
            (["report", found.id, plain.id], 1),
            (["report", found.id, plain.id, "--format", "markdown"], 1),
        ):
            monkeypatch.setattr("sys.argv", ["snellen", *words])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert not stop.value.code
            shown = capsys.readouterr().out
            assert (f"{cost:.4f}" in shown) == bool(told), words
            assert ("cost" in shown) == bool(told) or "report" in words, words

    def test_a_budget_without_prices(self, workspace):
        with Server() as server, pytest.raises(BadOption, match="price_in= and price_out="):
            examine(server, max_cost=1.0)
        for name in ("max_cost", "max_concurrency"):
            for value in (0, "5", float("nan")):
                with pytest.raises(BadOption, match="above 0"):
                    snellen.run(model="pico:llava", data=DATA, **dict[str, Any]({name: value}))


class TestResume:
    def test_a_run_of_all_options(self, workspace, photos):
        with Server(by_question) as server:
            found = snellen.run(
                model=f"openai:any?base_url={server.url}",
                model_options={"seed": "3"},
                data=photos,
                protocol="closed-set",
                protocol_options={"rounds": 2},
                classes=("star", "ring", "cup"),
                per_class=2,
                seed=4,
                shuffle=True,
            )
            asked = len(server.asked)
            plan = plan_of(Store(), found.id)
            assert plan.run()[0].id == found.id
            assert len(server.asked) == asked

    def test_a_fresh_run(self, workspace):
        stop = [True]

        def sometimes(number):
            return fault.status(401, "key") if stop[0] and number >= 56 + 10 else None

        with Server(by_question, faults=sometimes) as server:
            first = examine(server, protocol="closed-set?rounds=1")
            with pytest.raises(Stopped):
                examine(
                    server,
                    protocol="closed-set?rounds=1",
                    fresh=True,
                    model_options={"max_consecutive_failures": 3},
                )
            stopped = open_run()
            assert stopped.id != first.id
            stop[0] = False
            already = len(server.asked)
            again = plan_of(Store(), stopped.id).run()[0]
            assert again.id == stopped.id
            assert len(server.asked) - already == 56 - 10

    def test_what_changed_since_is_named(self, workspace, photos, tmp_path):
        folder = tmp_path / "photos"
        shutil.copytree(photos, folder)
        with Server(by_question) as server:
            found = snellen.run(model=of(server), data=folder, protocol="closed-set?rounds=1")
            (folder / "star" / "0.png").unlink()
            with pytest.raises(UsageError, match="Cannot resume .*: the data changed since"):
                plan_of(Store(), found.id).run()

    def test_what_was_begun_with_objects(self, workspace):
        found = snellen.run(model=Scripted(lambda r: "star"), data=DATA, protocol="closed-set?rounds=1")
        with pytest.raises(UsageError, match="was started from Python with objects"):
            plan_of(Store(), found.id)


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


class TestSecrets:
    KEY = "planted-0123456789abcdef"

    def everything_under(self, folder):
        return b"".join(path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())

    def test_a_planted_key_is_nowhere(self, workspace, tmp_path, monkeypatch, capfd, caplog):
        """Not in the store, in reports, exports, logs or messages, though the server sends it back: in
        answers, refusals, thinking, errors, headers and addresses."""
        monkeypatch.setenv("MY_KEY", self.KEY)
        caplog.set_level(logging.DEBUG)

        def echo(asked):
            key = asked.headers["Authorization"].split()[-1]
            if asked.number % 4 == 0:
                text = f"{key} {by_question(asked)}"
                return completion(text, reasoning_content=f"the key is {key}", finish=key, model=f"m {key}")
            if asked.number % 4 == 1:
                return completion(None, refusal=f"not with {key}")
            return by_question(asked)

        def errs(number):
            return fault.status(400, f"Incorrect API key provided: {self.KEY}") if number % 4 == 3 else None

        with Server(echo, faults=errs) as server:
            words = command(server, workspace, options="&api_key_env=MY_KEY")[3:]
            monkeypatch.setattr("sys.argv", ["snellen", *words])
            with pytest.raises(SystemExit):
                cli.main()
            for more in (
                ["report", "@last", "-o", str(tmp_path / "r.html")],
                ["export", "@last", "-o", str(tmp_path / "r.jsonl")],
                ["show", "@last", "--prompts", "3"],
                ["show", "@last", "--json"],
            ):
                monkeypatch.setattr("sys.argv", ["snellen", *more])
                with pytest.raises(SystemExit):
                    cli.main()
        assert all(asked.headers["Authorization"] == f"Bearer {self.KEY}" for asked in server.asked)
        assert self.KEY.encode() not in self.everything_under(tmp_path)
        assert b"[redacted]" in self.everything_under(workspace)
        assert self.KEY not in "".join(capfd.readouterr())
        assert self.KEY not in caplog.text
        found = open_run()
        assert found.metrics.outcomes["error"] > 0
        assert "[redacted]" in found.first_error()

    def test_a_key_in_an_exception(self, workspace, monkeypatch, capsys):
        monkeypatch.setenv("MY_KEY", self.KEY)
        guard(self.KEY)

        def fail(*_, **__):
            raise BadOption(f"no such thing as {self.KEY} at https://me:{self.KEY}@example.com/v1")

        monkeypatch.setattr("snellen.runs.plan.Plan.__post_init__", fail)
        monkeypatch.setattr("sys.argv", ["snellen", "run", "--model", "x", "--data", "y", "--protocol", "z"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2
        assert self.KEY not in "".join(capsys.readouterr())

    @pytest.mark.parametrize("key", ["none", "EMPTY", "ollama", "not-needed", "lm-studio"])
    def test_what_servers_of_ones_own_take_for_a_key_changes_no_answer(self, workspace, monkeypatch, key):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with Server(lambda asked: f"It is {key} of these; a star.") as server:
            found = examine(server, protocol="closed-set?rounds=1", limit=2)
        assert set(found.predictions["answers"].str[0]) == {f"It is {key} of these; a star."}
        assert plan_of(Store(), found.id)

    @pytest.mark.parametrize(
        "address", ["postgresql+psycopg://me:hunter22@127.0.0.1:1/x", "mysql://me:hunter22@127.0.0.1/x"]
    )
    def test_a_database_s_password_is_never_shown(self, tmp_path, monkeypatch, capsys, address):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["snellen", "ls", "runs", "--workspace", address])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code in (1, 2)
        assert "hunter22" not in "".join(capsys.readouterr())
        assert not any("hunter22" in str(path) for path in tmp_path.rglob("*"))

    @pytest.mark.parametrize(
        "text",
        [
            "https://user:hunter2hunter2@example.com/v1",
            "Authorization: Bearer hunter2hunter2",
            "sk-hunter2hunter2hunter2",
            "hf_hunter2hunter2hunter2",
            "https://example.com/?api_key=hunter2hunter2&x=1",
            "password=hunter2hunter2",
        ],
    )
    def test_what_looks_like_a_secret(self, text):
        assert "hunter2" not in redact(text)

    @pytest.mark.parametrize(
        "text", ["hf-internal-testing/tiny-random-LlavaForConditionalGeneration", "a@b.c", "sk-8", "tokens=5"]
    )
    def test_what_does_not(self, text):
        assert redact(text) == text

    def test_no_address_in_data_or_answers_is_fetched(self, workspace, tmp_path):
        """A row whose image is an address is refused, and an answer that is one is text."""
        with Server(lambda asked: f"see http://127.0.0.1:{server._port}/secret.png") as server:
            (tmp_path / "rows.jsonl").write_text(
                json.dumps({"image": f"{server.url}/x.png", "label": "star"}) + "\n"
            )
            with pytest.raises(UsageError):
                snellen.run(model=of(server), data=f"jsonl:{tmp_path / 'rows.jsonl'}", protocol="closed-set")
            assert server.asked == []
            examine(server, protocol="closed-set?rounds=1", limit=3)
            assert {asked.path for asked in server.asked} == {"/v1/chat/completions"}

    def test_redirections_are_not_followed(self, workspace):
        with Server() as elsewhere, Server(faults=lambda _: redirect(elsewhere.url)) as server:
            with pytest.raises(Stopped, match="redirects to http://127.0.0.1"):
                examine(server)
            assert elsewhere.asked == []


def redirect(where):
    async def go(_):
        from aiohttp import web

        return web.Response(status=307, headers={"Location": f"{where}/chat/completions"})

    return go


def image_urls(asked: ReceivedRequest) -> list[str]:
    parts = asked.body["messages"][-1]["content"]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


class TestDryRun:
    def test_what_would_be_asked_is_what_is_asked(self, workspace, capsys, monkeypatch):
        with Server(first_name) as server:
            name = of(server, price_in="2.5", price_out="10")
            words = ["run", "--model", name, "--data", DATA, "--protocol", PROTOCOL, "--protocol", "binary"]
            encoded = []
            plain = ChatModel.encode
            monkeypatch.setattr(
                ChatModel, "encode", lambda self, image: encoded.append(image) or plain(self, image)
            )
            monkeypatch.setattr("sys.argv", ["snellen", *words, "--dry-run", "--json"])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert not stop.value.code
            assert server.asked == []
            assert not (workspace / "snellen.db").exists()
            several, early = json.loads(capsys.readouterr().out)["forecasts"]
            assert several["requests"] == [56 * 3, 56 * 3]
            assert early["requests"] == [56, 56 * 28]
            assert several["images"] == [168, 168]
            assert several["host"] == server.url.split("/")[2]
            assert len(encoded) == 2 * 28  # of every second sample, once for each protocol
            low, high = several["cost"]
            assert low == pytest.approx((several["tokens_in"][0] * 2.5 + 168 * 10) / 1e6)
            assert high == pytest.approx((several["tokens_in"][1] * 2.5 + 168 * 32 * 10) / 1e6)
            snellen.run(model=name, data=DATA, protocol=PROTOCOL)
            assert len(server.asked) == several["requests"][0]
            sent = sum(len(url) for asked in server.asked for url in image_urls(asked))
            assert several["image_bytes"][0] == pytest.approx(sent, rel=0.02)

    @pytest.mark.parametrize(
        ("model", "protocol", "requests", "out"),
        [
            ("openai:x?max_tokens=4000", "closed-set?rounds=2", [4, 4], [4, 16000]),
            ("vllm:x", "rank", [2 * 29, 2 * 29], [2 * 29, 2 * 29]),
            ("openai:x?scores=top", "binary?read=likelihood", [2, 2 * 28], [2, 2 * 28]),
        ],
    )
    def test_what_a_model_s_own_options_change(self, workspace, model, protocol, requests, out):
        (plain,) = Plan(
            models=[model], data=[DATA], protocols=[protocol], filters=Filters(limit=2)
        ).forecasts()
        assert list(plain.requests) == requests
        assert list(plain.tokens_out) == out
        name = f"{model}{'&' if '?' in model else '?'}system={'word ' * 400}"
        (longer,) = Plan(
            models=[name], data=[DATA], protocols=[protocol], filters=Filters(limit=2)
        ).forecasts()
        assert longer.tokens_in[0] == pytest.approx(plain.tokens_in[0] + requests[0] * 500, rel=0.01)
        assert longer.tokens_in[1] == pytest.approx(plain.tokens_in[1] + requests[1] * 500, rel=0.01)

    def test_it_needs_no_key(self, workspace, capsys, monkeypatch):
        words = ["run", "--model", "openai:gpt-4o", "--data", DATA, "--protocol", "closed-set", "--dry-run"]
        monkeypatch.setattr("sys.argv", ["snellen", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        assert "Nothing was sent" in capsys.readouterr().out
