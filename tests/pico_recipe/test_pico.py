"""The built-in models really see: on pictures that no training has shown them."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict

import pytest

from helpers import made
from snellen.api import run
from snellen.datasets.eye_chart import EyeChart
from snellen.datasets.shapes import KINDS, DrawnFigure, draw, nth_figure
from snellen.eye_test.eye_test import run_eye_test
from snellen.images import Image, encode
from snellen.models.base import MODELS, LocalModel
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.models.pico import NAMES, WEIGHTS
from snellen.pico_recipe import curriculum
from snellen.types import Decoding, Message, Request, ask

pytestmark = pytest.mark.slow

#: Ten pictures of each class.
N = 280


def held_out(seed: int) -> list[DrawnFigure]:
    return [nth_figure(f"chart/test/{seed}", i) for i in range(N)]


def shown(fig: DrawnFigure) -> Image:
    return Image(lambda: encode(draw(fig)), "a chart")


def examine(model: LocalModel, figs: list[DrawnFigure], task: str, offers: int = 28):
    """(figure, true answer, the model's answer) for questions of one sort."""
    rng = random.Random(1)
    asked = [curriculum.ask(rng, fig, task, offers) for fig in figs]
    requests = [
        ask((shown(fig),), question, max_tokens=16) for fig, (question, _) in zip(figs, asked, strict=True)
    ]
    replies = asyncio.run(model.respond(requests))
    return [(f, a, r.text) for f, (_, a), r in zip(figs, asked, replies, strict=True)]


@pytest.fixture(scope="module")
def llava():
    model = made(VisionLanguageModel, "pico:llava")
    model.batch_size = 64
    model.load()
    return model


@pytest.mark.parametrize(
    ("task", "least"),
    [("closed-set", 0.90), ("open", 0.90), ("yes-no", 0.95), ("multiple-choice", 0.90), ("color", 0.95)],
)
def test_llava_sees(llava, task, least):
    rows = examine(llava, held_out(11), task)
    assert sum(answer == truth for _, truth, answer in rows) / N >= least
    if task == "yes-no":  # balanced pairs: always saying one of them would be half
        counts = Counter(truth for _, truth, _ in rows)
        assert 0.4 < counts["yes"] / N < 0.6
    if task == "multiple-choice":
        assert {answer for _, _, answer in rows} == set("ABCD")


def test_llava_answers_follow_up_questions(llava):
    """A second question about the same picture, after the answer to a first one."""
    rng = random.Random(3)
    requests, truths = [], []
    for fig in held_out(17)[:140]:
        first, second = (rng.choice(("open", "color", "yes-no")) for _ in range(2))
        (asked, said), (question, truth) = (curriculum.ask(rng, fig, task) for task in (first, second))
        turns = (
            Message("user", (shown(fig), asked)),
            Message("assistant", (said,)),
            Message("user", (question,)),
        )
        requests.append(Request(turns, decoding=Decoding(max_tokens=8)))
        truths.append(truth)
    replies = asyncio.run(llava.respond(requests))
    assert sum(reply.text == truth for reply, truth in zip(replies, truths, strict=True)) / 140 >= 0.9


@pytest.mark.exhaustive
def test_llava_has_an_eye_test(workspace):
    """Thresholds within the charts of acuity, contrast and orientation, and every answer can be read."""
    charts = ["chart:acuity", "chart:acuity?optotype=shapes", "chart:orientation"]
    for reading in run_eye_test("pico:llava", charts=charts, batch_size=64):
        assert reading.run.metrics.outcomes["ok"] >= 155
        assert reading.verdict == "threshold within the chart"
        assert 0.1 < reading.curve.threshold < 0.5


def test_llavas_captions_name_the_class(llava):
    rows = examine(llava, held_out(12), "caption")
    assert sum(fig.kind in answer.split() for fig, _, answer in rows) / N >= 0.85


def test_llava_looks_at_the_picture(llava):
    """Turned to other pictures, the answers turn with them: what is right for one is not for another."""
    figs = held_out(13)[:140]
    rows = examine(llava, figs, "open")
    others = figs[1:] + figs[:1]
    right_for_other = sum(answer == other.kind for (_, _, answer), other in zip(rows, others, strict=True))
    assert right_for_other / len(figs) < 0.15


@pytest.mark.parametrize("task", ["closed-set", pytest.param("open", marks=pytest.mark.exhaustive)])
def test_the_skewed_one_is_worse_at_what_it_seldom_saw(task):
    model = made(VisionLanguageModel, "pico:llava-skewed")
    model.batch_size = 64
    right: dict[str, list[bool]] = defaultdict(list)
    for seed in (14, 15):
        for fig, truth, answer in examine(model, held_out(seed), task):
            right[fig.kind].append(answer == truth)
    exposure = curriculum.counts(skewed=True)
    order = sorted(exposure, key=exposure.__getitem__)
    assert exposure[order[-1]] / exposure[order[0]] == pytest.approx(100, rel=0.03)
    rare, common = (
        sum(sum(right[kind]) / len(right[kind]) for kind in kinds) / 10 for kinds in (order[:10], order[-10:])
    )
    assert common - rare >= 0.20
    assert common >= 0.90


@pytest.mark.parametrize("name", ["clip", "classifier"])
def test_the_other_two_are_strong_baselines(workspace, name):
    found = run(model=f"pico:{name}", data=f"chart:shapes?n={N}&seed=16", protocol="rank", batch_size=64)
    assert found.metrics["accuracy"].value >= 0.90
    assert found.metrics.outcomes["ok"] == N


@pytest.mark.parametrize("name", NAMES)
def test_they_are_small_and_ordinary(name):
    """Under a million parameters, and the very same code as for any checkpoint loads them."""
    scheme = {"clip": "clip", "classifier": "classifier"}.get(name, "hf")
    model = MODELS.make(f"{scheme}:{WEIGHTS / name}")
    model.load()
    assert model.metadata()["parameters"] < 1_000_000
    assert model.identity()["revision"] == MODELS.make(f"pico:{name}").identity()["revision"]
    config = json.loads((WEIGHTS / name / "config.json").read_text())
    assert config["dtype"] == "float16"


def test_all_together_they_are_under_8_megabytes():
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*")) < 8_000_000


class TestLessons:
    def test_counts(self):
        even, skewed = curriculum.counts(False), curriculum.counts(True)
        assert set(even.values()) == {curriculum.FIGURES // 28}
        assert set(skewed) == set(KINDS)
        assert max(skewed.values()) / min(skewed.values()) == pytest.approx(100, rel=0.03)

    def test_figures_come_as_often_as_counted(self):
        figs = curriculum.training_figures(True, 0)
        assert Counter(fig.kind for fig in figs) == curriculum.counts(True)
        assert figs == curriculum.training_figures(True, 0)
        assert figs != curriculum.training_figures(True, 1)

    @pytest.mark.parametrize("task", curriculum.TASKS)
    def test_answers_are_right(self, task):
        rng = random.Random(0)
        for fig in held_out(1)[:100]:
            question, answer = curriculum.ask(rng, fig, task, offers=5)
            if task == "yes-no":
                assert (answer == "yes") == (f"the {fig.kind} in" in question)
            elif task == "multiple-choice":
                assert f"\n{answer}. {fig.kind}\n" in question
            elif task == "closed-set":
                names = question.partition("{")[2].partition("}")[0].split(", ")
                assert answer == fig.kind
                assert len(set(names)) == 5
                assert fig.kind in names
            elif task == "color":
                assert answer == fig.color
            else:
                assert fig.kind in answer

    def test_wrong_options_are_as_common_as_their_classes(self):
        rng = random.Random(0)
        weights = curriculum.counts(True)
        fig = held_out(1)[0]
        seen = Counter(
            name
            for _ in range(3000)
            for name in curriculum.ask(rng, fig, "closed-set", 2, weights)[0]
            .partition("{")[2]
            .partition("}")[0]
            .split(", ")
        )
        others = [kind for kind in KINDS if kind != fig.kind]
        total = sum(weights[kind] for kind in others)
        for kind in others:
            assert seen[kind] / 3000 == pytest.approx(weights[kind] / total, abs=0.025)

    def test_the_training_texts_can_be_written_out_again(self, tmp_path, monkeypatch):
        pytest.importorskip("torch")
        from snellen.pico_recipe import train

        small = dict.fromkeys(train.STEPS, 12)
        monkeypatch.setattr(train, "STEPS", small)
        files = []
        for i in range(2):
            path = tmp_path / f"{i}.jsonl"
            train.main(["--captions", str(path)])
            files.append(path.read_text())
        assert files[0] == files[1]
        rows = [json.loads(line) for line in files[0].splitlines()]
        assert {row["model"] for row in rows} == set(train.MODELS)
        skewed = [row for row in rows if row["model"] == "llava-skewed" and row["stage"] == "answer"]
        assert len(skewed) == 12 * train.BATCH["answer"]
        taught = train.stages(curriculum.training_figures(True, 0), 0, True, "answer")
        assert [row["question"] for row in skewed] == [one.question for page in taught for one in page]

    def test_the_last_stage_shows_other_drawings_than_the_eye_test(self):
        """By digest of the description; and its answers are right."""
        for number, (name, optotype) in enumerate(curriculum.CHARTS):
            taught = curriculum.chart(number)
            tested = EyeChart(chart=name, n=160, seed=0, size=None, split="test", optotype=optotype)
            drawn = {tested.sample(i, tested.labels, None).images[0].sha256 for i in range(0, 160, 40)}
            assert drawn.isdisjoint(taught.sample(i, taught.labels, None).images[0].sha256 for i in range(40))
            assert set(taught.labels) == set(tested.labels)

    def test_the_last_stage_mixes_turns_and_charts(self):
        figs = curriculum.training_figures(False, 0)[:500]
        pages = list(curriculum.last_lessons(figs, 0, 20, 60))
        rows = [row for page in pages for row in page]
        assert [len(page) for page in pages] == [60] * 20
        charts = [row for row in rows if row.chart]
        assert len(charts) == pytest.approx(20 * 60 * (1 - curriculum.FIGURES_SHARE))
        by_name = {"/".join(names): curriculum.chart(i) for i, names in enumerate(curriculum.CHARTS)}
        assert {row.chart for row in charts} == set(by_name)
        for row in charts:
            assert row.answer == by_name[row.chart].row(row.figure).label
        before = [row for row in rows if row.before]
        assert 0.2 < len(before) / (len(rows) - len(charts)) < 0.4
        assert all(len(row.before) == 2 for row in before)

    def test_an_unknown_task(self):
        with pytest.raises(ValueError, match="known: multiple-choice"):
            curriculum.ask(random.Random(0), held_out(1)[0], "sing")


def test_training_runs_from_a_seed_and_twice_alike(tmp_path, monkeypatch):
    """The real script, a few steps of each stage: all four models, and the same weights again."""
    import torch
    from safetensors.torch import load_file

    from snellen.pico_recipe import train

    threads = torch.get_num_threads()
    monkeypatch.setattr(train, "STEPS", dict.fromkeys(train.STEPS, 2))
    monkeypatch.setattr(curriculum, "FIGURES", 56)
    monkeypatch.setattr(curriculum, "FIGURES_SKEWED", 60)
    monkeypatch.setattr(curriculum, "PICTURES", 16)
    monkeypatch.setattr(train, "BATCH", dict.fromkeys(train.BATCH, 8))
    weights = []
    for i in range(2):
        train.main(["--out", str(tmp_path / str(i))])
        weights.append({n: load_file(tmp_path / str(i) / n / "model.safetensors") for n in train.MODELS})
    torch.set_num_threads(threads)
    for name in train.MODELS:
        one, other = weights[0][name], weights[1][name]
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    tower = {k: v for k, v in weights[0]["llava"].items() if "vision_tower" in k}
    assert tower
    assert all(v.dtype == torch.float16 for v in tower.values())
