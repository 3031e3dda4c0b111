"""Models that are asked by their providers' batches."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys

import pytest

import snellen
from asking import answers, model_at, question
from helpers import until
from snellen.errors import BadOption, Stopped
from snellen.models.base import MODELS
from snellen.models.remote.batch.ledger import Ledger
from snellen.models.remote.batch.model import BatchModel
from snellen.testing import Server, completion, fault

DATA = "chart:shapes?n=28&size=32"


def chosen(body):
    """A name that depends on all of the question, in the form of any of the providers."""
    content = body["messages"][-1]["content"]
    text = "".join(part.get("text", "") for part in content)
    images = "".join(
        part["image_url"]["url"].partition(",")[2] if "image_url" in part else part["source"]["data"]
        for part in content
        if part["type"] in ("image", "image_url")
    )
    names = text.partition("{")[2].partition("}")[0].split(", ")
    return names[hashlib.sha256((text + images).encode()).digest()[0] % len(names)]


class Provider(Server):
    """Takes batches in one of the providers' forms.

    Args:
        form: openai, mistral or anthropic.
        looks: how often a batch is looked at before it has ended; None: until :attr:`open` is set.
        result: changes an answer; returns a status and a body, or None for no answer at all.
        faults: of requests to submit a batch: after it has been taken ("lost"), or a fault instead.
    """

    def __init__(self, form="openai", looks=2, result=None, faults=()):
        batches = {"openai": "/v1/batches", "mistral": "/v1/batch/jobs", "anthropic": "/v1/messages/batches"}
        self.create = batches[form]
        super().__init__(
            lambda asked: chosen(asked.body),
            endpoints={
                "/v1/files": self._upload,
                "/v1/files/": self._content,
                self.create: self._batches,
                f"{self.create}/": self._batch,
            },
        )
        self.form, self.looks, self.result = form, looks, result or (lambda body: (200, self.answer(body)))
        self.faults = list(faults)
        self.files = {}
        self.taken = {}
        self.looked = {}
        self.open = False

    @staticmethod
    def answer(body):
        return completion(chosen(body))

    @property
    def requests(self):
        return [row for batch in self.taken.values() for row in batch["rows"]]

    def _upload(self, asked):
        lines = re.findall(rb'^\{"custom_id".*?\}(?=\r?$)', asked.body["raw"], re.MULTILINE)
        assert b"batch" in asked.body["raw"]
        name = f"file-{len(self.files)}"
        self.files[name] = [json.loads(line) for line in lines]
        return {
            "id": name,
            "object": "file",
            "bytes": 1,
            "created_at": 1,
            "filename": "x",
            "purpose": "batch",
        }

    def _content(self, asked):
        batch = asked.path.split("/")[3].removeprefix("out-")
        return b"\n".join(json.dumps(row).encode() for row in self._results(self.taken[batch]["rows"]))

    def _results(self, rows):
        for row in reversed(rows):
            body = row.get("body") or row["params"]
            if (result := self.result(body)) is None:
                continue
            status, answer = result
            if self.form != "anthropic":
                yield {"custom_id": row["custom_id"], "response": {"status_code": status, "body": answer}}
            elif status != 200:
                yield {"custom_id": row["custom_id"], "result": {"type": "errored", "error": answer}}
            else:
                choice = answer["choices"][0]
                message = {
                    "id": "msg",
                    "model": "scripted",
                    "content": [{"type": "text", "text": choice["message"]["content"]}],
                    "stop_reason": {"stop": "end_turn"}[choice["finish_reason"]],
                    "usage": {"input_tokens": 60, "cache_read_input_tokens": 40, "output_tokens": 5},
                }
                yield {"custom_id": row["custom_id"], "result": {"type": "succeeded", "message": message}}

    def _batches(self, asked):
        if asked.method == "GET":
            return {"data": [self._shown(name) for name in self.taken]}
        wrong = self.faults.pop(0) if self.faults else None
        if wrong not in (None, "lost"):
            return wrong
        body = asked.body
        if self.form == "anthropic":
            rows = body["requests"]
            assert asked.headers["anthropic-version"] == "2023-06-01"
        else:
            rows = self.files[body["input_file_id"] if self.form == "openai" else body["input_files"][0]]
            assert body["endpoint"] == "/v1/chat/completions"
        name = f"batch-{len(self.taken)}"
        self.taken[name] = {"rows": rows, "metadata": body.get("metadata")}
        return fault.reset() if wrong == "lost" else self._shown(name)

    def _batch(self, asked):
        name = asked.path.removeprefix(self.create).split("/")[1]
        if asked.path.endswith("/results"):
            return b"\n".join(json.dumps(row).encode() for row in self._results(self.taken[name]["rows"]))
        self.looked[name] = self.looked.get(name, 0) + 1
        return self._shown(name)

    def _shown(self, name):
        batch = self.taken[name]
        done = self.open if self.looks is None else self.looked.get(name, 0) > self.looks
        n = len(batch["rows"])
        if self.form == "anthropic":
            counts = {"processing": 0 if done else n, "succeeded": n if done else 0, "errored": 0}
            state = "ended" if done else "in_progress"
            made = "2099-01-01T00:00:00.5Z"
            return {"id": name, "processing_status": state, "request_counts": counts, "created_at": made}
        common = {"id": name, "object": "batch", "metadata": batch["metadata"], "created_at": 1}
        if self.form == "mistral":
            files = {"output_file": f"out-{name}" if done else None, "error_file": None}
            return {**common, **files, "status": "SUCCESS" if done else "RUNNING", "completed_requests": 0}
        files = {"output_file_id": f"out-{name}" if done else None, "error_file_id": None}
        return {**common, **files, "status": "completed" if done else "in_progress", "request_counts": None}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    # On a busy machine, requests of one run can come a second apart.
    monkeypatch.setattr(BatchModel, "quiet", 2.0)
    monkeypatch.setattr(BatchModel, "poll", 0.02)


def run(server, scheme="openai", protocol="closed-set?rounds=2", limit=28, **options):
    model = f"{scheme}:any?base_url={server.url}"
    return snellen.run(
        model=model, data=DATA, protocol=protocol, limit=limit, model_options={"batch": True, **options}
    )


def command(server, scheme, workspace):
    words = ["--model", f"{scheme}:any?base_url={server.url}", "-M", "batch=true", "--data", DATA]
    words += ["--protocol", "closed-set?rounds=1", "--workspace", str(workspace)]
    return [sys.executable, "-m", "snellen.cli", "run", *words]


class TestBatches:
    @pytest.mark.parametrize("form", ["openai", "mistral", "anthropic"])
    def test_answers_are_those_of_single_requests(self, workspace, form):
        """What a protocol asks at once is one batch, in which each request is once."""
        with Provider(form) as server:
            by_batch = run(server, form, price_in=2.0, price_out=10.0)
            assert not server.asked
            single = snellen.run(
                model=f"openai:any?base_url={server.url}", data=DATA, protocol="closed-set?rounds=2"
            )
        assert list(by_batch.predictions["prediction"]) == list(single.predictions["prediction"])
        assert by_batch.metrics.outcomes["ok"] == 28
        assert [len(batch["rows"]) for batch in server.taken.values()] == [56]
        keys = {row["custom_id"] for row in server.requests}
        assert len(keys) == 56
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", key) for key in keys)
        assert by_batch.manifest.model.metadata["batches"] == ["batch-0"]
        assert by_batch.metrics.cost == pytest.approx(56 * (100 * 1 + 5 * 5) / 1e6)  # half the price
        assert by_batch.metrics.cached_tokens == (56 * 40 if form == "anthropic" else 0)

    def test_anthropic_s_form(self):
        with Provider("anthropic") as server:
            model = model_at(server, "anthropic", batch="true", system="Look.", max_tokens="9")
            answers(model, question("What is it? {star, ring}"))
        (row,) = server.requests
        params = row["params"]
        assert params["system"] == "Look."
        assert params["max_tokens"] == 9
        assert params["model"] == "any"
        image, text = params["messages"][0]["content"]
        assert image["type"] == "image"
        assert image["source"]["type"] == "base64"
        assert image["source"]["media_type"] == "image/png"
        assert text == {"type": "text", "text": "What is it? {star, ring}"}

    @pytest.mark.parametrize("form", ["openai", "mistral", "anthropic"])
    @pytest.mark.parametrize("wrong", ["lost", fault.status(503, "overloaded")], ids=["lost", "refused"])
    def test_a_batch_whose_receipt_is_lost_is_found_again(self, workspace, form, wrong):
        with Provider(form, faults=[wrong]) as server:
            found = run(server, form, protocol="closed-set?rounds=1")
        assert found.metrics.outcomes["ok"] == 28
        assert len(server.taken) == 1

    def test_what_has_no_answer_is_asked_again_by_resuming(self, workspace):
        def result(body):
            number = int(hashlib.sha256(json.dumps(body).encode()).hexdigest()[:8], 16) % 4
            return [(200, Provider.answer(body)), (400, {"error": {"message": "bad"}}), refused, None][number]

        refused = (400, {"error": {"code": "content_filter", "message": "no"}})
        with Provider(result=result) as server:
            first = run(server, protocol="closed-set?rounds=1")
            outcomes = first.metrics.outcomes
            assert outcomes["ok"]
            assert outcomes["refused"]
            assert outcomes["ok"] + outcomes["refused"] + outcomes["error"] == 28
            asked = len(server.requests)
            server.result = lambda body: (200, Provider.answer(body))
            again = run(server, protocol="closed-set?rounds=1")
        assert again.id == first.id
        assert again.metrics.outcomes["ok"] + outcomes["refused"] == 28
        assert len(server.requests) == asked + outcomes["error"]

    def test_a_refused_batch_ends_the_run_with_its_reason(self, workspace):
        class Refusing(Provider):
            def _shown(self, name):
                errors = {"data": [{"code": "billing", "message": "the quota is used up"}]}
                return {**super()._shown(name), "status": "failed", "errors": errors}

        with Refusing() as server, pytest.raises(Stopped, match="refused the batch: the quota is used up"):
            run(server, protocol="closed-set?rounds=1")

    def test_parameters_that_are_refused_are_left_out(self, workspace):
        def result(body):
            if "temperature" in body:
                return 400, {
                    "error": {"message": "Unsupported parameter: 'temperature'", "param": "temperature"}
                }
            return 200, Provider.answer(body)

        with Provider(result=result) as server:
            found = run(server, protocol="closed-set?rounds=1")
        assert found.metrics.outcomes["ok"] == 28
        assert [len(batch["rows"]) for batch in server.taken.values()] == [28, 28]

    @pytest.mark.parametrize("form", ["openai", "anthropic"])
    def test_killed_it_collects_what_it_submitted(self, workspace, tmp_path, form):
        with Provider(form, looks=None) as server:
            process = subprocess.Popen(command(server, form, workspace), cwd=tmp_path)
            until(lambda: server.looked)
            process.send_signal(signal.SIGKILL)
            process.wait()
            server.open = True
            run(server, form, protocol="closed-set?rounds=1", limit=10)  # the others' answers are kept
            found = run(server, form, protocol="closed-set?rounds=1")
            assert found.metrics.outcomes["ok"] == 28
            assert len(server.taken) == 1
            assert len(server.requests) == 28
        assert not any(Ledger(path).open() for path in (workspace / "batches").iterdir())

    def test_interrupted_it_says_that_the_batches_go_on(self, workspace, tmp_path):
        with Provider(looks=None) as server:
            process = subprocess.Popen(
                command(server, "openai", workspace),
                cwd=tmp_path,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
            until(lambda: server.looked)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
            assert "Traceback" not in told
            assert "snellen resume" in told
            server.open = True
            run(server, protocol="closed-set?rounds=1")
            assert len(server.taken) == 1

    def test_large_ones_are_split(self, workspace, monkeypatch):
        monkeypatch.setattr("snellen.models.remote.batch.queue.MOST", 10)
        with Provider() as server:
            found = run(server, protocol="closed-set?rounds=1")
        assert found.metrics.outcomes["ok"] == 28
        assert sorted(len(batch["rows"]) for batch in server.taken.values()) == [8, 10, 10]

    def test_who_has_none_is_refused(self):
        with pytest.raises(BadOption, match="batch=true is not possible with gemini:.*openai:"):
            MODELS.make("gemini:x", {"batch": "true"})


class TestLedger:
    def test_a_line_that_a_crash_cut_off(self, tmp_path):
        path = tmp_path / "batches" / "x.jsonl"
        ledger = Ledger(path)
        ledger.begin("a", ["k", "l"])
        ledger.submitted("a", "batch-1")
        with path.open("ab") as file:
            file.write(b'{"collected": "a", "ke')
        again = Ledger(path)
        assert [(s.name, s.batch, s.keys) for s in again.open()] == [("a", "batch-1", {"k", "l"})]
        again.collected("a", ["k"])
        assert [s.keys for s in Ledger(path).open()] == [{"l"}]
        again.collected("a")
        assert not Ledger(path).open()
