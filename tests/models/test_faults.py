"""What servers say when they do not answer, what is made of it, and models that think too long."""

from __future__ import annotations

from typing import Any

import pytest

from asking import answers, model_at, question
from snellen.errors import Stopped
from snellen.models.base import MODELS, Limits
from snellen.models.remote import faults
from snellen.models.remote.base import HOPELESS
from snellen.models.remote.faults import Action, Filtered, error_in
from snellen.models.remote.reasoning import thinks
from snellen.testing import Server, completion, fault

pytestmark = pytest.mark.usefixtures("impatient")


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


#: What servers say, and what is to be done; the rows of docs/reliability.md.
SAID: dict[str, tuple[int | None, Any, Action]] = {
    "OpenAI, no quota": (
        429,
        error("You exceeded your current quota", type="insufficient_quota", code="insufficient_quota"),
        Action.STOP,
    ),
    "Gemini, a limit per minute": (
        429,
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota",
                    "status": "RESOURCE_EXHAUSTED",
                }
            }
        ],
        Action.RETRY,
    ),
    "OpenAI, a limit": (
        429,
        error("slow down", code="rate_limit_exceeded"),
        Action.RETRY,
    ),
    "OpenRouter, no credit": (402, error("Insufficient credits", code=402), Action.STOP),
    "Anthropic, no credit": (
        400,
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "credit balance is too low"},
        },
        Action.STOP,
    ),
    "DashScope, no credit": (400, {"code": "Arrearage", "message": "Access denied"}, Action.STOP),
    "DeepSeek, no credit": (402, error("Insufficient Balance"), Action.STOP),
    "OpenRouter, a filter": (
        403,
        {
            "error": {
                "code": 403,
                "message": "no",
                "metadata": {"reasons": ["violence"], "flagged_input": "…"},
            }
        },
        Action.REFUSED,
    ),
    "Azure, a filter": (
        400,
        error("The response was filtered", code="content_filter"),
        Action.REFUSED,
    ),
    "OpenAI, a filter": (
        400,
        error("Your input image was flagged by our safety system", code="invalid_image"),
        Action.REFUSED,
    ),
    "DashScope, a filter": (
        400,
        error("Input data may contain…", code="data_inspection_failed"),
        Action.REFUSED,
    ),
    "a wrong key": (
        401,
        error("Incorrect API key", code="invalid_api_key"),
        Action.STOP_FIRST,
    ),
    "Gemini, a wrong key": (
        400,
        [error("API key not valid.", code=400, status="INVALID_ARGUMENT")],
        Action.STOP_FIRST,
    ),
    "a forbidden model": (
        403,
        error("no access", type="permission_error"),
        Action.STOP_FIRST,
    ),
    "vLLM, an unknown model": (
        404,
        {"object": "error", "message": "The model does not exist", "type": "NotFoundError", "code": 404},
        Action.STOP_FIRST,
    ),
    "a long prompt": (
        400,
        {
            "error": {
                "message": "This model's maximum context length is 4096",
                "code": "context_length_exceeded",
            }
        },
        Action.REJECT,
    ),
    "a large body": (413, "<html>413 Request Entity Too Large</html>", Action.REJECT),
    "Anthropic, overloaded": (
        529,
        error("Overloaded", type="overloaded_error"),
        Action.WAIT,
    ),
    "Gemini, overloaded": (
        503,
        [error("The model is overloaded", code=503, status="UNAVAILABLE")],
        Action.WAIT,
    ),
    "a proxy, the server being away": (502, "<html>Bad gateway</html>", Action.WAIT),
    "TGI, overloaded": (429, {"error": "Model is overloaded", "error_type": "overloaded"}, Action.RETRY),
    "OpenAI, a failure": (
        500,
        error("The server had an error", type="server_error"),
        Action.RETRY,
    ),
    "vLLM, a bad request": (
        400,
        {"object": "error", "message": "top_logprobs too large", "type": "BadRequestError", "code": 400},
        Action.REJECT,
    ),
    "200 with a bare code": (None, {"code": 503, "message": "no worker"}, Action.WAIT),
    "200 with a code in a text": (None, {"code": "500", "message": "x"}, Action.RETRY),
    "200 with a private code": (
        None,
        {"code": 20015, "message": "invalid parameter"},
        Action.REJECT,
    ),
    "200 with a code in words": (None, {"code": "InternalError", "message": "x"}, Action.RETRY),
    "200, busy": (None, {"msg": "Server busy, try again later", "code": 1}, Action.RETRY),
    "200, an error as a text": (None, {"error": "model not loaded"}, Action.REJECT),
}


