"""Models behind an address, against a real server that errs on demand."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import math
import random
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow

import snellen
from asking import answers, model_at, question
from snellen.errors import BadOption, MissingExtra, ModelError, Stopped, Unsupported
from snellen.images import Image, encode
from snellen.images.sending import as_sent
from snellen.models.base import MODELS, Limits
from snellen.models.remote.concurrency import Concurrency
from snellen.models.remote.prices import Prices
from snellen.models.remote.providers import PROVIDERS
from snellen.models.remote.rate import PerMinute
from snellen.models.remote.replies import (
    continuation_scores,
    next_token_scores,
    others_are_negligible,
    prompt_tokens,
    read_reply,
)
from snellen.models.remote.retry import RequestError, RetryPolicy
from snellen.models.remote.wire import exhausted, parse, retry_after
from snellen.runs.plan import Plan
from snellen.runs.rescore import rescore
from snellen.storage.store import Store
from snellen.testing import Server, completion, fault
from snellen.types import Decoding, Kind, Message, Outcome, Request, ask

pytestmark = pytest.mark.usefixtures("impatient")


class TestConcurrency:
    """The limit on requests under way, with real tasks (see test_pacing for how it finds its height)."""

    @given(st.integers(1, 6), st.integers(0, 2**32))
    def test_no_more_under_way_than_allowed_and_none_is_forgotten(self, most, seed):
        pace = Concurrency(most, first=3)
        rng = random.Random(seed)
        under_way, seen, done = 0, [], []

        async def one(number):
            nonlocal under_way
            async with pace.slot():
                under_way += 1
                seen.append(under_way)
                try:
                    for _ in range(rng.randrange(3)):
                        await asyncio.sleep(0)
                finally:
                    under_way -= 1
            done.append(number)
            pace.succeeded(0.0)

        async def go():
            tasks = [asyncio.create_task(one(i)) for i in range(20)]
            await asyncio.sleep(0)
            given_up = rng.sample(tasks, 4)
            for task in given_up:
                task.cancel()
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)

        asyncio.run(go())
        assert max(seen) <= most
        assert pace.under_way == 0
        assert len(done) >= 16

    def test_stopped_it_lets_nobody_in(self):
        async def go():
            pace = Concurrency(1)
            async with pace.slot():
                waiting = asyncio.create_task(pace.slot().__aenter__())
                await asyncio.sleep(0)
                pace.stop()
                with pytest.raises(Stopped):
                    await waiting
            with pytest.raises(Stopped):
                await pace.slot().__aenter__()

        asyncio.run(go())

    def test_so_many_a_minute_are_spread_evenly(self):
        async def go():
            rate = PerMinute(60 * 50)
            began = time.monotonic()
            return [time.monotonic() - began + rate.turn() for _ in range(11)]

        turns = asyncio.run(go())
        assert all(turn == pytest.approx(0.02 * i, abs=0.01) for i, turn in enumerate(turns))

    def test_stopped_it_waits_for_no_turn(self):
        """Requests that wait their turn in a minute are let go at once when the run is stopped."""

        async def go(server):
            model = model_at(server, requests_per_minute=6)
            async with model.connected():
                asked = asyncio.create_task(model.respond([question(f"{i}?") for i in range(5)]))
                await asyncio.sleep(0.3)
                model.stop()
                began = time.monotonic()
                with pytest.raises(Stopped):
                    await asked
                return time.monotonic() - began

        with Server() as server:
            assert asyncio.run(go(server)) < 2
            assert len(server.asked) == 1


def weighing(**likely):
    """A completion that tells how likely these next tokens were."""
    top = [{"token": token, "logprob": math.log(p)} for token, p in likely.items()]
    data = completion("whatever")
    data["choices"][0]["logprobs"] = {"content": [{"top_logprobs": top}]}
    return data


class TestReplies:
    @pytest.mark.parametrize(
        ("data", "outcome", "text", "thinking"),
        [
            (completion("star"), Outcome.OK, "star", ""),
            (completion(None), Outcome.UNPARSED, "", ""),
            (completion("  \n"), Outcome.UNPARSED, "  \n", ""),
            (completion(None, reasoning="five points"), Outcome.UNPARSED, "", "five points"),
            (completion(None, finish="content_filter: hate"), Outcome.REFUSED, "", ""),
            (completion("I", finish="model_length"), Outcome.TRUNCATED, "I", ""),
            (
                completion(
                    "Here are my reasoning steps:\nfive\n[BEGIN FINAL RESPONSE]star[END FINAL RESPONSE]"
                ),
                Outcome.OK,
                "star",
                "five\n",
            ),
            (
                completion("Here are my reasoning steps:\nA star? No", finish="length"),
                Outcome.TRUNCATED,
                "",
                "A star? No",
            ),
            (completion("I", finish="length"), Outcome.TRUNCATED, "I", ""),
            (completion(None, refusal="I won't."), Outcome.REFUSED, "", ""),
            (completion("st", finish="content_filter"), Outcome.REFUSED, "st", ""),
            (completion("st", finish="SAFETY"), Outcome.REFUSED, "st", ""),
            (completion("star", reasoning_content="five points"), Outcome.OK, "star", "five points"),
            (completion("star", reasoning="five points"), Outcome.OK, "star", "five points"),
            (completion("<think>five</think>star"), Outcome.OK, "star", "five"),
            (completion("five</think>star"), Outcome.OK, "star", "five"),
            (completion("<think>fi", finish="length"), Outcome.TRUNCATED, "", "fi"),
            (
                completion(
                    [  # type: ignore[arg-type]  # parts in the place of a text
                        {"type": "thinking", "thinking": [{"type": "text", "text": "five"}]},
                        {"type": "text", "text": "star"},
                    ]
                ),
                Outcome.OK,
                "star",
                "five",
            ),
        ],
    )
    def test_outcomes_and_thinking(self, data, outcome, text, thinking):
        reply = read_reply(data)
        assert (reply.outcome, reply.text, reply.thinking) == (outcome, text, thinking)
        assert (reply.prompt_tokens, reply.completion_tokens) == (100, 5)
        assert bool(reply.reason) == (outcome is not Outcome.OK)

    @pytest.mark.parametrize(
        "data", [{}, {"choices": []}, {"choices": None}, {"choices": [3]}, {"choices": [{"message": None}]}]
    )
    def test_what_is_no_answer(self, data):
        with pytest.raises(RequestError) as failed:
            read_reply(data)
        assert failed.value.again

    def test_what_a_server_says_besides_is_bounded(self):
        data = completion("star", model="m" * 9999)
        data["usage"] = {
            "prompt_tokens": 10**30,
            "completion_tokens": -1,
            "details": {"planted-key-1234": 3, "x": math.inf, "y": 1e400},
        }
        reply = read_reply(data)
        assert (reply.prompt_tokens, reply.completion_tokens) == (0, 0)
        assert "usage" not in reply.meta
        assert len(json.dumps(dict(reply.meta))) < 500

    @pytest.mark.parametrize(
        "data",
        [
            {"error": "model not found"},
            {"detail": "model not found"},
            {"error": {"message": "model not found"}},
        ],
    )
    def test_a_server_s_words_are_kept(self, data):
        with pytest.raises(RequestError, match="model not found"):
            read_reply(data)

    @pytest.mark.parametrize("finish", ["error", "abort", "insufficient_system_resource", "f" * 9999])
    def test_an_end_that_nobody_knows_is_an_error(self, finish):
        with pytest.raises(RequestError, match="the answer ended by") as failed:
            read_reply(completion("sta", finish=finish))
        assert failed.value.again
        assert failed.value.billed
        assert len(str(failed.value)) < 100

    def test_an_error_within_a_choice(self):
        data = completion("")
        data["choices"][0]["error"] = {"code": 502, "message": "Provider returned error"}
        with pytest.raises(RequestError, match="502 Provider returned error") as failed:
            read_reply(data)
        assert failed.value.unavailable

    def test_the_first_choice_is_that_of_index_0(self):
        data = completion("star")
        second = {"index": 1, "message": {"content": "ring"}, "finish_reason": "stop"}
        data["choices"].insert(0, second)
        assert read_reply(data).text == "star"

    @pytest.mark.parametrize(
        "body",
        [
            json.dumps(completion("étoile"), ensure_ascii=False).encode("latin-1"),
            json.dumps(completion("étoile")).encode("utf-8-sig"),
            b"data: " + json.dumps(completion("étoile")).encode() + b"\n\ndata: [DONE]\n\n",
            b": keep-alive\r\n\r\n"
            b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "\xc3\xa9t"}}]}'
            b'\r\n\r\ndata: {"choices": [{"index": 1, "delta": {"content": "x"}}]}'
            b'\r\n\r\ndata: {"choices": [{"delta": {"content": "oile"}, "finish_reason": "stop"}]}'
            b'\r\n\r\ndata: {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 5}}\r\n\r\n'
            b"data: [DONE]\r\n\r\n",
        ],
        ids=["latin-1", "byte order mark", "one event", "many events"],
    )
    def test_forms_of_a_body(self, body):
        reply = read_reply(parse(body))
        assert (reply.text, reply.outcome, reply.prompt_tokens) == ("étoile", Outcome.OK, 100)

    def test_an_error_in_a_stream(self):
        with pytest.raises(RequestError, match="busy") as failed:
            read_reply(parse(b'data: {"error": {"message": "busy", "code": 503}}\n\n'))
        assert failed.value.unavailable

    def test_usage_in_detail_and_the_model_that_answered_are_kept(self):
        data = completion("star", model="served-2026")
        data["usage"]["completion_tokens_details"] = {"reasoning_tokens": 3, "audio_tokens": 0}
        assert read_reply(data).meta["usage"] == {"completion_tokens.reasoning_tokens": 3}
        assert read_reply(data).meta["model"] == "served-2026"

    def test_the_likeliest_next_tokens(self):
        data = weighing(**{"Yes": 0.5, " yes": 0.25, "No": 0.125, "Maybe": 0.1})
        scores = next_token_scores(data, ("Yes", "yes", "No", "no"))
        assert [math.exp(s.value) for s in scores] == pytest.approx([0.5, 0.25, 0.125, 0])
        with pytest.raises(RequestError, match="no logprobs"):
            next_token_scores(completion("Yes"), ("Yes",))
        data["choices"][0]["logprobs"]["content"][0]["top_logprobs"][2]["logprob"] = None
        assert next_token_scores(data, ("No",))[0].value == -math.inf
        with pytest.raises(RequestError, match="no log-probability of token 2"):
            prompt_tokens({"prompt_logprobs": [None, {"2": {"logprob": None}}]})

    def test_continuations_begin_where_prompts_part(self):
        bare = [("1", math.nan), ("2", -1.0), ("3", -1.0)]
        names = [[*bare[:2], ("7", -0.5), ("8", -0.25)], [*bare[:2], ("7", -0.5)], [*bare, ("9", -3.0)]]
        scores = continuation_scores(bare, names)
        assert [(s.value, s.tokens) for s in scores] == [(-0.75, 2), (-0.5, 1), (-4.0, 2)]

    def test_patience_as_servers_ask_for_it(self):
        assert retry_after({"retry-after": "7"}) == 7
        assert retry_after({"retry-after": "0.5"}) == 0.5
        assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
        assert retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) == pytest.approx(
            30, abs=2
        )
        assert retry_after({"retry-after": formatdate(time.time() - 30, usegmt=True)}) == 0
        assert retry_after({"retry-after": "soon"}) is None
        assert retry_after({}) is None


FINE = json.dumps(completion("star"))
#: What another try mends, and how many tries the server sees; the rows of docs/reliability.md.
MENDED = {
    "408": (fault.status(408), 2),
    "409": (fault.status(409), 2),
    "429": (fault.status(429), 2),
    "429, Retry-After": (fault.status(429, retry_after=0.2), 2),
    "500": (fault.status(500), 2),
    "503": (fault.status(503, retry_after=0), 2),
    "529": (fault.status(529), 2),
    "reset before the answer": (fault.reset(), 2),
    "reset in the answer": (fault.reset(b'{"choices": [{"mess'), 2),
    "hang": (fault.hang(5), 2),
    "slow drip": (fault.drip(FINE, 0.05), 2),
    "truncated JSON": (fault.body(FINE[:50]), 2),
    "no JSON": (fault.body(b"<html>Bad gateway</html>", kind="text/html"), 2),
    "no object": (fault.body(b"[]"), 2),
    "empty body": (fault.body(b""), 2),
    "no UTF-8": (fault.body(b"\xff\xfe{"), 2),
    "no choices": (fault.body({"choices": []}), 2),
    "an error with status 200": (fault.body({"error": {"message": "overloaded", "code": 503}}), 2),
    "an end that nobody knows": (fault.body(completion("sta", finish="abort")), 2),
    "an error within a choice": (
        fault.body({"choices": [{"error": {"code": 502, "message": "x"}, "message": {"content": ""}}]}),
        2,
    ),
    "a code in a text": (fault.body({"code": "InternalError", "message": "x"}), 2),
    "another content type": (fault.body(FINE, kind="text/plain"), 1),
}
#: What no other try would mend, the outcome, and words of its reason.
FINAL = {
    "400": (fault.status(400, "no such parameter"), Outcome.ERROR, "400 no such parameter"),
    "413": (fault.status(413, "too large"), Outcome.ERROR, "max_side"),
    "422": (fault.status(422, "unprocessable"), Outcome.ERROR, "422"),
    "redirection": (fault.status(301), Outcome.ERROR, "base_url"),
    "a flood": (fault.flood(10 * 2**20), Outcome.ERROR, "more than 8,388,608 bytes"),
    "an error of 400 with status 200": (
        fault.body({"error": {"message": "no such image", "code": 400}}),
        Outcome.ERROR,
        "no such image",
    ),
    "filtered before the model": (
        fault.status(400, "jailbreak", error="content_filter"),
        Outcome.REFUSED,
        "jailbreak",
    ),
    "filtered answer": (
        fault.body(completion("", finish="content_filter")),
        Outcome.REFUSED,
        "content_filter",
    ),
    "refusal": (fault.body(completion(None, refusal="I can't help.")), Outcome.REFUSED, "I can't help."),
    "cut off": (fault.body(completion("st", finish="length")), Outcome.TRUNCATED, "max_tokens"),
}


class TestFaults:
    @pytest.mark.parametrize("name", MENDED)
    def test_what_another_try_mends(self, name):
        wrong, tries = MENDED[name]
        with Server(faults=[wrong]) as server:
            (reply,) = answers(model_at(server, timeout=0.7), question())
        assert (reply.outcome, reply.text) == (Outcome.OK, "star"), reply.reason
        assert len(server.asked) == tries

    @pytest.mark.parametrize("name", FINAL)
    def test_what_no_other_try_would_mend(self, name):
        wrong, outcome, words = FINAL[name]
        with Server(faults=[None, wrong]) as server:
            model = model_at(server)
            first, second = answers(model, question(color="red"), question(color="blue"))
        assert sorted([first.outcome, second.outcome]) == sorted([Outcome.OK, outcome])
        assert any(words in reply.reason for reply in (first, second))
        assert len(server.asked) == 2

    def test_ids_that_repeat(self):
        """A server that calls all its answers alike: nothing hangs on what it calls them."""
        with Server(lambda asked: {**completion(asked.text), "id": "the same"}) as server:
            replies = answers(model_at(server), *[question(f"{i}?") for i in range(9)])
        assert [reply.text for reply in replies] == [f"{i}?" for i in range(9)]

    def test_a_server_that_asks_for_no_patience_at_all(self):
        """Five a second, and ``Retry-After: 0`` to all others: tries are spread all the same."""
        seen: list[Any] = []

        def busy(number):
            now = time.monotonic()
            seen[:] = [moment for moment in seen if now - moment < 0.2]
            if len(seen) >= 2:
                return fault.status(429, "busy", retry_after=0)
            seen.append(now)
            return None

        with Server(faults=busy) as server:
            model = model_at(server, tries=999)
            replies = answers(model, *[question(f"{i}?") for i in range(20)])
        assert {reply.outcome for reply in replies} == {Outcome.OK}

    @pytest.mark.slow
    def test_waiting_for_a_turn_is_not_counted_as_time_to_answer(self):
        """A second try that must wait its turn still has its time."""
        with Server(faults=[fault.status(500)]) as server:
            model = model_at(server, requests_per_minute=60, total_timeout=1.2, timeout=1.1)
            replies = answers(model, *[question(f"{i}?") for i in range(3)])
        assert [reply.outcome for reply in replies] == [Outcome.OK] * 3

    def test_tries_are_bounded_in_number(self):
        with Server(faults=lambda _: fault.status(500, "no")) as server:
            (reply,) = answers(model_at(server, tries=3), question())
        assert (reply.outcome, reply.reason) == (Outcome.ERROR, "500 no")
        assert len(server.asked) == 3

    def test_tries_are_bounded_in_time(self):
        with Server(faults=lambda _: fault.hang(5)) as server:
            began = time.monotonic()
            (reply,) = answers(model_at(server, timeout=0.3, total_timeout=0.8, tries=99), question())
        assert time.monotonic() - began < 3
        assert reply.outcome is Outcome.ERROR
        assert "no answer within" in reply.reason

    def test_a_server_that_asks_for_more_patience_than_there_is(self):
        with Server(faults=lambda _: fault.status(429, "quota used up", retry_after=3600)) as server:
            began = time.monotonic()
            (reply,) = answers(model_at(server), question())
        assert time.monotonic() - began < 3
        assert reply.reason == "429 quota used up"
        assert len(server.asked) == 1

    def test_retry_after_holds_up_all(self):
        """Requests that come meanwhile wait as well."""
        arrivals = []

        def answer(asked):
            arrivals.append(time.monotonic())
            return "star"

        with Server(answer, faults=[fault.status(429, retry_after=1)]) as server:
            began = time.monotonic()
            answers(model_at(server, requests_per_minute=60 * 4), *[question(f"{i}?") for i in range(4)])
        assert min(arrivals) - began >= 1

    def test_as_many_under_way_as_the_limits_say(self):
        async def slow(asked):
            await asyncio.sleep(0.02)
            return "star"

        for most, expected in ((3, 3), (None, 16)):
            with Server(slow) as server:
                model = model_at(server)
                model.limits = Limits(max_concurrency=most)
                answers(model, *[question(f"{i}?") for i in range(30)])
            assert server.most <= (expected if most else 64)
            assert server.most >= min(expected, 10)

    @pytest.mark.parametrize("code", [401, 403, 404])
    def test_what_is_hopeless_stops_at_once(self, code):
        told = pytest.raises(Stopped, match=f"{code} no way.* (OPENAI_API_KEY|the model 'any')")
        with Server(faults=lambda _: fault.status(code, "no way")) as server, told:
            answers(model_at(server), *[question(f"{i}?") for i in range(40)])
        assert len(server.asked) <= 2 * 16

    def test_too_many_failures_in_a_row_stop_the_run(self):
        with Server(faults=lambda n: None if n < 5 else fault.status(400, "no")) as server:
            model = model_at(server, max_consecutive_failures=7)
            model.limits = Limits(max_concurrency=1)
            with pytest.raises(Stopped, match="after 7 failures in a row; the last: 400 no"):
                answers(model, *[question(f"{i}?") for i in range(40)])
        assert 12 <= len(server.asked) <= 13  # another may have begun when the last one failed

    def test_failures_among_answers_do_not(self):
        with Server(faults=fault.script(None, fault.status(400))) as server:
            model = model_at(server, max_consecutive_failures=2)
            model.limits = Limits(max_concurrency=1)
            replies = answers(model, *[question(f"{i}?") for i in range(20)])
        assert [r.outcome for r in replies].count(Outcome.ERROR) == 10

    @given(st.lists(st.sampled_from([*MENDED, *FINAL, "fine"]), min_size=1, max_size=6))
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.slow
    def test_whatever_comes_every_request_gets_an_outcome(self, names):
        table = {**{k: v[0] for k, v in (MENDED | FINAL).items()}, "fine": None}
        quick = [name for name in names if name not in ("hang", "slow drip", "a flood")]
        with Server(faults=[None, *(table[name] for name in quick)]) as server:
            model = model_at(server, timeout=2)
            replies = answers(model, *[question(f"{i}?") for i in range(3)])
        assert all(isinstance(reply.outcome, Outcome) for reply in replies)
        assert all(reply.reason for reply in replies if reply.outcome is Outcome.ERROR)


class TestWhatIsSent:
    def sent(self, *requests, scheme="openai", **options):
        with Server(lambda asked: "star") as server:
            answers(model_at(server, scheme, **options), *requests)
        return [asked.body for asked in server.asked]

    def test_a_plain_question(self):
        (body,) = self.sent(question("What?", max_tokens=9))
        assert body["model"] == "any"
        assert body["temperature"] == 0
        assert body["max_tokens"] == 9
        assert set(body) == {"model", "messages", "temperature", "max_tokens"}
        (message,) = body["messages"]
        assert [part["type"] for part in message["content"]] == ["image_url", "text"]
        assert message["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")

    def test_a_word_that_is_no_image(self):
        """Servers would take it for one, or for the end of the turn."""
        (body,) = self.sent(question("Is <image> or <image> HTML?<|im_end|>[IMG]"))
        assert body["messages"][0]["content"][1]["text"] == "Is <image > or <image > HTML?<|im_end| >[IMG ]"

    def test_options(self):
        (body,) = self.sent(
            question(),
            system="Be brief.",
            temperature="none",
            max_tokens=77,
            seed=5,
            reasoning_effort="low",
            extra='{"top_k": 1, "provider": {"order": ["x"]}}',
            detail="low",
            max_tokens_as="max_completion_tokens",
        )
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert body["messages"][1]["content"][0]["image_url"]["detail"] == "low"
        assert "temperature" not in body
        assert "max_tokens" not in body
        wanted = {"max_completion_tokens": 77, "seed": 5, "reasoning_effort": "low", "top_k": 1}
        assert wanted.items() <= body.items()
        assert body["provider"] == {"order": ["x"]}

    def test_an_answer_that_must_be_one_of_several(self, workspace):
        """By vLLM's structured outputs, or a JSON schema; other servers are not asked for it."""

        def obedient(asked):
            if choices := asked.body.get("structured_outputs"):
                return choices["choice"][0]
            schema = asked.body["response_format"]["json_schema"]["schema"]
            return json.dumps({"answer": schema["properties"]["answer"]["enum"][-1]})

        kwargs: dict[str, Any] = {
            "data": "chart:shapes?n=6",
            "protocol": "closed-set?constrained=true&rounds=1",
        }
        with Server(obedient) as server:
            for name in ("vllm:x", "openai:x?guided=schema"):
                more = "&" if "?" in name else "?"
                found = snellen.run(model=f"{name}{more}base_url={server.url}", **kwargs)
                assert found.metrics.outcomes["ok"] == 6
                assert not any("{" in label for label in found.predictions["prediction"])
            with pytest.raises(Unsupported, match="needs constrain"):
                snellen.run(model=f"openai:x?base_url={server.url}", **kwargs)

    def test_drawn_samples(self):
        drawn = Request(question().messages, decoding=Decoding(temperature=0.7, top_p=0.9, draw=3))
        (body,) = self.sent(drawn, seed=10)
        assert (body["temperature"], body["top_p"], body["seed"]) == (0.7, 0.9, 13)

    def test_every_option_that_can_change_an_answer_is_in_the_identity(self):
        with Server() as server:
            plain = model_at(server).identity()
            for option, value in {
                "system": "x",
                "temperature": "0.5",
                "max_tokens": "9",
                "seed": "1",
                "reasoning_effort": "low",
                "extra": '{"a": 1}',
                "detail": "low",
                "max_side": "100",
                "max_tokens_as": "max_completion_tokens",
                "scores": "top",
            }.items():
                assert model_at(server, **{option: value}).identity() != plain, option
            for option in (
                "timeout",
                "total_timeout",
                "tries",
                "max_consecutive_failures",
                "requests_per_minute",
                "price_in",
            ):
                more = {"price_out": "1"} if option == "price_in" else {}
                assert model_at(server, **{option: "5"}, **more).identity() == plain, option

    def jpeg(self, size=(64, 48), **more):
        buffer = io.BytesIO()
        pillow.effect_noise(size, 90).convert("RGB").save(buffer, "JPEG", **more)
        return buffer.getvalue()

    def image_sent(self, data, **options):
        image = Image(lambda: data, "x")
        with Server(lambda asked: "star") as server:
            (reply,) = answers(model_at(server, **options), ask((image,), "?"))
        assert reply.outcome is Outcome.OK, reply.reason
        (found,) = server.asked[0].images
        return found

    def test_original_bytes_where_they_can_be(self):
        for data in (
            self.jpeg(),
            encode(pillow.new("RGB", (9, 9))),
        ):
            assert self.image_sent(data) == data

    def test_encoded_again_where_they_cannot(self):
        turned = pillow.Exif()
        turned[0x0112] = 6
        found = pillow.open(io.BytesIO(self.image_sent(self.jpeg(exif=turned))))
        assert (found.format, found.size) == ("JPEG", (48, 64))
        assert found.getexif().get(0x0112, 1) == 1
        small = pillow.open(io.BytesIO(self.image_sent(self.jpeg(), max_side=32)))
        assert small.size == (32, 24)
        tiff = pillow.open(io.BytesIO(self.image_sent(encode(pillow.new("RGB", (9, 9), "red"), "TIFF"))))
        assert (tiff.format, tiff.getpixel((4, 4))) == ("PNG", (255, 0, 0))

    def test_an_image_too_large_for_servers_is_shrunk(self):
        image = Image(lambda: self.jpeg((800, 600), quality=95), "x")
        media, data = as_sent(image, {"JPEG"}, max_bytes=60_000)
        assert media == "image/jpeg"
        assert len(data) <= 60_000
        assert pillow.open(io.BytesIO(data)).size[0] < 800


