"""Scores that come after an examination: embeddings, overlap, CLIPScore, a judge."""

from __future__ import annotations

import asyncio
import json
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import snellen
from copies import write_copy
from helpers import Scripted, made, sample
from snellen.datasets.chart import chart
from snellen.errors import BadOption, ModelError
from snellen.metrics.stats import mean
from snellen.models.base import MODELS
from snellen.models.dual_encoder import DualEncoder
from snellen.runs.rescore import rescore
from snellen.runs.run import open_run
from snellen.scorers.base import SamplePrediction
from snellen.scorers.judge import Judge, parse_grade
from snellen.scorers.overlap import Overlap
from snellen.scorers.similarity import Similarity, study_figures
from snellen.storage.store import Store
from snellen.types import Kind, Outcome, Response


def predicted(answer, *references, **more):
    one = sample((), references=references, **more)
    return SamplePrediction(one, answer, Outcome.OK if answer else Outcome.UNPARSED, {}, lambda: one)


async def nobody(model, requests):
    raise AssertionError("no model is asked")


def score(scorer, found, ask=nobody):
    return asyncio.run(scorer.score(found, ask))


class TestSimilarity:
    def test_is_the_cosine_of_sentence_transformers(self, minilm):
        from sentence_transformers import SentenceTransformer, util

        texts = [
            ("a red star", ("a red star on paper", "a blue ring")),
            ("nothing like it", ("a green house",)),
        ]
        found = score(Similarity(minilm), [predicted(a, *r) for a, r in texts])
        model = SentenceTransformer(minilm, device="cpu")
        for (answer, references), one in zip(texts, found, strict=True):
            cosines = util.cos_sim(model.encode(answer), model.encode(list(references)))
            assert one["similarity"] == pytest.approx(float(cosines.max()), abs=1e-5)

    def test_no_answer_scores_nothing_and_no_truth_no_score(self, minilm):
        assert score(Similarity(minilm), [predicted("", "a"), predicted("a")]) == [{"similarity": 0.0}, {}]
        assert score(Similarity(minilm), []) == []

    @given(st.lists(st.floats(-1, 1), max_size=30))
    def test_the_study_s_figures_by_hand(self, values):
        figures = study_figures(values)
        if not values:
            assert figures == {}
            return
        best = sorted(values)[::-1]
        assert figures["win_rate"] == np.mean([v > 0.8 for v in values])
        for k in (1, 5, 10):
            assert figures[f"top_{k}"] == pytest.approx(np.mean(best[:k]) if len(best) >= k else 0)

    def test_a_model_that_is_absent_says_how_to_get_it(self, workspace):
        with pytest.raises(ModelError, match="hf download sentence-transformers/all-MiniLM-L6-v2"):
            snellen.run(model="pico:llava", data="chart:shapes?ask=caption", protocol="caption", limit=2)


class TestOverlap:
    PAIRS: ClassVar[list[tuple[str, tuple[str, ...]]]] = [
        ("a red star at the left", ("a red star on the left side", "the star is red")),
        ("a blue ring", ("a small blue ring in the middle",)),
        ("a house", ("a green tree", "one tree")),
        ("", ("a key",)),
    ]

    def test_equals_the_libraries(self):
        import sacrebleu
        from rouge_score.rouge_scorer import RougeScorer

        found = score(Overlap(), [predicted(a, *r) for a, r in self.PAIRS])
        rouge = RougeScorer(["rougeL"])
        for (answer, references), one in zip(self.PAIRS, found, strict=True):
            best = max(rouge.score(r, answer)["rougeL"].fmeasure for r in references) if answer else 0
            assert one["rouge_l"] == pytest.approx(best)
            bleu = sacrebleu.sentence_bleu(answer, list(references)).score / 100 if answer else 0
            assert one["bleu_4"] == pytest.approx(bleu)

    def test_cider_by_its_definition(self):
        """tf-idf vectors of 1- to 4-grams, cosine with clipping and a penalty for length, times ten."""
        import math
        from collections import Counter

        pairs = [(a.split(), [r.split() for r in rs]) for a, rs in self.PAIRS]

        def grams(words, n):
            return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

        found = score(Overlap(), [predicted(a, *r) for a, r in self.PAIRS])
        for (answer, references), one in zip(pairs, found, strict=True):
            total = 0.0
            for n in range(1, 5):
                df = Counter(g for _, rs in pairs for g in {g for r in rs for g in grams(r, n)})

                def vector(words, n=n, df=df):
                    return {
                        g: c * (math.log(len(pairs)) - math.log(max(1, df[g])))
                        for g, c in grams(words, n).items()
                    }

                mine = vector(answer)
                for reference in references:
                    other = vector(reference)
                    dot = sum(min(v, other.get(g, 0)) * other.get(g, 0) for g, v in mine.items())
                    norms = math.hypot(*mine.values()) * math.hypot(*other.values()) if mine and other else 0
                    far = len(answer) - len(reference)
                    total += (dot / norms if norms else 0) * math.exp(-(far**2) / 72) / len(references)
            assert one["cider"] == pytest.approx(10 * total / 4, abs=1e-6)

    def test_other_scripts_have_words_too(self):
        (one,) = score(Overlap(), [predicted("красная звезда", "красная звезда")])
        assert one["rouge_l"] == 1

    def test_bleu_of_the_whole_is_sacrebleus(self):
        import sacrebleu

        found = [predicted(a, *r) for a, r in self.PAIRS]
        streams = [[r[i] if i < len(r) else None for _, r in self.PAIRS] for i in range(2)]
        expected = sacrebleu.corpus_bleu([a for a, _ in self.PAIRS], streams).score / 100  # type: ignore[arg-type]
        assert Overlap().overall(found, [])["corpus_bleu_4"] == pytest.approx(expected)


