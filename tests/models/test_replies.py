"""Hosted models: how many requests are under way, and how replies are read."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asking import answers, model_at, question
from replying import weighing
from snellen.errors import Stopped
from snellen.models.remote.concurrency import Concurrency
from snellen.models.remote.rate import PerMinute
from snellen.models.remote.replies import (
    continuation_scores,
    next_token_scores,
    prompt_tokens,
    read_reply,
)
from snellen.models.remote.retry import RequestError
from snellen.models.remote.wire import parse, retry_after
from snellen.testing import Server, completion
from snellen.types import Message, Outcome, Request

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