class TestWhoLooksOn:
    def test_requests_can_be_logged(self, monkeypatch, tmp_path):
        monkeypatch.setenv("OPENAI_API_KEY", "planted-key-1234")
        monkeypatch.setenv("SNELLEN_LOG_REQUESTS", str(tmp_path / "log.jsonl"))
        told = fault.status(500, "no: planted-key-1234")
        with Server(faults=[told]) as server:
            answers(model_at(server, api_key_env="OPENAI_API_KEY"), question())
        text = (tmp_path / "log.jsonl").read_text()
        failed, good = map(json.loads, text.splitlines())
        assert (failed["status"], good["status"]) == (500, 200)
        assert good["request"]["messages"][0]["content"][0]["image_url"]["url"].startswith("<image/png, ")
        assert "star" in good["answer"]
        assert good["seconds"] < 5
        assert "planted" not in text
        assert (tmp_path / "log.jsonl").stat().st_mode & 0o077 == 0
        monkeypatch.setenv("SNELLEN_LOG_REQUESTS", str(tmp_path / "none" / "log.jsonl"))
        with Server() as server, pytest.raises(BadOption, match="--log-requests .* cannot be written"):
            answers(model_at(server), question())

    def test_the_command_line_s_options(self, workspace, tmp_path):
        log = tmp_path / "log.jsonl"
        with Server(faults=[None, fault.status(500, "oh dear")]) as server:
            words = ["--model", f"openai:x?base_url={server.url}", "--data", "chart:shapes", "--limit", "3"]
            words += ["--protocol", "closed-set?rounds=1", "--quiet", "--verbose", "--log-requests", str(log)]
            command = [sys.executable, "-m", "snellen.cli", "run", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "500 oh dear; retrying" in done.stderr
        assert len(log.read_text().splitlines()) == len(server.asked) == 4

    def test_a_limit_that_is_used_up_is_waited_for(self):
        """Before a 429 says so."""
        arrivals = []

        def answer(asked):
            arrivals.append(time.monotonic())
            return "star"

        spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "700ms"}
        with Server(answer, headers=spent) as server:
            model = model_at(server)
            model.limits = Limits(max_concurrency=1)
            answers(model, *[question(f"{i}?") for i in range(3)])
        assert all(b - a >= 0.69 for a, b in itertools.pairwise(arrivals))

    @pytest.mark.parametrize(
        ("reset", "seconds"),
        [
            ("1s", 1),
            ("6m0s", 120),
            ("1m30.5s", 90.5),
            ("20ms", 0.02),
            ("7", 7),
            ("soon", 0),
            ("1764230400", 0),
        ],
    )
    def test_moments_of_limits(self, reset, seconds):
        left = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": reset}
        assert exhausted(left) == pytest.approx(seconds)
        assert exhausted({**left, "x-ratelimit-remaining-tokens": "1"}) == 0
        assert retry_after(left) == (pytest.approx(seconds) if seconds else None)

    def test_the_moment_of_anthropic_s_limit(self):
        then = datetime.now(UTC) + timedelta(seconds=30)
        left = {"anthropic-ratelimit-requests-remaining": "0"}
        left["anthropic-ratelimit-requests-reset"] = then.isoformat(timespec="seconds").replace("+00:00", "Z")
        assert exhausted(left) == pytest.approx(30, abs=2)

    def test_a_proxy_is_used(self, monkeypatch):
        """It gets requests for a host that does not exist."""
        with Server() as server:
            monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
            monkeypatch.setenv("NO_PROXY", "")
            (reply,) = answers(MODELS.make("openai:x?base_url=http://no-such-host.invalid/v1"), question())
            assert reply.text == "star"
            model = "endpoint:http://no-such-host.invalid/v1"
            (reply,) = answers(
                MODELS.make(model), replace(question(), kind=Kind.SCORE, continuations=("star",))
            )
        assert [asked.headers["Host"] for asked in server.asked[:2]] == ["no-such-host.invalid"] * 2


