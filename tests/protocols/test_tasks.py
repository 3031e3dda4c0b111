"""Runs of all tasks: tables as data, categories, rankings, and what failed."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

import snellen
from helpers import Scripted, picture
from snellen.errors import BadOption, DataError
from snellen.protocols.yes_no import YesNo
from snellen.runs.compare import compare
from snellen.storage.store import Store
from snellen.types import Outcome, Response


def test_the_right_words_for_what_a_data_set_lacks(workspace):
    for protocol, what in (("multiple-choice", "options"), ("rationale", "a question with options")):
        with pytest.raises(DataError, match=f"needs {what}.*has none"):
            snellen.run(model=Scripted(lambda r: ""), data="chart:acuity", protocol=protocol, limit=1)


def test_runs_by_score_are_ranked_and_compared(workspace):
    """A better and a worse writer of captions, told apart by their mean ROUGE and CIDEr."""
    from snellen.datasets.chart import chart

    data = chart("shapes", n=40, ask="caption")
    good = Scripted(lambda r: r.sample.references[0], "good")
    bad = Scripted(lambda r: "a " + r.sample.references[0].split()[-1], "bad")
    runs = [snellen.run(model=m, data=data, protocol="caption?metrics=overlap") for m in (good, bad)]
    assert runs[0].primary == "cider"
    assert runs[0].metrics["rouge_l"].value == pytest.approx(1)
    (one,) = compare(runs)
    assert one.score == "cider"
    assert one.real
    assert one.result.difference.value > 0
    assert one.result.win_rate > 0.9
    assert one.classes == []
    from snellen.reports import page
    from snellen.reports.leaderboard import leaderboards

    assert "cider" in leaderboards(runs)[0].columns[2].header
    html = page.html(runs)
    assert "rouge l" in html
    assert "Confusions" not in html
    assert "| good | caption" in page.markdown(runs).replace("\\", "")


def test_categories_are_told_apart(workspace, tmp_path, capsys):
    rows = [
        {"id": i, "image": "x.png", "question": f"Is it {i}?", "answer": answer, "sort": sort}
        for i, (answer, sort) in enumerate(itertools.product(("yes", "no"), ("big", "small")))
    ]
    picture().pixels.save(tmp_path / "x.png")
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    name = f"jsonl:{tmp_path}/q.jsonl?question=question&answer=answer&answer_as=yes-no&category=sort"

    def script(request):
        return "yes" if request.sample.meta["category"] == "big" else request.sample.references[0]

    run = snellen.run(model=Scripted(script), data=name, protocol="yes-no")
    assert run.metrics.as_dict()["by_category"] == {
        "big": {"value": 0.5, "n": 2},
        "small": {"value": 1.0, "n": 2},
    }
    from rich.console import Console

    from snellen.reports.tables import category_table

    Console().print(category_table(run))
    assert "big" in capsys.readouterr().out


def table(tmp_path, rows, name="t"):
    picture().pixels.save(tmp_path / "x.png")
    rows = [{"image": "x.png", "id": i, **row} for i, row in enumerate(rows)]
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"jsonl:{tmp_path}/{name}.jsonl"


CHOICES = "choices=options&answer=right"


class TestRows:
    """What is wrong with a row is said with its line, before anything is asked, or left out."""

    def test_a_gap_in_a_list_of_options_moves_no_truth(self, tmp_path, workspace):
        rows: list[dict[str, Any]] = [
            {"question": "Which?", "options": ["red", None, "blue", "black"], "right": "C"},
            {"question": "And now?", "options": ["red", "", "blue", "black"], "right": "C"},
        ]
        run = snellen.run(model=Scripted(lambda r: "blue"), data=f"{table(tmp_path, rows)}?{CHOICES}")
        assert run.protocol == "multiple-choice"  # by its columns
        assert run.predictions["label"].tolist() == ["blue", "blue"]
        assert run.metrics["accuracy"].value == 1
        name = f"{table(tmp_path, rows, 'i')}?choices=options&answer=index&answer_as=index"
        rows = [{**row, "index": 2} for row in rows]
        table(tmp_path, rows, "i")
        run = snellen.run(model=Scripted(lambda r: "blue", "other"), data=name)
        assert run.predictions["label"].tolist() == ["blue", "blue"]

    @pytest.mark.parametrize(
        ("row", "options", "message"),
        [
            ({"question": None}, "reference=r", "line 2: question: the question is empty"),
            ({"question": "?", "options": {"A": "red"}}, CHOICES, "line 2: options: a single option"),
            ({"question": "?", "options": {"1": "x", "2": "y"}}, CHOICES, "line 2: options: expected a text"),
            ({"question": "?", "options": ["x", "y"], "right": "Z"}, CHOICES, "line 2: right='Z' is none of"),
            ({"question": "?", "options": ["x"] * 40}, CHOICES, "line 2: 40 options, but there are only 26"),
            ({"question": "?", "box": [1, 2, 3]}, "box=box", r"line 2: box=\[1, 2, 3\] is not a box"),
            ({"question": "?", "box": "10 10 60 x"}, "box=box", "line 2: box='10 10 60 x' is not a box"),
            (
                {"question": "?", "box": [1, 2, 3, None]},
                "box=box",
                "line 2: box=.*None. is not a box",
            ),
            ({"question": "?", "box": {"x": 1}}, "box=box", r"line 2: box={'x': 1} is not a box"),
            ({"question": "?", "image": []}, "reference=r", "line 2: no image"),
            (
                {"question": "?", "polygon": {"size": [8, 8], "counts": [0, 64]}},
                "box=box&polygon=polygon",
                "line 2: polygon=.*is not an outline.*Convert run-length masks",
            ),
            ({"question": float("nan")}, "reference=r", "line 2: question: the question is empty"),
            ({"question": "?", "box": [10, 10, -5, 5]}, "box=box", "line 2: box=.*has no area"),
            ({"question": "?", "box": [float("nan"), 1, 2, 3]}, "box=box", "line 2: box=.*has no area"),
        ],
    )
    def test_a_row_that_cannot_be_read(self, row, options, message, tmp_path, workspace):
        good = {"question": "What?", "options": ["a", "b"], "right": "A", "r": "a", "box": [0, 0, 8, 8]}
        good["polygon"] = [0, 0, 8, 0, 8, 8]
        name = f"{table(tmp_path, [good, {**good, **row}])}?question=question&{options}"
        model = Scripted(lambda r: "[0, 0, 1, 1]")
        more = {"format": "unit"} if "box" in options else {}
        with pytest.raises(DataError, match=message):
            snellen.run(model=model, data=name, protocol_options=more)
        assert model.asked == []
        run = snellen.run(model=model, data=name, protocol_options=more, skip_invalid=True)
        assert (run.metrics.n, run.metrics.skipped) == (1, 1)

    def test_samples_without_a_truth_are_counted(self, tmp_path, workspace, monkeypatch, capsys):
        from snellen import cli

        row = {"question": "Which?", "options": ["a", "b"], "right": "A", "said": "A"}
        name = table(tmp_path, [{**row, "question": "1?"}, {**row, "question": "2?", "right": None}])
        options = ["--model", "replay:said", "--data", f"{name}?{CHOICES}", "--quiet"]
        monkeypatch.setattr("sys.argv", ["snellen", "run", *options])
        with pytest.raises(SystemExit):
            cli.main()
        told = capsys.readouterr()
        assert "of 1" in told.out
        assert "1 of 2 samples of" in told.err
        assert "no usable reference answer" in told.err

    def test_a_column_that_no_one_declared_enters_no_prompt(self, tmp_path, workspace):
        """A column named hint, pair or rationale is just a column, until it is declared."""
        row = {"question": "?", "options": ["a", "b"], "right": "A", "hint": "It is a.", "pair": 1, "n": 2}
        name = table(tmp_path, [row])
        from snellen.datasets.base import DATASETS, select

        plain = select(DATASETS.make(f"{name}?{CHOICES}"))[0]
        assert not {"hint", "pair", "rationale"} & set(plain.meta)
        assert plain.meta["n"] == 2
        model = Scripted(lambda r: "A")
        snellen.run(model=model, data=f"{name}?{CHOICES}", protocol="multiple-choice", progress=False)
        assert all("It is a" not in request.messages[-1].text for request in model.asked)
        declared = select(DATASETS.make(f"{name}?{CHOICES}&hint=hint&pair=pair"))[0]
        assert (declared.meta["hint"], declared.meta["pair"]) == ("It is a.", "1")

    def test_nothing_is_not_a_reference(self, tmp_path, workspace):
        name = table(
            tmp_path,
            [{"question": "1?", "r": ""}, {"question": "2?", "r": None}, {"question": "3?", "r": "a"}],
        )
        run = snellen.run(model=Scripted(lambda r: "a"), data=f"{name}?reference=r")
        assert run.protocol == "vqa"
        assert run.metrics["exact_match"].n == 1

    def test_one_image_says_nothing_of_others(self, tmp_path, workspace):
        rows = [{"question": f"{i}?", "r": "a" if i % 2 else "b"} for i in range(20)]
        run = snellen.run(model=Scripted(lambda r: "a"), data=f"{table(tmp_path, rows)}?reference=r")
        assert (run.metrics["exact_match"].low, run.metrics["exact_match"].high) == (0, 1)


def test_pairs_that_do_not_go_together_are_left_out_and_said_so(workspace, capsys, monkeypatch):
    from snellen.runs.plan import Plan

    plan = Plan(
        models=[Scripted(lambda r: "yes")],
        data=["chart:shapes", "chart:shapes?ask=multiple-choice"],
        protocols=["closed-set", "rationale"],
    )
    assert len(plan.skipped) == 2
    assert "The protocol 'rationale' needs a question with options" in plan.skipped[0]
    with pytest.raises(DataError, match="needs a question with options"):
        Plan(models=[Scripted(lambda r: "yes")], data=["chart:shapes"], protocols=["rationale"])


def test_replay_of_a_column_that_is_not_there_is_refused(tmp_path, workspace):
    from snellen.errors import Unsupported

    name = table(tmp_path, [{"question": "1?", "r": "a"}])
    with pytest.raises(Unsupported, match="lacks a column 'nosuch' in the data, whose columns .*question"):
        snellen.run(model="replay:nosuch", data=f"{name}?reference=r")


def test_a_refused_judge_leaves_no_run(workspace):
    with pytest.raises(BadOption):
        snellen.run(
            model=Scripted(lambda r: "x"),
            data="chart:shapes?ask=color",
            protocol="vqa?judge=pico:clip",
            limit=1,
        )
    assert not (workspace / "snellen.db").exists() or Store(workspace).list_runs() == []


class TestWhatFailedStaysInEveryFigure:
    def test_of_yes_and_no(self, tmp_path, workspace):
        """Five right and five that failed: a pair of one right answer and one error is no right pair."""
        rows = [{"question": f"{i}?", "answer": "yes" if i % 2 else "no", "pair": i // 2} for i in range(10)]
        name = f"{table(tmp_path, rows)}?question=question&answer=answer&answer_as=yes-no&pair=pair"

        def script(request):
            true = request.sample.references[0]
            return true if true == "no" else Response(outcome=Outcome.ERROR, reason="down")

        run = snellen.run(model=Scripted(script), data=name)
        assert run.protocol == "yes-no"
        assert run.metrics.outcomes["error"] == 5
        assert run.metrics["accuracy"].value == 0.5
        told = run.metrics.protocol
        assert told["recall"] == told["f1"] == 0  # of five that are yes, none was said to be
        assert told["accuracy_plus"] == 0
        assert (told["pairs"], told["incomplete_pairs"]) == (5, 0)

    def test_of_detection(self, tmp_path, workspace):
        rows = [{"question": f"the thing {i}", "box": [0, 0, 8, 8]} for i in range(10)]
        name = f"{table(tmp_path, rows)}?question=question&box=box"

        def script(request):
            if request.sample.id not in ("0", "1"):
                return Response(outcome=Outcome.ERROR, reason="down")
            label = request.sample.regions[0].name
            return json.dumps([{"bbox_2d": [0, 0, 0.5, 0.5], "label": label}])

        run = snellen.run(model=Scripted(script), data=name, protocol="grounding?task=detect&format=unit")
        assert run.metrics["f1_50"].value == pytest.approx(0.2)
        assert run.metrics.protocol["ap_50"] == pytest.approx(0.2, abs=0.01)

    def test_single_questions_are_no_pairs(self):
        rows = [{"true": "yes", "said": "yes", "pair": i} for i in range(10)]
        figures = YesNo().summary(rows)
        assert "accuracy_plus" not in figures
        assert figures["incomplete_pairs"] == 10


def test_a_bad_first_row_can_be_left_out_too(tmp_path, workspace):
    rows = [{"question": None, "r": "a"}, *({"question": f"{i}?", "r": "a"} for i in range(3))]
    name = f"{table(tmp_path, rows)}?question=question&reference=r"
    run = snellen.run(model=Scripted(lambda r: "a"), data=name, skip_invalid=True)
    assert (run.metrics.n, run.metrics.skipped) == (3, 1)


def test_the_report_of_rank_shows_its_scores(workspace):
    from snellen.reports import page

    run = snellen.run(model="pico:clip", data="chart:shapes", protocol="rank", limit=2)
    best = run.predictions["ranking"][0][0]
    assert f"→ {best} 0." in page.html([run])
    assert run.predictions["metrics"].tolist() == [{}, {}]
