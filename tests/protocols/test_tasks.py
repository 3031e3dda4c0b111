"""Protocols beyond classification: pure functions of (options, sample, responses), and whole runs."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snellen
from helpers import REFUSED, Scripted, converse, picture, sample, text_of
from snellen.errors import BadOption, DataError
from snellen.parsing.choices import LETTERS
from snellen.protocols.caption import Caption
from snellen.protocols.grounding import Grounding
from snellen.protocols.multiple_choice import MultipleChoice
from snellen.protocols.rationale import Rationale
from snellen.protocols.vqa import VQA
from snellen.protocols.yes_no import YesNo
from snellen.runs.compare import compare
from snellen.runs.rescore import rescore
from snellen.runs.run import open_run
from snellen.storage.store import Store
from snellen.types import Outcome, Prediction, Region, Response, Sample

OPTIONS = ("a star", "a circle", "a ring", "a moon")


def question(options=OPTIONS, answers=(1,), **more) -> Sample:
    return sample((), question="What is it?", choices=tuple(options), answers=tuple(answers), **more)


def shown(request) -> list[str]:
    return [line[3:] for line in text_of(request).splitlines() if line[1:3] == ". "]


def choosing(name):
    """A model that finds an option wherever it stands."""
    return lambda request: LETTERS[shown(request).index(name)]


class TestMultipleChoice:
    def test_asks_letters_and_reads_one(self):
        found, (request,) = converse(MultipleChoice().examine(question()), lambda r: "B")
        assert text_of(request) == (
            "What is it?\nA. a star\nB. a circle\nC. a ring\nD. a moon\n"
            "Answer with the option's letter from the given choices directly."
        )
        assert (found.label, found.outcome) == ("a circle", Outcome.OK)
        assert MultipleChoice().score_sample(question(), found) == {"accuracy": 1.0}

    def test_what_cannot_be_read_is_wrong_and_never_a_guess(self):
        found, _ = converse(MultipleChoice().examine(question()), lambda r: "Both look right.")
        assert (found.label, found.outcome) == ("", Outcome.UNPARSED)
        assert MultipleChoice().score_sample(question(), found) == {"accuracy": 0.0}
        found, _ = converse(MultipleChoice().examine(question()), lambda r: REFUSED)
        assert found.outcome is Outcome.REFUSED

    def test_without_a_truth_there_is_no_score(self):
        found, _ = converse(MultipleChoice().examine(question(answers=())), lambda r: "B")
        assert MultipleChoice().score_sample(question(answers=()), found) == {}

    def test_a_line_without_its_hint_is_left_out(self):
        protocol = MultipleChoice(prompt="Hint: {hint}\n{question}\n{options}")
        _, (plain,) = converse(protocol.examine(question()), lambda r: "B")
        assert text_of(plain).startswith("What is it?")
        _, (hinted,) = converse(protocol.examine(question(meta={"hint": "It is round."})), lambda r: "B")
        assert text_of(hinted).startswith("Hint: It is round.\nWhat")
        _, (usual,) = converse(MultipleChoice().examine(question(meta={"hint": "Round."})), lambda r: "B")
        assert text_of(usual).startswith("Hint: Round.\nWhat")
        _, (none,) = converse(MultipleChoice(hint=False).examine(question(meta={"hint": "R"})), lambda r: "B")
        assert "Hint" not in text_of(none)

    def test_several_images_stand_where_the_text_names_them(self):
        images = (picture("red"), picture("blue"))
        one = Sample(
            "s", images, question="Is <image 2> like <image 1>?", choices=("yes", "no"), answers=(0,)
        )
        _, (request,) = converse(MultipleChoice().examine(one), lambda r: "A")
        kinds = [
            part if isinstance(part, str) else images.index(part) for part in request.messages[0].content
        ]
        assert kinds[:4] == ["Is ", 1, " like ", 0]

    def test_marks_of_llava_are_places_or_text(self):
        images = (picture("red"), picture("blue"))
        one = Sample("s", images, question="<image>\n<image>\nSame?", choices=("yes", "no"), answers=(0,))
        _, (request,) = converse(MultipleChoice().examine(one), lambda r: "A")
        kinds = [
            part if isinstance(part, str) else images.index(part) for part in request.messages[0].content
        ]
        assert kinds[:3] == [0, "\n", 1]
        one = Sample("s", images, question="What is <image> in HTML?", choices=("yes", "no"), answers=(0,))
        _, (request,) = converse(MultipleChoice().examine(one), lambda r: "A")
        assert request.messages[0].content[:2] == images
        assert "What is <image> in HTML?" in text_of(request)

    def test_an_image_that_is_not_there_is_left_as_text(self):
        one = Sample("s", (picture(),), question="See <image 3>.", choices=("yes", "no"), answers=(0,))
        _, (request,) = converse(MultipleChoice().examine(one), lambda r: "A")
        assert "<image 3>" in text_of(request)

    def test_several_letters(self):
        protocol = MultipleChoice(all_that_apply=True)
        one = question(answers=(0, 2))
        found, _ = converse(protocol.examine(one), lambda r: "A, C")
        assert (found.label, protocol.score_sample(one, found)) == ("a star, a ring", {"accuracy": 1.0})
        found, _ = converse(protocol.examine(one), lambda r: "A")
        assert protocol.score_sample(one, found) == {"accuracy": 0.0}

    def test_open_questions_are_mixed_in(self):
        one = sample((), question="How many?", references=("3/4", "0.75"))
        protocol = MultipleChoice()
        found, (request,) = converse(protocol.examine(one), lambda r: "The answer is 0.75")
        assert "single word or phrase" in text_of(request)
        assert found.label == "0.75"
        assert protocol.score_sample(one, found) == {"accuracy": 1.0}
        found, _ = converse(protocol.examine(one), lambda r: "about a half")
        assert protocol.score_sample(one, found) == {"accuracy": 0.0}

    def test_by_likelihood(self):
        found, (request,) = converse(
            MultipleChoice(score="letters").examine(question()), lambda r: [-3, -1, -2, -4]
        )
        assert request.continuations == ("A", "B", "C", "D")
        assert found.label == "a circle"
        found, (request,) = converse(
            MultipleChoice(score="texts").examine(question()), lambda r: [-3, -2, -1, -4]
        )
        assert request.continuations == OPTIONS
        assert "A." not in text_of(request)
        assert found.label == "a ring"
        found, _ = converse(MultipleChoice(score="letters").examine(question()), lambda r: [-1, -1, -2, -4])
        assert found.outcome is Outcome.UNPARSED

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"score": "texts", "circular": True}, "options have no order"),
            ({"score": "letters", "cot": True}, "nothing is generated"),
            ({"prompt": "Which?"}, "must contain {question}"),
            ({"max_tokens": 0}, "1 or more"),
        ],
    )
    def test_options_that_make_no_sense(self, options, message):
        with pytest.raises(BadOption, match=message):
            MultipleChoice(**options)


class TestCircular:
    """CircularEval: on the same answers the score is that of a brute-force recount."""

    @pytest.mark.parametrize("request_batch", [1, 2, 32])
    @given(data=st.data())
    def test_equals_a_recount(self, request_batch, data):
        count = data.draw(st.integers(2, 5))
        options = tuple(f"thing {i}" for i in range(count))
        truth = data.draw(st.integers(0, count - 1))
        # What a model says when the options begin with each of them: a place, or something unreadable.
        said = {options[i]: data.draw(st.sampled_from([*LETTERS[:count], "?"])) for i in range(count)}
        one = question(options, (truth,))
        protocol = MultipleChoice(circular=True, request_batch=request_batch)
        found, asked = converse(protocol.examine(one), lambda r: said[shown(r)[0]])

        right = []
        for first in range(count):  # by hand: roll the list on, look up the letter, compare texts
            rolled = options[first:] + options[:first]
            letter = said[rolled[0]]
            right.append(letter != "?" and rolled[LETTERS.index(letter)] == options[truth])
        marks = protocol.score_sample(one, found)
        assert marks == {"circular_accuracy": float(all(right)), "accuracy": float(right[0])}
        needed = right.index(False) + 1 if False in right else count
        assert found.questions == needed
        assert needed <= len(asked) <= min(count, -(-needed // request_batch) * request_batch)

    def test_a_dry_run_foresees_all_rotations(self, workspace):
        from snellen.runs.plan import Plan

        data = "chart:shapes?ask=multiple-choice&n=28"
        (found,) = Plan(
            models=["pico:llava"], data=[data], protocols=["multiple-choice?circular=true"]
        ).forecasts()
        assert found.requests == (28, 4 * 28)

    def test_every_option_stands_in_every_place_once(self):
        protocol = MultipleChoice(circular=True, request_batch=4)
        _, asked = converse(protocol.examine(question()), choosing("a circle"))
        lists = [shown(r) for r in asked]
        assert len(lists) == 4
        for place in range(4):
            assert sorted(one[place] for one in lists) == sorted(OPTIONS)

    def test_a_model_that_likes_a_letter_is_found_out(self):
        protocol = MultipleChoice(circular=True, request_batch=4)
        found, _ = converse(protocol.examine(question(answers=(0,))), lambda r: "A")
        assert protocol.score_sample(question(answers=(0,)), found) == {
            "circular_accuracy": 0.0,
            "accuracy": 1.0,
        }
        figures = protocol.summary([found.details])
        assert figures["answers_by_position"] == [1]  # as the options stand: later ones depend on the first

    def test_position_bias_by_hand(self):
        """A model that likes A: recall 1 where A is right, 0 at the three other places."""
        protocol = MultipleChoice(circular=True, request_batch=4)
        details = [
            converse(protocol.examine(question(answers=(right,))), lambda r: "A")[0].details
            for right in (0, 1, 2, 3)
        ]
        figures = protocol.summary(details)
        assert figures["answers_by_position"] == [4, 0, 0, 0]
        assert figures["truths_by_position"] == [1, 1, 1, 1]
        assert figures["position_bias"] == pytest.approx(3**0.5 / 4)

    def test_an_incomplete_group_is_refused(self):
        details = {"rotations": [[1], [1]], "options": 4}
        with pytest.raises(DataError, match="2 of 4 rotations"):
            MultipleChoice(circular=True).score_sample(
                question(), Prediction("s1", "a circle", details=details)
            )

    def test_what_cannot_be_read_in_a_rotation_is_told(self):
        for request_batch in (1, 4):
            replies = iter(["B", "hm", "A", "C"])
            protocol = MultipleChoice(circular=True, request_batch=request_batch)
            found, _ = converse(protocol.examine(question()), lambda r, replies=replies: next(replies))  # type: ignore[misc]
            assert (found.label, found.outcome) == ("", Outcome.UNPARSED)
            assert "in a rotation" in found.reason
            assert protocol.score_sample(question(), found) == {"circular_accuracy": 0.0, "accuracy": 1.0}

    def test_options_about_others_are_rolled_like_any(self):
        options = ("a star", "a circle", "all of the above")
        _, asked = converse(
            MultipleChoice(circular=True, request_batch=3).examine(question(options)), choosing("a circle")
        )
        assert {shown(r)[0] for r in asked} == set(options)

    def test_waves_change_no_figure(self, workspace):
        """One by one, as behind an address, or all at once."""
        rng = random.Random(0)
        memory: dict[tuple[str, ...], str] = {}

        def script(request):
            return memory.setdefault((request.sample.id, *shown(request)), rng.choice("ABCD"))

        runs = [
            snellen.run(
                model=Scripted(script, f"w{request_batch}"),
                data="chart:shapes?ask=multiple-choice",
                protocol=f"multiple-choice?circular=true&request_batch={request_batch}",
                limit=56,
            )
            for request_batch in (1, 4)
        ]
        one, all_ = (run.metrics for run in runs)
        assert one["circular_accuracy"] == all_["circular_accuracy"]
        assert one["accuracy"] == all_["accuracy"]
        assert one.questions == all_.questions < all_.requests


class TestVQAAndYesNo:
    def test_a_short_answer_and_its_score(self):
        one = sample((), question="What color?", references=("red",) * 3 + ("blue",) * 7)
        protocol = VQA(metric="vqa")
        found, (request,) = converse(protocol.examine(one), lambda r: "Red.")
        assert text_of(request) == "What color?\nAnswer the question using a single word or phrase."
        assert protocol.score_sample(one, found) == {"vqa_accuracy": pytest.approx(0.9), "exact_match": 1.0}
        assert protocol.primary == "vqa_accuracy"

    @pytest.mark.parametrize(
        ("reply", "outcome"),
        [
            ("", Outcome.UNPARSED),
            (REFUSED, Outcome.REFUSED),
            ("I'm sorry, but I can't help with that.", Outcome.REFUSED),
            (Response("red and", outcome=Outcome.TRUNCATED), Outcome.TRUNCATED),
            ("The answer is 3. No: the answer is 4.", Outcome.UNPARSED),
        ],
    )
    def test_no_answer_scores_nothing(self, reply, outcome):
        one = sample((), question="?", references=("",))
        found, _ = converse(VQA().examine(one), lambda r: reply)
        assert (found.label, found.outcome) == ("", outcome)
        assert VQA().score_sample(one, found)["exact_match"] == 0

    @pytest.mark.parametrize(
        ("protocol", "reply", "rule"),
        [
            (YesNo(), "There is no dog in the image.", "statement"),
            (YesNo(), '{"answer": true}', "json"),
            (YesNo(), "perhaps", None),
            (VQA(), "It is red.", "framed"),
            (VQA(), "The answer is red.", "marked"),
            (MultipleChoice(), "**Final Answer**\n\nB", "last line"),
            (MultipleChoice(), "It shows a bike.", "text"),
            (MultipleChoice(), "A or B", None),
        ],
    )
    def test_the_rule_that_read_an_answer_is_kept(self, protocol, reply, rule):
        one = sample((), question="Is there a dog in the image?", choices=("car", "bike"), references=("no",))
        found, _ = converse(protocol.examine(one), lambda r: reply)
        assert found.details["rule"] == [rule]

    def test_pairs_are_right_where_both_questions_are(self):
        """MME's figures, by hand: accuracy 3/4 + accuracy+ 1/2 in one category; 1/2 + 0 in the other."""
        said = {"a1": "yes", "a2": "no", "b1": "yes", "b2": "yes", "c1": "yes", "c2": "no idea"}
        true = {"a1": "yes", "a2": "no", "b1": "yes", "b2": "no", "c1": "yes", "c2": "no"}
        protocol = YesNo()
        rows = []
        for name in said:
            about = {"pair": name[0], "category": "x" if name[0] in "ab" else "y"}
            one = sample((), id=name, question="?", references=(true[name].title(),), meta=about)
            found, _ = converse(protocol.examine(one), lambda r, name=name: said[name])  # type: ignore[misc]
            assert protocol.score_sample(one, found) == {"accuracy": float(said[name] == true[name])}
            rows.append({**found.details, "category": about["category"]})
        figures = protocol.summary(rows)
        assert figures["accuracy_plus"] == pytest.approx(1 / 3)
        assert figures["mme_score"] == pytest.approx(100 * (0.75 + 0.5 + 0.5 + 0))
        assert figures["recall_by_category"] == pytest.approx({"x": 1, "y": 1})
        assert figures["f1_by_category"] == pytest.approx({"x": 0.8, "y": 1.0})
        assert figures["yes_ratio"] == pytest.approx(4 / 6)
        assert figures["precision"] == pytest.approx(3 / 4)
        assert figures["recall"] == 1

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from(["yes", "no", "hm"])), min_size=1, max_size=30))
    def test_f1_is_scikit_learns(self, pairs):
        from sklearn.metrics import f1_score, precision_score, recall_score

        rows = [
            {"true": "yes" if true else "no", "said": None if said == "hm" else said} for true, said in pairs
        ]
        figures = YesNo().summary(rows)
        y, p = [true for true, _ in pairs], [said == "yes" for _, said in pairs]
        assert figures["f1"] == pytest.approx(f1_score(y, p, zero_division=0))
        assert figures["precision"] == pytest.approx(precision_score(y, p, zero_division=0))
        assert figures["recall"] == pytest.approx(recall_score(y, p, zero_division=0))

    def test_an_answer_that_is_neither_is_refused_at_once(self):
        one = sample((), question="?", references=("maybe",))
        assert "yes or no" in YesNo().missing_fields(one)


