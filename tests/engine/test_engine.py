"""The memory of answers, and runs that go on where they were stopped."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
from functools import partial
from typing import Any

import pytest

from helpers import FAILED, ROOT, TESTS, Scripted, picture, text_of, until
from snellen.api import run
from snellen.engine.cache import CachedModel, describe, key_of
from snellen.errors import ImageError, ModelError, Unsupported, UsageError
from snellen.images import Image
from snellen.models.base import LocalModel
from snellen.protocols.closed_set import ClosedSet
from snellen.runs.plan import Plan
from snellen.runs.run import Run, open_run
from snellen.storage.store import Store
from snellen.types import Decoding, Kind, Message, Outcome, Request, Response, Score, ask

LABELS = ("cat", "dog", "bird", "fish")


class TestMemory:
    def respond(self, store, model, requests, cache_salt=""):
        return asyncio.run(CachedModel(model, store, cache_salt).respond(requests))

    def test_nothing_is_asked_twice(self, anywhere):
        store, model = Store(), Scripted(lambda r: text_of(r).upper(), batch_size=2)
        requests = [ask((picture(),), text) for text in ("a", "b", "a", "c", "a")]
        first = self.respond(store, model, requests)
        assert [a.response.text for a in first] == ["A", "B", "A", "C", "A"]
        assert len(model.asked) == 3
        assert model.batches == [2, 1]
        again = self.respond(store, model, requests)
        assert len(model.asked) == 3
        assert not any(a.new for a in again)
        assert [a.response for a in again] == [a.response for a in first]

    def test_errors_are_not_remembered(self, anywhere):
        store = Store()
        script = iter([FAILED, "fine"])
        model = Scripted(lambda r: next(script))
        request = ask((picture(),), "?")
        assert self.respond(store, model, [request])[0].response.outcome is Outcome.ERROR
        assert self.respond(store, model, [request])[0].response.text == "fine"
        assert self.respond(store, model, [request])[0].response.text == "fine"
        assert len(model.asked) == 2

    def test_a_batch_is_committed_as_it_is_received(self, anywhere):
        store = Store()

        def script(request):
            if text_of(request) == "c":
                raise KeyboardInterrupt
            return "x"

        model = Scripted(script, batch_size=1)
        requests = [ask((picture(),), text) for text in "abc"]
        with pytest.raises(KeyboardInterrupt):
            self.respond(store, model, requests)
        later = Scripted(lambda r: "x")
        self.respond(store, later, requests)
        assert [text_of(r) for r in later.asked] == ["c"]

    def test_everything_that_can_change_an_answer_is_in_the_key(self):
        base = ask((picture("red"),), "What?")
        others = [
            ask((picture("blue"),), "What?"),
            ask((picture("red"),), "What? "),
            ask((), "What?"),
            ask((picture("red"), picture("red")), "What?"),
            ask((picture("red"),), "What?", max_tokens=9),
            ask((picture("red"),), "What?", kind=Kind.SCORE, continuations=("a", "b")),
            ask((picture("red"),), "What?", kind=Kind.SCORE, continuations=("b", "a")),
            Request(base.messages, decoding=Decoding(temperature=0.5)),
            Request(base.messages, decoding=Decoding(temperature=0.5, draw=1)),
            Request(base.messages, decoding=Decoding(top_p=0.9)),
            Request((Message("system", ("x",)), *base.messages)),
            Request((*base.messages, Message("assistant", ("x",)))),
            Request((Message("user", ("What?", *base.images)),)),
        ]
        keys = [key_of({"m": 1}, describe(r)) for r in (base, *others)]
        keys += [key_of({"m": 2}, describe(base)), key_of({"m": 1}, describe(base), "again")]
        assert len(set(keys)) == len(keys)
        assert keys[0] == key_of({"m": 1}, describe(ask((picture("red"),), "What?")))


def guess(request):
    """A model that is right now and then: names the first of the list."""
    return text_of(request).partition("{")[2].partition("}")[0].split(", ")[0]


def frame_of(found: Run):
    return found.predictions.drop(columns="latencies").to_dict("records")


class TestRuns:
    def test_started_again_a_finished_run_is_the_same_run(self, anywhere):
        model = Scripted(guess)
        first = run(model=model, data="chart:shapes?n=30", protocol="closed-set")
        asked = len(model.asked)
        again = run(model=model, data="chart:shapes?n=30", protocol="closed-set")
        assert (again.id, len(model.asked), model.loads) == (first.id, asked, 1)
        assert asked == 30 * 5

    def test_fresh_asks_anew(self, anywhere):
        model = Scripted(guess)
        first = run(model=model, data="chart:shapes?n=9", protocol="closed-set?rounds=1")
        fresh = run(model=model, data="chart:shapes?n=9", protocol="closed-set?rounds=1", fresh=True)
        assert fresh.id != first.id
        assert len(model.asked) == 18

    def test_runs_share_what_they_share(self, anywhere):
        model = Scripted(guess)
        run(model=model, data="chart:shapes?n=10", protocol="closed-set?rounds=2")
        more = run(model=model, data="chart:shapes?n=20", protocol="closed-set?rounds=3")
        assert len(model.asked) == 10 * 2 + 10 * 1 + 10 * 3
        assert more.metrics.n == 20
        assert more.metrics.items_per_second is not None

    def test_a_run_all_from_memory_claims_no_speed(self, workspace):
        model = Scripted(guess)
        run(model=model, data="chart:shapes?n=10", protocol="closed-set?rounds=3")
        fewer = run(model=model, data="chart:shapes?n=10", protocol="closed-set?rounds=2")
        assert fewer.metrics.items_per_second is None

    def test_errors_are_asked_again(self, anywhere):
        broken = True

        def script(request):
            return FAILED if broken and "circle" in guess(request) else guess(request)

        model = Scripted(script)
        kwargs: dict[str, Any] = {
            "model": model,
            "data": "chart:shapes?n=60",
            "protocol": "closed-set?rounds=1",
        }
        first = run(**kwargs)
        lost = first.metrics.outcomes["error"]
        assert lost > 0
        assert first.predictions.query("outcome == 'error'")["reason"].eq(FAILED.reason).all()
        assert first.predictions.query("outcome == 'error'")["prediction"].eq("").all()
        broken, asked = False, len(model.asked)
        second = run(**kwargs)
        assert second.id == first.id
        assert second.metrics.outcomes["error"] == 0
        assert len(model.asked) == asked + lost

    def test_the_same_predictions_whatever_the_batches(self, workspace, tmp_path):
        frames = []
        for i, (batch, workers) in enumerate([(1, 1), (7, 1), (3, 4)]):
            model = Scripted(guess, batch_size=batch, workers=workers)
            found = run(
                model=model, data="chart:shapes?n=25", protocol="closed-set", workspace=tmp_path / str(i)
            )
            frames.append(frame_of(found))
        assert frames[0] == frames[1] == frames[2]

    def test_within_a_running_event_loop(self, workspace):
        async def notebook():
            return run(model=Scripted(guess), data="chart:shapes?n=5", protocol="closed-set?rounds=1")

        assert asyncio.run(notebook()).metrics.n == 5

    def test_the_manifest_holds_what_doing_it_again_takes(self, workspace):
        found = run(
            model=Scripted(guess),
            data="chart:shapes?n=84",
            protocol="closed-set?rounds=1",
            num_classes=5,
            limit=9,
            seed=3,
        )
        manifest = found.manifest
        assert manifest.data.filters == {"num_classes": 5, "limit": 9}
        assert len(manifest.data.labels) == 5
        assert len(manifest.data.fingerprint) == 64
        assert manifest.protocol.options["seed"] == 3 == manifest.seed
        assert "{names}" in manifest.protocol.options["prompt"]
        assert manifest.model.identity == {"scripted": "scripted"}
        assert manifest.versions["python"]
        assert manifest.hardware["cores"]
        assert manifest.finished >= manifest.started
        assert open_run().id == found.id

    def test_what_a_model_cannot_do_is_refused_before_it_is_loaded(self, workspace):
        mute = Scripted(lambda r: [0.0] * 28)
        mute.kinds = frozenset({Kind.SCORE})
        with pytest.raises(Unsupported, match="Protocols that scripted supports: rank"):
            run(model=mute, data="chart:shapes?n=3", protocol="closed-set")
        assert mute.loads == 0
        plan = Plan(models=[mute], data=["chart:shapes?n=3"], protocols=["closed-set", "rank"])
        assert plan.skipped == ["scripted can score, but closed-set needs generate"]
        (only,) = plan.run()
        assert only.protocol == "rank"

    def test_no_names_no_plan(self):
        with pytest.raises(UsageError, match="--model"):
            Plan(models=[], data=["chart:shapes"], protocols=["rank"])

    def test_a_broken_image_stops_the_run_and_keeps_what_was_answered(self, workspace, photos, tmp_path):
        import shutil

        folder = tmp_path / "photos"
        shutil.copytree(photos, folder)
        whole = min((folder / "star").iterdir()).read_bytes()
        (folder / "star" / "9.png").write_bytes(whole[: len(whole) // 2])
        model = Scripted(guess, batch_size=1)
        kwargs: dict[str, Any] = {
            "model": model,
            "data": f"folder:{folder}",
            "protocol": "closed-set?rounds=1",
        }
        with pytest.raises(ImageError, match=r"star/9\.png"):
            run(**kwargs)
        assert len(model.asked) >= 15
        assert open_run().status == "interrupted"

    def test_what_is_no_image_is_named_before_anything_is_asked(self, workspace, photos, tmp_path):
        import shutil

        folder = tmp_path / "photos"
        shutil.copytree(photos, folder)
        (folder / "star" / "9.png").write_bytes(b"broken")
        (folder / "ring" / "9.png").write_bytes(b"")
        model = Scripted(guess, batch_size=1)
        with pytest.raises(ImageError, match=r"(?s)2 samples.*ring/9\.png.*star/9\.png.*--skip-invalid"):
            run(model=model, data=f"folder:{folder}", protocol="closed-set?rounds=1")
        assert not model.asked

    def test_previews(self, workspace, photos):
        found = run(model=Scripted(guess), data=f"folder:{photos}", protocol="closed-set?rounds=1")
        kept = list((workspace / "previews").rglob("*.jpg"))
        assert len(kept) == found.metrics.n == 20
        hashes = {Image.from_path(p).sha256 for p in photos.rglob("*.*")}
        assert {path.stem for path in kept} == hashes

    def test_rank_scores_survive_the_store(self, anywhere):
        import math

        def script(request):
            values = [float(-i) for i in range(len(request.continuations))]
            return Response(scores=(Score(-math.inf), *(Score(v, 2) for v in values[1:])))

        kwargs: dict[str, Any] = {"data": "chart:shapes?n=4", "protocol": "rank"}
        first = run(model=Scripted(script), **kwargs)
        assert set(first.predictions["prediction"]) == {"square"}
        again = run(model=Scripted(script), **kwargs, seed=1, protocol_options={"normalize": "tokens"})
        assert again.metrics.items_per_second is None  # from memory, -inf and all
        assert set(again.predictions["prediction"]) == {"square"}


class TestWhatOthersWrote:
    """Models, protocols and data sets of users: their faults are named, and take nothing else down."""

    def test_a_model_that_raises(self, workspace):
        def script(request):
            if "circle" in guess(request):
                raise RuntimeError("no circles please")
            return guess(request)

        found = run(
            model=Scripted(script, batch_size=1), data="chart:shapes?n=28", protocol="closed-set?rounds=1"
        )
        lost = found.predictions.query("outcome == 'error'")
        assert 0 < len(lost) < 28
        assert set(lost["reason"]) == {"RuntimeError: no circles please"}

    def test_a_model_that_only_fails_claims_no_speed(self, workspace):
        model = Scripted(lambda r: FAILED)
        found = run(model=model, data="chart:shapes?n=5", protocol="closed-set?rounds=1")
        assert found.metrics.items_per_second is None
        assert found.metrics.outcomes["error"] == 5

    def test_a_model_that_gives_too_few_answers(self, workspace):
        class Short(Scripted):
            async def respond(self, requests):
                return (await super().respond(requests))[1:]

        with pytest.raises(ModelError, match="scripted received 4 requests and returned 3 answers"):
            run(model=Short(guess), data="chart:shapes?n=5", protocol="closed-set?rounds=1")

    @pytest.mark.parametrize("told", ["a text", None])
    def test_a_plug_in_that_does_not_answer_with_responses(self, workspace, told):
        class Parrot(LocalModel):
            def identity(self):
                return {"parrot": told}

            def answer(self, requests):
                return [told for _ in requests] if told else [Response("a") for _ in requests[1:]]

        with pytest.raises(ModelError, match=r"Parrot: answer\(\) must return a Response for each request"):
            run(model=Parrot(), data="chart:shapes?n=5", protocol="closed-set?rounds=1")

    def test_a_model_that_gives_no_scores(self, workspace):
        found = run(model=Scripted(lambda r: "a text"), data="chart:shapes?n=2", protocol="rank")
        assert set(found.predictions["reason"]) == {"0 scores for 28 continuations"}

    def test_a_local_model_needs_no_init(self, workspace):
        class Mine(LocalModel):
            batch_size = 3

            def identity(self):
                return {"mine": 1}

            def answer(self, requests):
                return [Response(guess(r)) for r in requests]

        class Named(Mine):
            name = "my model"

        found = run(model=Mine(), data="chart:shapes?n=7", protocol="closed-set?rounds=1")
        assert found.metrics.outcomes["ok"] == 7
        assert found.model == "Mine"
        assert Named().name == "my model"
        assert type("Heir", (Named,), {})().name == "my model"


class TestPlan:
    def test_variants_can_be_told_apart_and_repeats_are_not_repeated(self, workspace):
        names = ["closed-set", "closed-set?rounds=1", "closed-set", "closed-set?rounds=2&order=fixed"]
        plan = Plan(models=[Scripted(guess)], data=["chart:shapes?n=3"] * 2, protocols=names)
        runs = plan.run()
        assert [found.protocol for found in runs] == list(dict.fromkeys(names))
        assert len({found.id for found in runs}) == 3
        assert runs[0].data == "chart:shapes?n=3"

    def test_a_path_is_a_folder_and_one_name_is_a_list_of_one(self, workspace, photos):
        (found,) = Plan(models=[Scripted(guess)], data=photos, protocols="closed-set?rounds=1").run()
        assert found.source == f"folder:{photos}"

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"model": None}, "model=None"),
            ({"model": 3}, "model=3 is not allowed"),
            ({"limit": "4"}, "--limit 4"),
            ({"limit": 4.0}, "--limit 4.0"),
            ({"seed": "4"}, "seed='4'"),
            ({"model_options": {"x": 1}}, "already an object, so x cannot be set"),
            ({"protocol": ClosedSet(), "protocol_options": {"rounds": 2}}, "so rounds cannot be set"),
        ],
    )
    def test_mistakes(self, workspace, more, message):
        kwargs = {"model": Scripted(guess), "data": "chart:shapes", "protocol": "closed-set"}
        with pytest.raises(UsageError, match=message):
            run(**{**kwargs, **more})

    def test_bad_images_are_skipped_listed_and_counted(self, workspace, photos, tmp_path):
        import shutil

        folder = tmp_path / "photos"
        shutil.copytree(photos, folder)
        (folder / "star" / "9.png").write_bytes(b"broken")
        (folder / "ring" / "9.png").write_bytes(b"")
        kwargs: dict[str, Any] = {
            "model": Scripted(guess),
            "data": f"folder:{folder}",
            "protocol": "closed-set?rounds=1",
        }
        with pytest.raises(ImageError, match="--skip-invalid"):
            run(**kwargs)
        found = run(**kwargs, skip_invalid=True)
        assert found.metrics.n == 20
        assert found.metrics.skipped == 2
        with pytest.raises(ImageError, match="--skip-invalid"):  # also now that there is a finished run
            run(**kwargs)
        listed = {bad.where: bad.reason for bad in found.manifest.data.skipped}
        assert set(listed) == {"star/9.png", "ring/9.png"}
        assert "file is empty" in listed["ring/9.png"]

    def test_an_interrupted_fresh_run_is_gone_on_with(self, workspace):
        stop = True

        def script(request):
            if stop and len(model.asked) > 8:
                raise KeyboardInterrupt
            return guess(request)

        model = Scripted(script, batch_size=2)
        kwargs: dict[str, Any] = {
            "model": model,
            "data": "chart:shapes?n=12",
            "protocol": "closed-set?rounds=1",
        }
        with pytest.raises(KeyboardInterrupt):
            run(**kwargs, fresh=True)
        stop, before = False, len(model.asked)
        first = run(**kwargs, fresh=True)
        assert len(model.asked) - before <= 12 - 6
        assert run(**kwargs, fresh=True).id != first.id


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost(tmp_path):
    """A subprocess killed for good, again and again: what was committed is never asked again, and the
    predictions are those of an uninterrupted run."""
    script = TESTS / "interrupted.py"
    workspace, log = tmp_path / "killed", tmp_path / "asked"

    def command(folder, file, delay):
        return [sys.executable, str(script), str(folder), str(file), str(delay)]

    def committed() -> set[str]:
        if not (workspace / "snellen.db").exists():
            return set()
        with sqlite3.connect(workspace / "snellen.db") as connection:
            try:
                return {row[0] for row in connection.execute("SELECT key FROM responses")}
            except sqlite3.OperationalError:
                return set()

    def asked() -> list[str]:
        return log.read_text().split() if log.exists() else []

    def reached(count: int) -> bool:
        return len(asked()) >= count

    rng = random.Random(5)
    for _ in range(6):
        before, already = committed(), len(asked())
        enough = already + rng.randint(1, 8)
        with subprocess.Popen(command(workspace, log, 0.1), stdout=subprocess.DEVNULL) as process:
            until(partial(reached, enough))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert before <= committed()
        assert not before & set(asked()[already:])

    done = subprocess.run(command(workspace, log, 0), capture_output=True, text=True, timeout=60, check=True)
    whole = subprocess.run(
        command(tmp_path / "whole", tmp_path / "other", 0),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == whole.stdout
    runs = [open_run(workspace=folder) for folder in (workspace, tmp_path / "whole")]
    assert frame_of(runs[0]) == frame_of(runs[1])
    assert runs[0].metrics["accuracy"] == runs[1].metrics["accuracy"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_run():
    """Eight times as many samples, in processes of their own: a few megabytes more at the most."""
    script = ROOT / "benchmarks" / "memory.py"
    done = subprocess.run(
        [sys.executable, str(script), "250", "2000"], capture_output=True, text=True, timeout=200, check=True
    )
    peaks = [int(line.split(" samples: ")[1].split(" MB")[0]) for line in done.stdout.splitlines()]
    assert len(peaks) == 2
    assert peaks[1] - peaks[0] < 25
