"""Hosted models that fail: what is tried again, and what every request ends as."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asking import answers, model_at, question
from replying import MENDED
from snellen.errors import BadOption, Stopped
from snellen.models.base import Limits
from snellen.models.remote.retry import RetryPolicy
from snellen.testing import Server, completion, fault
from snellen.types import Message, Outcome, Request

pytestmark = pytest.mark.usefixtures("impatient")


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


def test_a_retry_policy_is_checked():
    with pytest.raises(BadOption, match="tries=0"):
        RetryPolicy(tries=0)


def test_only_what_continues_answers_is_asked_to():
    begun = Request((*question().messages, Message("assistant", ("It is a",))))
    with Server() as server:
        (reply,) = answers(model_at(server), begun)
        assert "only vLLM" in reply.reason
        answers(model_at(server, "vllm"), begun)
    assert server.asked[-1].body["continue_final_message"] is True