class TestGrounding:
    ONE = Sample("s", (picture(size=(200, 100)),), regions=(Region((20, 10, 100, 50), "the cat"),))

    def test_an_expression_is_located(self):
        protocol = Grounding(format="pixels")
        found, (request,) = converse(protocol.examine(self.ONE), lambda r: "[20, 10, 100, 50]")
        assert "Locate the cat." in text_of(request)
        assert "in pixels" in text_of(request)
        assert protocol.score_sample(self.ONE, found) == {"acc_50": 1.0, "acc_75": 1.0, "iou": 1.0}
        assert found.details["drawn"]["true"] == [[0.1, 0.1, 0.5, 0.5]]

    def test_half_is_enough_for_the_first_accuracy(self):
        protocol = Grounding(format="unit")
        found, _ = converse(protocol.examine(self.ONE), lambda r: "[0.1, 0.1, 0.5, 0.3]")
        assert protocol.score_sample(self.ONE, found) == {
            "acc_50": 1.0,
            "acc_75": 0.0,
            "iou": pytest.approx(0.5),
        }

    def test_the_format_is_not_chosen_by_the_truth(self):
        """The same numbers mean another box in another format, and the truth has no say."""
        text = "[10, 10, 50, 50]"
        found, _ = converse(Grounding(format="thousand").examine(self.ONE), lambda r: text)
        assert found.details["predicted"][0]["box"] == (0.01, 0.01, 0.05, 0.05)
        found, _ = converse(Grounding(format="unit").examine(self.ONE), lambda r: text)
        assert found.outcome is Outcome.UNPARSED

    def test_two_boxes_where_one_was_asked_for(self):
        found, _ = converse(Grounding(format="unit").examine(self.ONE), lambda r: "[0,0,.1,.1] [0.5,0.5,1,1]")
        assert found.outcome is Outcome.UNPARSED
        assert Grounding(format="unit").score_sample(self.ONE, found)["iou"] == 0

    def test_a_picture_that_was_scaled_says_so(self):
        reply = Response("[40, 20, 200, 100]", meta={"frame": [400, 200]})
        found, _ = converse(Grounding(format="pixels").examine(self.ONE), lambda r: reply)
        assert found.details["predicted"][0]["box"] == (0.1, 0.1, 0.5, 0.5)

    def test_detection(self):
        one = Sample(
            "s",
            (picture(size=(100, 100)),),
            labels=("cat", "dog"),
            regions=(Region((0, 0, 50, 50), "cat"), Region((50, 50, 100, 100), "dog")),
        )
        protocol = Grounding(task="detect", format="unit")
        text = json.dumps(
            [{"bbox_2d": [0, 0, 0.5, 0.5], "label": "Cat"}, {"bbox_2d": [0, 0, 1, 1], "label": "dog"}]
        )
        found, (request,) = converse(protocol.examine(one), lambda r: text)
        assert "cat, dog" in text_of(request)
        assert protocol.score_sample(one, found) == {"f1_50": 0.5, "precision_50": 0.5, "recall_50": 0.5}

    def test_outlines(self):
        square = ((0.0, 0.0), (50.0, 0.0), (50.0, 50.0), (0.0, 50.0))
        one = Sample("s", (picture(size=(100, 100)),), regions=(Region((0, 0, 50, 50), "it", square),))
        protocol = Grounding(task="segment", format="pixels")
        found, _ = converse(protocol.examine(one), lambda r: '[{"polygon": [0,0,50,0,50,50,0,50]}]')
        assert protocol.score_sample(one, found) == {"mask_iou": 1.0}

    def test_a_model_of_unknown_form_is_refused(self, workspace):
        from snellen.datasets.base import Dataset, Row

        class One(Dataset):
            name, labels = "one", ()

            def __len__(self):
                return 1

            def row(self, index):
                return Row("s", None)

            def sample(self, index, labels, background):
                return TestGrounding.ONE

            def digest(self, index):
                return "x"

        with pytest.raises(BadOption, match="-P format=pixels"):
            snellen.run(model=Scripted(lambda r: ""), data=One(), protocol="grounding")
        run = snellen.run(
            model=Scripted(lambda r: "[0.1, 0.1, 0.5, 0.5]"), data=One(), protocol="grounding?format=unit"
        )
        assert run.metrics["acc_50"].value == 1
        assert run.primary == "acc_50"
        from snellen.reports import page

        html = page.html([run])
        assert '<rect class="true"' in html
        assert '<rect class="predicted"' in html
        again = open_run(rescore(Store(), run.id))
        assert again.metrics["iou"] == run.metrics["iou"]


