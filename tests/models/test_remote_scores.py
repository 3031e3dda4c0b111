"""Hosted models that give log-likelihoods, and classifiers behind an address."""

from __future__ import annotations

import asyncio
import io
import json
import math
from dataclasses import replace

import pytest
from PIL import Image as pillow

import snellen
from asking import answers, model_at, question
from replying import MENDED, weighing
from snellen.errors import Stopped
from snellen.models.remote.replies import (
    next_token_scores,
    others_are_negligible,
)
from snellen.runs.rescore import rescore
from snellen.storage.store import Store
from snellen.testing import Server, completion, fault
from snellen.types import Kind, Outcome, ask

pytestmark = pytest.mark.usefixtures("impatient")


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
                return reply, model.in_flight

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
