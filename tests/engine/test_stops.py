"""What stops a run, what it costs until then, and what is said before it begins."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

import snellen
from served_runs import DATA, PROTOCOL, by_question, examine, of
from snellen import cli
from snellen.errors import BadOption, Stopped
from snellen.models.remote.chat import ChatModel
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan
from snellen.runs.rescore import rescore
from snellen.runs.resume import plan_of
from snellen.runs.run import Run, open_run
from snellen.storage.store import Store
from snellen.testing import ReceivedRequest, Server, completion, fault, first_name

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]


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
            server.fault = lambda n: None
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
            server.fault = lambda n: None
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