def test_the_right_words_for_what_a_data_set_lacks(workspace):
    for protocol, what in (("multiple-choice", "options"), ("rationale", "a question with options")):
        with pytest.raises(DataError, match=f"needs {what}.*has none"):
            snellen.run(model=Scripted(lambda r: ""), data="chart:acuity", protocol=protocol, limit=1)


def test_a_rationale_is_read_apart_from_its_answer():
    one = question(meta={"rationale": "It is round."})
    found, _ = converse(Rationale().examine(one), lambda r: "B. a circle\nIt is round all about.")
    assert found.label == "B. a circle"
    assert found.details["rationale"] == "It is round all about."
    assert Rationale().score_sample(one, found) == {"accuracy": 1.0}
    cut = Response("B\nIt is", outcome=Outcome.TRUNCATED)
    found, _ = converse(Rationale().examine(one), lambda r: cut)
    assert (found.label, found.outcome) == ("B. a circle", Outcome.TRUNCATED)


def test_captions_that_are_cut_off_are_kept_and_told():
    found, _ = converse(
        Caption(metrics=("overlap",)).examine(sample(())),
        lambda r: Response("a red ring at", outcome=Outcome.TRUNCATED, reason="cut off after 4 tokens"),
    )
    assert (found.label, found.outcome) == ("a red ring at", Outcome.TRUNCATED)
    assert Caption().score_sample(sample(()), found) == {"words": 4.0}