class TestNames:
    def test_shorthands_are_addresses_and_keys(self, monkeypatch):
        for scheme, provider in PROVIDERS.items():
            monkeypatch.setenv(provider.key, "planted-key-0000")
            own = {} if provider.address else {"base_url": "https://x.openai.azure.com/openai/v1"}
            model = MODELS.make(f"{scheme}:some/model", own)
            assert model.identity()["address"] == provider.address or own["base_url"]
            assert model.name == f"{scheme}:some/model"
            model.check()

    def test_the_key_goes_to_the_server_and_nowhere_else(self, monkeypatch):
        monkeypatch.setenv("MY_KEY", "planted-key-1234")
        with Server() as server:
            answers(model_at(server, api_key_env="MY_KEY"), question())
        assert server.asked[0].headers["Authorization"] == "Bearer planted-key-1234"

    def test_headers_come_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("MY_TOKEN", "planted-token-99")
        with Server() as server:
            model = model_at(server, **{"header.X-Team": "MY_TOKEN", "header.api-key": "MY_TOKEN"})
            answers(model, question())
            assert "planted" not in json.dumps(dict(model.identity()))
        assert server.asked[0].headers["X-Team".lower()] == "planted-token-99"
        assert server.asked[0].headers["api-key"] == "planted-token-99"
        with pytest.raises(ModelError, match="export NO_SUCH_TOKEN"):
            MODELS.make("openai:x?header.X-Team=NO_SUCH_TOKEN&base_url=http://localhost:1/v1").check()
        with pytest.raises(BadOption, match=r"the NAME of an environment variable"):
            MODELS.make("openai:x", {"header.X-Team": "sk-planted-key"})
        with pytest.raises(BadOption, match=r"header.NAME=VALUE"):
            MODELS.make("openai:x", {"header": "X-Team"})
        with pytest.raises(BadOption, match="has no option 'system.x'"):
            MODELS.make("openai:x", {"system.x": "y"})

    def test_azure_s_deployments(self, monkeypatch):
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "planted-key-0000")
        with pytest.raises(BadOption, match="azure: needs an address: base_url="):
            MODELS.make("azure:x")
        with Server() as server:
            azure = model_at(server, "azure", api_version="2026-10-01")
            assert {Kind.CHOOSE, Kind.CONSTRAIN} <= azure.kinds
            answers(azure, question())
        assert server.asked[0].query == {"api-version": "2026-10-01"}

    @pytest.mark.parametrize(
        ("address", "message"),
        [
            ("http://h/v1/chat/completions", r"set -M base_url=http://h/v1$"),
            (
                "https://h/openai/deployments/d/chat/completions?api-version=2026-10-01",
                r"set -M base_url=https://h/openai/deployments/d -M api_version=2026-10-01",
            ),
            (
                "https://h/openai?api-version=2026-10-01",
                r"-M base_url=https://h/openai -M api_version=2026-10-01",
            ),
        ],
    )
    def test_an_address_that_is_too_long(self, address, message):
        with pytest.raises(BadOption, match=message):
            MODELS.make("openai:x", {"base_url": address})

    def test_an_address_without_v1(self):
        with Server() as server:
            model = MODELS.make("openai:x", {"base_url": server.url.removesuffix("/v1")})
            with pytest.raises(Stopped, match=r"serves the model 'x'.* /v1"):
                answers(model, question())

    def test_a_command_prints_the_key(self, monkeypatch, tmp_path):
        """Keys that expire: asked for again when the server refuses one."""
        count = tmp_path / "count"
        script = (
            f"import pathlib; p = pathlib.Path({str(count)!r}); n = len(p.read_text()) if p.exists() else 0; "
        )
        script += "p.write_text('x' * (n + 1)); print(f'planted-token-{n}')"
        monkeypatch.setenv("OPENAI_API_KEY_COMMAND", shlex.join([sys.executable, "-c", script]))

        def expired(number):
            old = server.asked[number].headers["Authorization"] == "Bearer planted-token-0"
            return fault.status(401, "expired") if old and number > 2 else None

        with Server(faults=expired) as server:
            model = model_at(server)
            model.limits = Limits(max_concurrency=1)
            replies = answers(model, *[question(f"{i}?") for i in range(6)])
        assert {reply.outcome for reply in replies} == {Outcome.OK}
        assert server.asked[-1].headers["Authorization"] == "Bearer planted-token-1"
        assert "planted" not in json.dumps(dict(model.identity()))
        monkeypatch.setenv("OPENAI_API_KEY_COMMAND", "no-such-command")
        with pytest.raises(ModelError, match="OPENAI_API_KEY_COMMAND failed"):
            MODELS.make("openai:x").check()

    def test_images_as_providers_take_them(self, monkeypatch):
        webp = Image(lambda: encode(pillow.new("RGB", (600, 300), "red"), "WEBP"), "x")
        with Server() as server:
            answers(model_at(server), ask((webp,), "?"))
            answers(model_at(server, "vllm"), ask((webp,), "?"))
            answers(model_at(server, image_format="png", max_side=100), ask((webp,), "?"))
            groq = model_at(server, "groq")
            (reply,) = answers(groq, ask((webp,) * 6, "?"))
        formats = [pillow.open(io.BytesIO(asked.images[0])) for asked in server.asked]
        assert [(f.format, f.size) for f in formats] == [
            ("JPEG", (600, 300)),
            ("WEBP", (600, 300)),
            ("PNG", (100, 50)),
        ]
        assert "6 images, but the server takes at most 5" in reply.reason

    def test_a_key_that_no_request_can_carry(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "planted-key-1234\n")
        MODELS.make("openai:x").check()  # a line break at its end is none of it
        monkeypatch.setenv("OPENAI_API_KEY", "plantéd\nkey-1234")
        with pytest.raises(ModelError, match="OPENAI_API_KEY contains characters that no key has"):
            MODELS.make("openai:x").check()

    def test_a_package_that_is_not_there(self, monkeypatch, workspace):
        monkeypatch.setitem(__import__("sys").modules, "openai", None)
        with Server() as server, pytest.raises(MissingExtra, match=r"pip install 'snellen\[api\]'"):
            snellen.run(model=f"openai:x?base_url={server.url}", data="chart:shapes?n=3")
        assert not (workspace / "snellen.db").exists()

    def test_no_key(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "x")
        with pytest.raises(ModelError, match="export NO_SUCH_KEY"):
            MODELS.make("openai:x?api_key_env=NO_SUCH_KEY").check()
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(ModelError, match="export OPENAI_API_KEY"):
            MODELS.make("openai:x").check()
        MODELS.make("openai:x?base_url=http://localhost:1/v1").check()  # a server of one's own may want none
        MODELS.make("ollama:x").check()

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("openai:", "needs a model"),
            (
                "openai:x?base_url=localhost:8000/v1",
                "base_url=localhost:8000/v1 is not allowed.*http://HOST/PATH",
            ),
            ("openai:x?base_url=ftp://localhost/v1", "http://HOST/PATH"),
            ("openai:x?base_url=http://me:hunter2@localhost/v1", "api_key_env"),
            ("openai:x?base_url=http://[::1/v1", "not a URL"),
            ("openai:x?extra=[1]", "a JSON object"),
            ("openai:x?max_side=0", "max_side=0 is not allowed; allowed: 1 or more"),
            ("openai:x?max_bytes=0", "max_bytes=0 is not allowed; allowed: 1 or more"),
            ('openai:x?extra={"key": "sk-planted-0000000000000000"}', "looks like a key"),
            ("endpoint:http://x/y?query=api_key=planted1", "looks like a key"),
            ("openai:x?timeout=nan", "timeout=nan is not allowed"),
            ("openai:x?price_in=nan&price_out=1", "0 or more"),
            ("endpoint:http://x/y?price=-1", "0 or more"),
            ("openai:x?extra={", "a JSON object"),
            ("openai:x?max_tokens=0", "1 or more"),
            ("openai:x?timeout=0", "timeout=0 is not allowed"),
            ("openai:x?price_in=1", "set together"),
            ("openai:x?price_in=-1&price_out=1", "0 or more"),
            ("openai:x?api_key_env=sk-planted-0000000000000000", "NAME of an environment variable"),
            ("endpoint:nowhere", "http://HOST/PATH"),
            ("endpoint:http://x/y?labels=[", "JMESPath"),
            ("endpoint:http://x/y?body={}", "it must contain"),
            ("endpoint:http://x/y?body={", "allowed: JSON"),
        ],
    )
    def test_mistakes(self, name, message):
        with pytest.raises(BadOption, match=message) as found:
            MODELS.make(name)
        assert "hunter2" not in str(found.value)
        assert "planted" not in str(found.value)

    def test_what_it_cannot_do_is_refused_with_a_way_out(self, workspace):
        with Server() as server, pytest.raises(Unsupported, match="supports: binary.*vllm:NAME"):
            Plan(models=[f"openai:x?base_url={server.url}"], data=["chart:shapes?n=3"], protocols=["rank"])


