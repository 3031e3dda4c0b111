"""Hosted models: what is sent, and who looks on."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from PIL import Image as pillow

import snellen
from asking import answers, model_at, question
from snellen.errors import BadOption, Unsupported
from snellen.images import Image, encode
from snellen.images.sending import as_sent
from snellen.models.base import Limits
from snellen.models.remote.wire import exhausted, retry_after
from snellen.testing import Server, fault
from snellen.types import Decoding, Outcome, Request, ask

pytestmark = pytest.mark.usefixtures("impatient")


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