def test_a_number_of_words_is_asked_for():
    _, (request,) = converse(Caption(words=40).examine(sample(())), lambda r: "x")
    assert text_of(request) == "Describe this image in about 40 words."
    with pytest.raises(BadOption, match="set the number"):
        Caption(prompt="In {words} words.")
    with pytest.raises(BadOption, match="similarity, overlap"):
        Caption(metrics=("bleu",))
    with pytest.raises(BadOption, match="there would be no score"):
        Caption(metrics=())


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


TEXTS = st.text(max_size=80) | st.sampled_from(
    [
        "",
        "B",
        "yes",
        "[0.1, 0.2, 0.3, 0.4]",
        "[[[",
        "nan",
        "B\n\n",
        "<think>",
        "\\boxed{",
        "{}",
        "\x00",
        "A" * 30_000,
    ]
)


@pytest.mark.parametrize(
    "name", ["multiple-choice", "vqa", "yes-no", "caption", "instruct", "rationale", "grounding"]
)
@given(data=st.data())
def test_whatever_a_model_writes_has_an_outcome_and_marks_within_their_range(name, data):
    """No text ends a run, and none scores more than the most or less than nothing."""
    from snellen.protocols.base import PROTOCOLS

    options = {
        "multiple-choice": {"circular": data.draw(st.booleans())},
        "vqa": {
            "metric": data.draw(st.sampled_from(["exact", "vqa", "relaxed", "anls", "number", "contains"]))
        },
        "grounding": {
            "format": data.draw(st.sampled_from(["pixels", "unit", "thousand", "loc", "florence", "kosmos"])),
            "task": data.draw(st.sampled_from(["refer", "detect", "segment"])),
        },
    }.get(name, {})
    square = ((0.0, 0.0), (8.0, 0.0), (8.0, 8.0))
    one = sample(
        ("cat", "dog"),
        question="Which?",
        choices=("a cat", "a dog", "3"),
        answers=(1,),
        references=("yes",),
        regions=(Region((0, 0, 8, 8), "cat", square),),
        meta={"rationale": "because", "category": "x", "pair": "p"},
    )
    protocol = PROTOCOLS.make(name, options)
    ends = st.sampled_from([Outcome.OK, Outcome.TRUNCATED, Outcome.REFUSED])
    found, _ = converse(
        protocol.examine(one), lambda request: Response(data.draw(TEXTS), outcome=data.draw(ends))
    )
    assert found.outcome in Outcome
    assert (found.label == "") or found.outcome in (Outcome.OK, Outcome.TRUNCATED)
    for mark, value in protocol.score_sample(one, found).items():
        assert 0 <= value <= (1 if mark != "words" else 30_001)
    json.dumps([dict(found.details), protocol.summary([found.details])], allow_nan=False)


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
            ({"question": "?", "box": [10, 10, -5, 5]}, "box=box", "line 2: box=.*has no area"),
            ({"question": "?", "box": [float("nan"), 1, 2, 3]}, "box=box", "line 2: box=.*has no area"),
        ],
    )
    def test_a_row_that_cannot_be_read(self, row, options, message, tmp_path, workspace):
        good = {"question": "What?", "options": ["a", "b"], "right": "A", "r": "a", "box": [0, 0, 8, 8]}
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
    with pytest.raises(Unsupported, match="no column 'nosuch' in the data, whose columns are: .*question"):
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