class TestTable:
    @pytest.mark.parametrize("name", SAID)
    def test_what_is_done(self, name):
        status, body, action = SAID[name]
        said, codes = error_in(body) or (body, [])
        found = faults.fault(status, said, codes)
        assert str(found)
        assert isinstance(found, Filtered) == (action is Action.REFUSED)
        assert found.stop == (action is Action.STOP)
        assert found.unavailable == (action is Action.WAIT)
        assert found.again == (action in (Action.WAIT, Action.RETRY))
        assert (found.status in HOPELESS) == (action is Action.STOP_FIRST) or action is Action.REFUSED

    def test_a_long_message_is_cut(self):
        assert len(str(faults.fault(400, "image " * 2**20))) < 600

    def test_every_row_is_met(self):
        assert {action for _, _, action in SAID.values()} == set(Action)

    def test_an_answer_is_no_error(self):
        assert error_in(completion("star")) is None
        assert error_in({**completion("star"), "message": "fine", "error": None}) is None

    def test_no_credit_stops_though_others_were_answered(self):
        broke = fault.status(429, "You exceeded your current quota", error="insufficient_quota")
        with Server(faults=lambda n: broke if n > 5 else None) as server:
            with pytest.raises(Stopped, match="no credit or quota left"):
                answers(model_at(server), *[question(f"{i}?") for i in range(40)])
            assert len(server.asked) <= 6 + 16

    def test_a_filter_is_no_matter_of_keys(self):
        """The first image is not let through, the others are."""
        with Server(
            faults=[fault.status(403, "Your chosen model requires moderation and your input was flagged")]
        ) as server:
            replies = answers(model_at(server), *[question(f"{i}?") for i in range(4)])
        assert sorted(reply.outcome for reply in replies) == ["ok", "ok", "ok", "refused"]


class TestThinking:
    def test_a_run_that_thinks_to_its_end_is_stopped_with_the_option_to_set(self):
        empty = completion("", finish="length", reasoning="Let me see")
        with Server(lambda asked: empty) as server:
            with pytest.raises(Stopped, match="8 of the first 8 .* max_tokens=32 .* -M max_tokens=4096"):
                answers(model_at(server), *[question(f"{i}?") for i in range(100)])
            assert len(server.asked) < 40

    def test_a_few_empty_answers_stop_nothing(self):
        def some(asked):
            return completion("", finish="length") if asked.number % 3 == 0 else "star"

        with Server(some) as server:
            replies = answers(model_at(server), *[question(f"{i}?") for i in range(40)])
        assert len(replies) == 40

    def test_what_is_refused_is_left_out(self):
        def picky(asked):
            if "temperature" in asked.body:
                return "error"
            return "star" if "max_completion_tokens" in asked.body else "error"

        def wrong(number):
            body = server.asked[number].body
            if "temperature" in body:
                return fault.status(400, "Unsupported value: 'temperature' does not support 0.")
            if "max_tokens" in body:
                return fault.status(400, "Unsupported parameter: 'max_tokens' is not supported.")
            return None

        with Server(picky, faults=wrong) as server:
            model = model_at(server)
            model.limits = Limits(max_concurrency=1)
            replies = answers(model, *[question(f"{i}?") for i in range(9)])
        assert {reply.text for reply in replies} == {"star"}
        assert len(server.asked) == 11
        assert model.metadata()["refused_parameters"] == ["max_tokens", "temperature"]
        assert server.asked[-1].body["max_completion_tokens"] == 32

    @pytest.mark.parametrize(
        ("name", "temperature", "room"),
        [("gpt-4o", 0.0, None), ("gpt-5", None, 4096), ("o3", None, 4096), ("gpt-5-chat-latest", 0.0, None)],
    )
    def test_known_families(self, name, temperature, room):
        settings = MODELS.make(f"openai:{name}").identity()
        assert (settings.get("temperature"), settings.get("max_tokens")) == (temperature, room)

    @pytest.mark.parametrize("name", ["gemini-2.5-flash", "Qwen/Qwen3-VL-8B-Thinking", "x/deepseek-r1"])
    def test_names_of_thinkers(self, name):
        assert thinks(name)
        assert not thinks(name.replace("2.5", "2.0").replace("Thinking", "Instruct").replace("r1", "v3"))