class TestPrices:
    def test_from_a_file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert Prices.find("openai:gpt-4o", None, None) is None
        (tmp_path / "prices.toml").write_text('["openai:gpt-4o"]\nin = 2.5\nout = 10\n')
        assert Prices.find("openai:gpt-4o", None, None) == Prices(2.5, 10)
        assert Prices.find("openai:other", None, None) is None
        assert Prices.find("openai:gpt-4o", 1.0, 2.0) == Prices(1, 2)
        with (tmp_path / "prices.toml").open("a") as file:
            file.write("cached = 1.25\n")
        assert Prices.find("openai:gpt-4o", None, None) == Prices(2.5, 10, 1.25)
        with pytest.raises(BadOption, match="price_cached=-1 is not allowed"):
            Prices.find("openai:gpt-4o", 1.0, 2.0, -1.0)
        (tmp_path / "prices.toml").write_text('["openai:gpt-4o"]\nin = 2.5\n')
        with pytest.raises(BadOption, match="in = and out ="):
            Prices.find("openai:gpt-4o", None, None)
        monkeypatch.setenv("SNELLEN_PRICES", str(tmp_path / "none.toml"))
        with pytest.raises(BadOption, match="no such file"):
            Prices.find("openai:gpt-4o", None, None)


class TestScores:
    def weigh(self, answer, samples):
        """A run that weighs yes against no, and the server that answered."""
        with Server(answer) as server:
            found = snellen.run(
                model=f"openai:x?base_url={server.url}&scores=top",
                data=f"chart:shapes?n={samples}",
                protocol="binary?read=likelihood",
            )
        return found, server

    def test_yes_and_no_by_the_likeliest_next_tokens(self, workspace):
        """As sure as the model says it is, without reading a word."""

        def answer(asked):
            sure = 0.8 if "the star" in asked.text else 0.3
            return weighing(Yes=sure, No=0.95 - sure, Perhaps=0.05)

        found, server = self.weigh(answer, 28)
        assert found.metrics.outcomes["ok"] == 28
        assert set(found.predictions["prediction"]) == {"star"}
        body = server.asked[0].body
        assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 1)

    def test_neither_yes_nor_no_is_no_guess(self, workspace):
        found, _ = self.weigh(lambda asked: weighing(Hm=1.0), 2)
        assert found.metrics.outcomes["unparsed"] == 2

    @pytest.mark.parametrize(
        ("template", "needed"),
        [([5, 6], True), ([1, 5, 6], False), ([2, 5, 6], False)],
        ids=["none in the template", "one in the template", "none from the tokenizer"],
    )
    def test_a_first_token_that_only_the_tokenizer_adds(self, template, needed):
        """It must be there, and only once."""

        def tokenize(asked):
            added = asked.body.get("add_special_tokens") and template[0] != 2
            return {"tokens": [1, *template] if added else template}

        with Server(endpoints={"/tokenize": tokenize}) as server:
            model = model_at(server, "vllm")
            answers(model, question())
        assert model.metadata()["add_special_tokens"] is needed
        assert server.asked[0].body.get("add_special_tokens", False) is needed
        with Server() as server:
            answers(model_at(server, "vllm"), question())
            answers(model_at(server), question())
        assert all("add_special_tokens" not in asked.body for asked in server.asked)

    def test_short_answers_take_one_request_of_vllm(self):
        request = replace(question("?"), kind=Kind.SCORE, continuations=("A", "B"))
        with Server(lambda asked: weighing(**{"A": 0.7, " A": 0.1, " B": 0.2})) as server:
            (reply,) = answers(model_at(server, "vllm"), request)
        assert [math.exp(score.value) for score in reply.scores] == pytest.approx([0.7, 0.2])
        assert len(server.asked) == 1

    @pytest.mark.parametrize(
        ("likely", "enough"),
        [
            ({"Yes": 0.9, "No": 0.1}, True),  # "yes" can have nothing
            ({"Yes": 0.9, "No": 0.05}, False),  # "yes" may be the rest
            ({"Yes": 0.9, "No": 0.09, "y": 0.01}, False),  # or begin with "y"
            ({"Yes": 0.9, "yes": 0.01, "No": 0.05}, True),  # all are seen
        ],
    )
    def test_when_the_top_tokens_suffice(self, likely, enough):
        names = ("Yes", "yes", "No")
        data = weighing(**likely)
        assert others_are_negligible(data, names, next_token_scores(data, names, merge=max)) is enough

    def test_a_server_that_gives_none_stops_the_run_with_advice(self, workspace):
        told = pytest.raises(Stopped, match="no prompt_logprobs, as vLLM does.*closed-set")
        with Server() as server, told:
            snellen.run(model=f"vllm:x?base_url={server.url}", data="chart:shapes?n=40", protocol="rank")

    @pytest.mark.parametrize("prefix", ["", "The photo features a"])
    @pytest.mark.slow
    def test_likelihoods_over_http_are_those_in_process(self, workspace, prefix):
        """The server's side is transformers' own forward pass over the prompt that its template renders."""
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from snellen.models.pico import WEIGHTS

        folder = WEIGHTS / "llava"
        processor = AutoProcessor.from_pretrained(folder)
        network = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()

        def answer(asked):
            turns = [
                {
                    "role": m["role"],
                    "content": [
                        {"type": "image"} if p["type"] == "image_url" else p
                        for p in (
                            m["content"]
                            if isinstance(m["content"], list)
                            else [{"type": "text", "text": m["content"]}]
                        )
                    ],
                }
                for m in asked.body["messages"]
            ]
            goes_on = bool(asked.body.get("continue_final_message"))
            text = processor.apply_chat_template(
                turns, add_generation_prompt=not goes_on, continue_final_message=goes_on
            )
            picture = pillow.open(io.BytesIO(asked.images[0]))
            inputs = processor(images=[picture], text=text, return_tensors="pt")
            with torch.inference_mode():
                logits = network(**inputs).logits[0].double().log_softmax(-1)
            ids = inputs["input_ids"][0].tolist()
            told = [None] + [
                {str(i): {"logprob": float(logits[at, i]), "rank": 1}} for at, i in enumerate(ids[1:])
            ]
            return {**completion("x"), "prompt_logprobs": told}

        protocol = f"rank?prefix={prefix}"
        with Server(answer) as server:
            far = snellen.run(
                model=f"vllm:x?base_url={server.url}", data="chart:shapes?n=6", protocol=protocol
            )
        near = snellen.run(model="pico:llava?prefix=off", data="chart:shapes?n=6", protocol=protocol)
        assert list(far.predictions["ranking"]) == list(near.predictions["ranking"])
        for mine, theirs in zip(far.predictions["metrics"], near.predictions["metrics"], strict=True):
            assert list(mine.values()) == pytest.approx(list(theirs.values()), abs=1e-3)

    def test_where_one_name_fails_the_others_are_given_up(self, workspace):
        """Nothing goes on behind the back of a request that came to nothing."""

        async def slow(asked):
            await asyncio.sleep(0.3)
            return {**completion("x"), "prompt_logprobs": [None, {"1": {"logprob": -1.0}}]}

        def faults(number):
            return fault.status(400, "no") if number == 3 else None

        async def go(server):
            model = model_at(server, "vllm")
            async with model.connected():
                names = tuple(f"name {i}" for i in range(10))
                request = ask((), "?", kind=Kind.SCORE, continuations=names)
                (reply,) = await model.respond([request])
                return reply, model._pace.under_way

        with Server(slow, faults) as server:
            reply, under_way = asyncio.run(go(server))
        assert (reply.outcome, reply.reason) == (Outcome.ERROR, "400 no")
        assert under_way == 0

    @pytest.mark.parametrize("score", ["NaN", "Infinity", "1e999"])
    def test_a_score_that_is_no_number_is_an_error(self, anywhere, score):
        """And takes none of its neighbors along."""

        def answer(asked):
            told = score if asked.number % 2 else "0.5"
            return json.loads('[{"label": "ring", "score": ' + told + "}]")

        with Server(answer) as server:
            found = snellen.run(model=f"endpoint:{server.url}", data="chart:shapes?n=6", protocol="rank")
        assert found.metrics.outcomes["ok"] == found.metrics.outcomes["error"] == 3
        assert found.first_error() == "the model returned a score that is not a number"


