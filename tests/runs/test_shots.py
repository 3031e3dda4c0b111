"""Examples before each question, repetitions, temperature: what is asked, and what is made of it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow

from helpers import Scripted, converse, picture, sample
from snellen.api import run
from snellen.engine.asking import examination, repeat_scores, spread
from snellen.errors import BadOption, DataError, Unsupported
from snellen.exchange import harness
from snellen.protocols.base import PROTOCOLS
from snellen.protocols.closed_set import ClosedSet
from snellen.protocols.multiple_choice import MultipleChoice
from snellen.protocols.open_world import OpenWorld
from snellen.protocols.rank import Rank
from snellen.protocols.yes_no import YesNo
from snellen.reports.page import html, markdown
from snellen.runs.preflight import preflight
from snellen.runs.rescore import rescore
from snellen.runs.run import Run
from snellen.storage.store import Store
from snellen.types import Kind, Message, Request, Sample

CLASSES = ("ring", "star", "cross")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Three classes, four training and two test images; a fifth training image is a copy of a tested one."""
    folder = tmp_path_factory.mktemp("shots")
    rng = random.Random(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                noise = pillow.frombytes("RGB", (16, 16), rng.randbytes(768))
                noise.save(folder / split / name / f"{number}.png")
    for name in CLASSES:  # in another format, too
        with pillow.open(folder / "test" / name / "0.png") as image:
            image.save(folder / "train" / name / "copy.bmp")
    return folder


def evaluate(photos: Path, workspace: Path, protocol: Any, **more: Any) -> tuple[Scripted, Any]:
    model = Scripted(lambda request: [0.0] * len(request.continuations) if request.continuations else "star")
    model.kinds = frozenset({Kind.GENERATE, Kind.SCORE})
    result = run(
        model=model,
        data=f"folder:{photos}",
        data_options={"split": "test"},
        protocol=protocol,
        workspace=workspace,
        **more,
    )
    return model, result


class TestShots:
    def test_what_is_shown(self, photos, tmp_path):
        """The same examples before every question, in the protocol's words, one class after another, none of
        them tested.
        """
        model, _ = evaluate(photos, tmp_path, OpenWorld(shots=5))
        assert len(model.asked) == 6
        starts = {tuple(map(repr, (m.identity() for m in request.messages[:-1]))) for request in model.asked}
        assert len(starts) == 1
        shown = model.asked[0].messages[:-1]
        assert [message.role for message in shown] == ["user", "assistant"] * 5
        assert [len(message.images) for message in shown] == [1, 0] * 5
        assert {message.text for message in shown[::2]} == {model.asked[0].messages[-1].text}
        answers = [message.text for message in shown[1::2]]
        assert set(answers[:3]) == set(CLASSES)
        assert set(answers[3:]) < set(CLASSES)
        tested = {request.messages[-1].images[0].sha256 for request in model.asked}
        learned = {file.read_bytes() for file in (photos / "train").glob("*/*.png")}
        for message in shown[::2]:
            assert message.images[0].sha256 not in tested
            assert message.images[0].data in learned
            (file,) = (f for f in photos.glob("train/*/*") if f.read_bytes() == message.images[0].data)
            assert file.parent.name == shown[shown.index(message) + 1].text

    def test_they_depend_on_the_seed_alone(self, photos, tmp_path):
        first, again, other = (
            [
                m.identity()
                for m in evaluate(photos, tmp_path / f"{i}", OpenWorld(shots=3), seed=seed)[0]
                .asked[0]
                .messages
            ]
            for i, seed in enumerate((0, 0, 1))
        )
        assert first == again
        assert first != other

    def test_they_are_part_of_a_run_and_only_then(self, photos, tmp_path):
        _, plain = evaluate(photos, tmp_path, OpenWorld())
        _, shown = evaluate(photos, tmp_path, OpenWorld(shots=2))
        assert plain.id != shown.id
        assert plain.manifest.protocol.options.keys().isdisjoint(
            {"shots", "shots_from", "repeats", "temperature"}
        )
        assert shown.manifest.protocol.options["shots"] == 2
        assert [turn["role"] for turn in shown.manifest.protocol.shots] == ["user", "assistant"] * 2
        assert "image" in shown.manifest.protocol.shots[0]["content"][0]
        assert [*harness.results(shown)["n-shot"].values()] == [2]
        assert [*harness.results(plain)["n-shot"].values()] == [0]

    def test_stored_answers_are_read_again(self, photos, tmp_path):
        """Without images: the hashes of those that were shown are known."""
        _, shown = evaluate(photos, tmp_path, "closed-set?rounds=2&shots=2")
        store = Store(tmp_path)
        again = store.run(rescore(store, shown.id))
        assert again["status"] == "finished"
        with pytest.raises(BadOption, match="no stored answer"):
            rescore(store, shown.id, {"shots": 3})

    def test_the_start_of_an_answer_is_continued(self, photos, tmp_path):
        model, _ = evaluate(photos, tmp_path, Rank(shots=1, prefix="It is a"))
        asked, said, question, start = model.asked[0].messages
        assert [turn.role for turn in (asked, said, question, start)] == ["user", "assistant"] * 2
        assert said.text in {f"It is a {name}" for name in CLASSES}
        assert start.text == "It is a"

    @pytest.mark.parametrize(
        ("protocol", "fields", "answer"),
        [
            (MultipleChoice(), {"choices": ("a", "b", "c"), "answers": (1,)}, "B"),
            (MultipleChoice(score="texts"), {"choices": ("a", "b", "c"), "answers": (1,)}, "b"),
            (MultipleChoice(), {"references": ("seven", "7")}, "seven"),
            (MultipleChoice(), {"choices": ("a", "b")}, None),
            (YesNo(), {"references": ("Yes, it is.",)}, "yes"),
            (PROTOCOLS.make("vqa"), {"references": ("seven", "7")}, "seven"),
            (PROTOCOLS.make("caption"), {"references": ("A ring.",)}, "A ring."),
            (PROTOCOLS.make("instruct"), {"references": ()}, None),
            (ClosedSet(), {"label": "star"}, "star"),
            (ClosedSet(), {}, None),
        ],
    )
    def test_the_right_answer_in_each_form(self, protocol, fields, answer):
        assert protocol.right_answer(Sample("s", (picture(),), question="?", **fields)) == answer

    def test_without_a_training_split(self, photos, tmp_path):
        flat = photos / "test"
        with pytest.raises(BadOption, match="no training split to take examples from.*-P shots_from=DATA"):
            run(
                model=Scripted(lambda _: "star"),
                data=f"folder:{flat}",
                protocol="open-world?shots=1",
                workspace=tmp_path,
            )
        model = Scripted(lambda _: "star")
        named = OpenWorld(shots=2, shots_from=f"folder:{photos / 'train'}")
        run(model=model, data=f"folder:{flat}", protocol=named, workspace=tmp_path)
        assert len(model.asked[0].messages) == 5

    def test_too_few(self, photos, tmp_path):
        with pytest.raises(
            DataError, match="shots=13: .* has only 12 examples with an answer for open-world"
        ):
            evaluate(photos, tmp_path, OpenWorld(shots=13))

    def test_broken_examples(self, photos, tmp_path):
        """They are an error, or skipped like any other with --skip-invalid."""
        examples = tmp_path / "examples"
        shutil.copytree(photos / "train", examples)
        for file in sorted(examples.glob("*/*"))[::2]:
            file.write_bytes(b"no image")
        named = OpenWorld(shots=4, shots_from=f"folder:{examples}")
        with pytest.raises(DataError, match="not a readable image"):
            evaluate(photos, tmp_path / "a", named)
        model, _ = evaluate(photos, tmp_path / "b", named, skip_invalid=True)
        assert len(model.asked[0].messages) == 9

    def test_what_is_refused(self, photos, tmp_path):
        for name, words in (
            ("open-world?shots=-1", "0 or more"),
            ("open-world?shots_from=chart:shapes", "needs a number of examples"),
            ("binary?shots=1", "would have no one form"),
            ("open-world?shots=1&cot=true", "no chain of thought"),
            ("rank?temperature=1", "generates no text"),
            ("open-world?repeats=2", "needs a temperature above 0"),
            ("open-world?temperature=3", "0 to 2"),
            ("open-world?repeats=0", "1 or more"),
            ("closed-set?shot=1", "Did you mean 'shots'"),
        ):
            with pytest.raises(BadOption, match=words):
                evaluate(photos, tmp_path, name)
        with pytest.raises(Unsupported, match="one question at a time"):
            run(model="pico:clip", data=f"folder:{photos}", protocol="rank?shots=1", workspace=tmp_path)

    @pytest.mark.slow
    def test_a_check_shows_them(self):
        """In the prompt, whose size and cost are known before anything is asked."""
        plain, shown = (
            preflight("chart:shapes?n=4", "pico:llava", name) for name in ("open-world", "open-world?shots=2")
        )
        assert plain.size is not None
        assert shown.size is not None
        assert shown.size.prompt.count("What type of object") == 3
        assert shown.size.tokens > 2.5 * plain.size.tokens
        assert plain.forecast is not None
        assert shown.forecast is not None
        assert shown.forecast.tokens_in[0] > 2.5 * plain.forecast.tokens_in[0]

    @pytest.mark.slow
    def test_looking_once_changes_no_answer(self, tmp_path):
        """Examples are a part of what all questions about an image share: the answers of plain batches."""
        data, protocol = "chart:shapes?n=12", "closed-set?rounds=3&shots=2"
        results = [
            run(model=f"pico:llava?prefix={mode}", data=data, protocol=protocol, workspace=tmp_path / mode)
            for mode in ("on", "off")
        ]
        once, plain = (json.loads(result.outcomes[["id", "prediction"]].to_json()) for result in results)
        assert once == plain


class TestRepeats:
    def test_draws_differ_by_sample_and_turn(self):
        protocol = ClosedSet(rounds=2, repeats=3, temperature=0.7)
        asked: list[Request] = []
        for name in ("a", "b"):
            prediction, requests = converse(
                examination(protocol, sample(["cat", "dog"], "dog", id=name)), lambda _: "dog"
            )
            asked += requests
            assert prediction.questions == 6
        assert {request.decoding.temperature for request in asked} == {0.7}
        assert len({request.decoding.draw for request in asked}) == 12

    def test_another_seed_draws_other_answers(self, photos, tmp_path):
        name = "open-world?temperature=1"
        runs = [evaluate(photos, tmp_path, name, seed=seed) for seed in (0, 1)]
        first, other = ({request.decoding.draw for request in model.asked} for model, _ in runs)
        assert first.isdisjoint(other)
        assert runs[0][1].id != runs[1][1].id

    def test_rescored_with_fewer(self, photos, tmp_path):
        """The title says how many repetitions are counted."""
        _, result = evaluate(photos, tmp_path, "open-world?repeats=3&temperature=1")
        store = Store(tmp_path)
        again = Run(store, rescore(store, result.id, {"repeats": 2}))
        assert again.protocol == "open-world?temperature=1&repeats=2"
        assert len(again.metrics.protocol["repeats"]) == 2

    def test_a_temperature_alone(self):
        prediction, (asked,) = converse(
            examination(OpenWorld(temperature=0.5), sample(["cat", "dog"], "dog")), lambda _: "dog"
        )
        assert (asked.decoding.temperature, prediction.label) == (0.5, "dog")
        assert "repeats" not in prediction.details

    def test_turns_may_end_at_different_times(self):
        """CircularEval stops at the first wrong rotation: each turn for itself."""
        question = Sample("s", (picture(),), question="?", choices=("a", "b", "c"), answers=(0,))
        asked: list[Request] = []

        def script(request: Request) -> str:
            """The first turn's first answer is wrong."""
            asked.append(request)
            options = [line for line in request.messages[-1].text.split("\n") if ". " in line]
            right = next(line[0] for line in options if line.endswith(" a"))
            return right if len(asked) > 1 else "ABC"[("ABC".index(right) + 1) % 3]

        sizes: list[int] = []
        protocol = MultipleChoice(circular=True, request_batch=1, repeats=2, temperature=1.0)
        prediction, _ = converse(examination(protocol, question), script, sizes)
        assert sizes == [2, 1, 1]
        assert prediction.details["repeats"]["scores"] == [0.0, 1.0]

    @given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=20))
    def test_figures(self, table):
        """Against their definitions, from the answers of a model that is right where the table says so."""

        def said(answers: Iterator[bool], _: Request) -> str:
            return "dog" if next(answers) else "cat"

        rows = []
        for number, right in enumerate(table):
            prediction, _ = converse(
                examination(
                    OpenWorld(repeats=3, temperature=1.0), sample(["cat", "dog"], "dog", id=f"{number}")
                ),
                partial(said, iter(right)),
            )
            assert prediction.label == ("dog" if right[0] else "cat")
            scores = repeat_scores(prediction.details)
            assert scores == {
                "mean_of_repeats": pytest.approx(sum(right) / 3),
                "pass_at_k": float(any(right)),
                "all_of_k": float(all(right)),
            }
            rows.append(prediction.details)
        means = [fmean(map(float, column)) for column in zip(*table, strict=True)]
        assert spread(rows) == {"repeats": means, "repeats_standard_deviation": pytest.approx(stdev(means))}

    def test_unread_answers_count_as_wrong(self):
        answers = iter(["dog", "hm"])
        prediction, _ = converse(
            examination(OpenWorld(repeats=2, temperature=1.0), sample(["cat", "dog"], "dog")),
            lambda _: next(answers),
        )
        assert prediction.details["repeats"] == {
            "predictions": ["dog", ""],
            "outcomes": ["ok", "unparsed"],
            "scores": [1.0, 0.0],
        }

    def test_in_a_run(self, photos, tmp_path):
        """The first answers count; mean, pass@k and all of k have intervals; resuming asks nothing again."""
        rng = random.Random(1)
        model = Scripted(lambda _: rng.choice(CLASSES))
        how: dict[str, Any] = {
            "data": f"folder:{photos}",
            "data_options": {"split": "test"},
            "workspace": tmp_path,
        }
        result = run(model=model, protocol="open-world?repeats=5&temperature=1", **how)
        assert len(model.asked) == 30
        metrics = result.metrics
        assert {"mean_of_repeats", "pass_at_k", "all_of_k"} <= set(metrics.scores)
        assert metrics["all_of_k"].value <= metrics["mean_of_repeats"].value <= metrics["pass_at_k"].value
        assert len(metrics.protocol["repeats"]) == 5
        assert metrics.protocol["repeats"][0] == pytest.approx(metrics["accuracy"].value)
        assert fmean(metrics.protocol["repeats"]) == pytest.approx(metrics["mean_of_repeats"].value)
        run(model=model, protocol="open-world?repeats=5&temperature=1", **how)
        assert len(model.asked) == 30
        for page in (html([result]), markdown([result])):
            assert all(heading in page for heading in ("pass@k %", "all of k %", "mean of repeats %"))
            assert "repeats standard deviation" in page
            assert "macro F1" in page

    @pytest.mark.slow
    def test_a_real_model_varies_and_repeats(self, tmp_path):
        """At a temperature, draws differ; the same draws give the same texts."""
        name = "open-world?repeats=4&temperature=1.5"
        first, again = (
            run(model="pico:llava", data="chart:shapes?n=14", protocol=name, workspace=tmp_path / where)
            for where in "ab"
        )
        details = [row["details"]["repeats"]["predictions"] for row in first.store.findings(first.id)]
        assert any(len(set(predictions)) > 1 for predictions in details)
        assert details == [row["details"]["repeats"]["predictions"] for row in again.store.findings(again.id)]


def test_a_message_is_identified_by_its_parts():
    image = picture()
    assert Message("user", (image, "What?")).identity() == {
        "role": "user",
        "content": [{"image": image.sha256}, {"text": "What?"}],
    }