class TestClipScore:
    def test_is_two_and_a_half_cosines(self, workspace):
        run = snellen.run(
            model="pico:llava",
            data="chart:shapes?ask=caption",
            protocol="caption?metrics=overlap&clip=pico:clip",
            limit=6,
        )
        clip = made(DualEncoder, "pico:clip")
        clip.templates = ("A photo depicts {}",)
        from snellen.types import Message, Request

        data = chart("shapes", n=280, ask="caption")
        for i, row in enumerate(run.predictions.to_dict("records")):
            image = data.sample(i, data.labels, None).images[0]
            request = Request((Message("user", (image, "")),), Kind.SCORE, continuations=(row["prediction"],))
            (reply,) = clip.answer([request])
            assert row["metrics"]["clipscore"] == pytest.approx(2.5 * max(reply.scores[0].value, 0), abs=1e-6)
        assert run.metrics["clipscore"].n == 6

    def test_cannot_be_had_of_images_that_are_gone(self, workspace):
        run = snellen.run(
            model="pico:llava", data="chart:shapes?ask=caption", protocol="caption?metrics=overlap", limit=2
        )
        with pytest.raises(BadOption, match="no caption could be compared.*contains only its images' hashes"):
            rescore(Store(workspace), run.id, {"clip": "pico:clip"})
        assert len(Store(workspace).list_runs()) == 1

    def test_takes_a_dual_encoder(self, workspace):
        with pytest.raises(BadOption, match="a dual encoder"):
            snellen.run(
                model="pico:llava",
                data="chart:shapes?ask=caption",
                protocol="caption?metrics=overlap&clip=pico:llava",
                limit=1,
            )


@pytest.fixture
def copies(tmp_path, monkeypatch):
    monkeypatch.setenv("SNELLEN_DATA", str(tmp_path / "copies"))
    return tmp_path / "copies"


@pytest.fixture
def judge(monkeypatch):
    """A judge who gives 5 where the candidate is the reference, and 2 elsewhere; contrary when swapped."""
    made = Scripted(grade, "judge")
    made.text_only = True
    MODELS.register("judge")(lambda rest, **options: made)
    return made


def grade(request) -> str:
    lines = dict(line.split(": ", 1) for line in request.messages[0].text.splitlines() if ": " in line)
    if "strange" in lines["Candidate"]:
        return "I would rather not."
    return "Grade: 5" if lines["Candidate"] in lines["Reference"].split(" / ") else "2/5"