class TestEndpoint:
    @pytest.fixture
    def tagger(self):
        def answer(asked):
            assert asked.path == "/v1"
            return {
                "outputs": [
                    {"data": {"concepts": [{"name": "Star", "value": 0.9}, {"name": "ring", "value": 0.4}]}}
                ]
            }

        with Server(answer) as server:
            yield server

    def test_labels_and_scores_by_path(self, workspace, tagger, monkeypatch):
        monkeypatch.setenv("TAGGER_KEY", "planted-key-5678")
        found = snellen.run(
            model=f"endpoint:{tagger.url}",
            model_options={
                "labels": "outputs[0].data.concepts[].name",
                "scores": "outputs[0].data.concepts[].value",
                "body": '{"inputs": [{"data": {"image": {"base64": "{image}"}}}]}',
                "api_key_env": "TAGGER_KEY",
                "scheme": "Key",
                "price": "1.2",
            },
            data="chart:shapes?n=5",
            protocol="rank",
        )
        assert set(found.predictions["prediction"]) == {"star"}
        assert found.predictions["ranking"][0] == ["star", "ring"]
        assert found.metrics.cost == pytest.approx(5 * 1.2 / 1000)
        again = snellen.open_run(rescore(Store(), found.id, {"normalize": "tokens"}))
        assert again.metrics.cost == found.metrics.cost
        assert tagger.asked[0].headers["Authorization"] == "Key planted-key-5678"

    def test_bytes_as_they_are(self, workspace):
        with Server(lambda asked: [{"label": "ring", "score": 0.5}]) as server:  # type: ignore[arg-type, return-value]
            found = snellen.run(model=f"endpoint:{server.url}", data="chart:shapes?n=2", protocol="rank")
        assert set(found.predictions["prediction"]) == {"ring"}
        assert server.asked[0].body["raw"][:4] == b"\x89PNG"
        assert server.asked[0].headers["Content-Type"] == "image/png"

    def test_paths_that_find_nothing(self, workspace, tagger):
        with pytest.raises(Stopped, match="find no two equally long lists"):
            snellen.run(model=f"endpoint:{tagger.url}", data="chart:shapes?n=30", protocol="rank")

    @pytest.mark.parametrize("name", ["500", "429, Retry-After", "reset in the answer", "no JSON"])
    def test_faults(self, workspace, name):
        with Server(lambda a: [{"label": "ring", "score": 0.5}], faults=[MENDED[name][0]]) as server:  # type: ignore[arg-type, return-value]
            found = snellen.run(model=f"endpoint:{server.url}", data="chart:shapes?n=2", protocol="rank")
        assert found.metrics.outcomes["ok"] == 2


def test_a_retry_policy_is_checked():
    with pytest.raises(BadOption, match="tries=0"):
        RetryPolicy(tries=0)


def test_a_conversation_in_words():
    with Server(lambda asked: "star") as server:
        turns = (
            Message("system", ("s",)),
            Message("user", ("u",)),
            Message("assistant", ("a",)),
            Message("user", ("v",)),
        )
        (reply,) = answers(model_at(server), Request(turns))
    assert [m["role"] for m in server.asked[0].body["messages"]] == ["system", "user", "assistant", "user"]
    assert reply.prompt == "system: s\nuser: u\nassistant: a\nuser: v"


def test_only_what_continues_answers_is_asked_to():
    begun = Request((*question().messages, Message("assistant", ("It is a",))))
    with Server() as server:
        (reply,) = answers(model_at(server), begun)
        assert "only vLLM" in reply.reason
        answers(model_at(server, "vllm"), begun)
    assert server.asked[-1].body["continue_final_message"] is True