class TestJudge:
    def test_grades_are_shares_and_the_judge_is_named(self, judge, workspace):
        said = iter(["red", "blue", "strange", ""])
        data = chart("shapes", n=4, ask="color")
        answers = {data.row(i).id: next(said) for i in range(4)}
        truth = {data.row(i).id: data.sample(i, (), None).references[0] for i in range(4)}
        answers[data.row(0).id] = truth[data.row(0).id]
        answers[data.row(1).id] = "no color of these"
        model = Scripted(lambda r: answers[r.sample.id])
        run = snellen.run(model=model, data=data, protocol="vqa?judge=judge:x&prompt={question}")
        rows = run.predictions["metrics"].tolist()
        assert [row.get("judge") for row in rows] == [1.0, 0.25, None, 0.0]
        assert run.metrics["judge"].n == 3
        told = run.metrics.protocol
        assert told["judge"] == "judge:x"
        assert (told["not_graded"], told["judge_errors"]) == (1, 0)
        assert told["judge_agrees_with_itself_swapped"] == 1
        assert told["judge_agrees_with_exact_match"] == 1
        assert len(judge.asked) == 6  # three answers, two orders each
        texts = [request.messages[0].text for request in judge.asked[:2]]
        assert texts[0].index("Reference: ") < texts[0].index("Candidate: ")
        assert texts[1].index("Reference: ") > texts[1].index("Candidate: ")
        assert not judge.asked[0].images

    def test_correctness_from_0_to_1(self, judge, copies, workspace):
        """As the authors of MM-Vet have answers graded: once each, the reference first; and their figures."""
        write_copy("mm-vet", copies)
        judge.script = lambda request: "0.5" if "heron" in request.messages[0].text else "Correctness: 1.0"
        model = Scripted(lambda request: "-1 and -5")
        run = snellen.run(model=model, data="mm-vet", protocol="instruct?judge=judge:x&metrics=overlap")
        assert run.manifest.protocol.options["rubric"] == "correctness"
        assert run.predictions["metrics"].str["judge"].tolist() == [1.0, 0.5]
        assert len(judge.asked) == 2
        text = judge.asked[0].messages[0].text
        assert "Reference: -1<AND>-5\nCandidate: -1 and -5" in text
        figures = {(figure.group, figure.name): figure.value for figure in run.metrics.official}
        assert figures["", "total"] == 0.75
        assert {k: v for k, v in figures.items() if k[0] == "capability"} == {
            ("capability", "rec"): 0.5,
            ("capability", "ocr"): 1.0,
            ("capability", "math"): 1.0,
        }
        assert figures["combination", "ocr,math"] == 1.0
        assert "judge_agrees_with_itself_swapped" not in run.metrics.protocol

    def test_is_asked_once_and_remembered(self, judge, workspace):
        data = chart("shapes", n=3, ask="color")
        model = Scripted(lambda r: "red")
        run = snellen.run(model=model, data=data, protocol="vqa?prompt={question}")
        assert judge.asked == []
        with Store(workspace).database.engine.connect():
            new = open_run(rescore(Store(workspace), run.id, {"judge": "judge:x"}))
        assert len(model.asked) == 3
        asked = len(judge.asked)
        assert asked >= 2
        assert new.metrics["judge"].n == 3
        assert new.metrics["exact_match"] == run.metrics["exact_match"]
        again = rescore(Store(workspace), run.id, {"judge": "judge:x", "metric": "contains"})
        assert len(judge.asked) == asked
        assert open_run(again).metrics["judge"] == new.metrics["judge"]

    def test_a_model_that_needs_an_image_is_no_judge(self, workspace):
        with pytest.raises(BadOption, match="generates text without an image"):
            snellen.run(
                model=Scripted(lambda r: "x"),
                data="chart:shapes?ask=color",
                protocol="vqa?judge=pico:clip",
                limit=1,
            )

    def test_what_was_not_graded_is_asked_again(self, judge, workspace):
        data = chart("shapes", n=2, ask="color")
        tries = []

        def script(request):
            tries.append(request)
            return grade(request) if len(tries) > 2 else Response(outcome=Outcome.ERROR, reason="down")

        judge.script = script
        model = Scripted(lambda r: "red" if r.sample.id.endswith("0") else "blue")
        run = snellen.run(model=model, data=data, protocol="vqa?judge=judge:x&prompt={question}")
        assert run.metrics.protocol["judge_errors"] == 1
        asked = len(model.asked)
        again = snellen.run(model=model, data=data, protocol="vqa?judge=judge:x&prompt={question}")
        assert again.id == run.id
        assert again.metrics.protocol["judge_errors"] == 0
        assert len(model.asked) == asked

    def test_another_judge_of_the_same_name_is_another_run(self, judge, workspace, monkeypatch):
        model = Scripted(lambda r: "red")
        options = {
            "data": chart("shapes", n=2, ask="color"),
            "protocol": "vqa?judge=judge:x&prompt={question}",
        }
        one = snellen.run(model=model, **options)
        assert list(one.manifest.scorers) == [{"judge:x": {"scripted": "judge:x"}}]
        monkeypatch.setattr(type(judge), "identity", lambda self: {"scripted": self.name, "weights": "new"})
        other = snellen.run(model=Scripted(lambda r: "red"), **options)
        assert other.id != one.id

    def test_a_judge_without_a_price_is_refused_under_a_budget(self, workspace):
        with pytest.raises(BadOption, match="--max-cost: the price of openai:j.* is unknown"):
            snellen.run(
                model="pico:llava",
                data="chart:shapes?ask=color",
                protocol="vqa?judge=openai:j?base_url=http://127.0.0.1:9/v1",
                limit=1,
                max_cost=1.0,
            )

    def test_what_a_judge_costs_is_told(self, judge, workspace, monkeypatch):
        monkeypatch.setattr(
            type(judge), "price", lambda self, usage: 0.01 * usage.requests if self is judge else None
        )
        run = snellen.run(
            model=Scripted(lambda r: "red"),
            data=chart("shapes", n=3, ask="color"),
            protocol="vqa?judge=judge:x&prompt={question}",
        )
        assert run.metrics.cost is None
        assert run.metrics.scoring_cost == pytest.approx(0.06)

    def test_is_foreseen(self, judge, workspace):
        from snellen.runs.plan import Plan

        plan = Plan(
            models=["pico:llava"], data=["chart:shapes?ask=color&n=10"], protocols=["vqa?judge=judge:x"]
        )
        asked, judged = plan.forecasts()
        assert asked.requests == (10, 10)
        assert (judged.model, judged.requests) == ("judge:x", (0, 20))
        assert judged.tokens_in[1] > 20 * 100
        assert judged.tokens_out == (0, 20 * 16)

    def test_an_address_with_a_password_stands_nowhere(self, workspace, capsys, monkeypatch):
        from snellen import cli

        address = "openai:x?base_url=http://me:hunter2@127.0.0.1:9/v1"
        arguments = ["--model", "pico:llava", "--data", "chart:shapes?ask=color", "--limit", "1", "--quiet"]
        monkeypatch.setattr("snellen.models.remote.base.PATIENCE", 0.1, raising=False)
        monkeypatch.setattr("sys.argv", ["snellen", "run", *arguments, "-P", f"judge={address}"])
        with pytest.raises(SystemExit):
            cli.main()
        told = capsys.readouterr()
        assert "hunter2" not in told.out + told.err
        stored = b"".join(path.read_bytes() for path in workspace.rglob("*") if path.is_file())
        assert b"hunter2" not in stored

    @pytest.mark.parametrize(
        ("text", "grade"),
        [
            ("4", 4),
            ("**5**", 5),
            ("Grade: 3 out of 5", 3),
            ("5/5", 5),
            ("", None),
            ("6", None),
            ("4 or 5", None),
            ("I give it a 2.", 2),
            ("<think>5? no</think>1", 1),
        ],
    )
    def test_what_is_a_grade(self, text, grade):
        assert parse_grade(text) == grade

    def test_what_fails_is_counted(self):
        async def broken(model, requests):
            return [Response(outcome=Outcome.ERROR, reason="down")] * len(requests)

        found = [predicted("a", "a"), predicted("", "a")]
        scorer = Judge("x")
        scorer.model = Scripted(lambda r: "")
        scores = score(scorer, found, broken)
        assert scores == [{"_failed": 1.0}, {"judge": 0.0}]
        told = scorer.overall(found, scores)
        assert (told["judge_errors"], told["not_graded"]) == (1, 0)


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 5)), min_size=1, max_size=40))
def test_a_mean_lies_within_its_interval_and_the_range(pairs):
    values, clusters = [v for v, _ in pairs], [c for _, c in pairs]
    found = mean(values, clusters, -1, 1)
    assert found.value == pytest.approx(np.mean(values))
    assert found.low <= found.value + 1e-12
    assert found.high >= found.value - 1e-12
    assert found.low >= -1
    assert found.high <= 1


def test_a_mean_s_interval_is_student_s():
    from scipy import stats

    values = np.random.default_rng(0).normal(20, 5, 30).tolist()
    found = mean(values, range(30), 0, 100)
    low, high = stats.t.interval(0.95, 29, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert json.dumps(mean([3.0], [0], 0, np.inf).as_dict()) == '{"value": 3.0, "low": 0, "high": null}'
    same = mean([0.1] * 3, range(3))
    assert same.low < 0.1 < same.high  # three that are alike are not the whole world
    assert mean([1, 0.9, 9.5], range(3), 0, 10).high == 10
