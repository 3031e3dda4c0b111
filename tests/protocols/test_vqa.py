"""Questions with free answers, of yes or no, captions, and grounding."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snellen
from helpers import REFUSED, Scripted, converse, picture, sample, text_of
from snellen.errors import BadOption
from snellen.protocols.caption import Caption
from snellen.protocols.grounding import Grounding
from snellen.protocols.multiple_choice import MultipleChoice
from snellen.protocols.rationale import Rationale
from snellen.protocols.vqa import VQA
from snellen.protocols.yes_no import YesNo
from snellen.runs.rescore import rescore
from snellen.runs.run import open_run
from snellen.storage.store import Store
from snellen.types import Outcome, Region, Response, Sample
from tasks import question


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
        one = Sample("s", (picture(size=(100, 100)),), regions=(Region((0, 0, 50, 50), "it", (square,)),))
        protocol = Grounding(task="segment", format="pixels")
        found, _ = converse(protocol.examine(one), lambda r: '[{"polygon": [0,0,50,0,50,50,0,50]}]')
        assert protocol.score_sample(one, found) == {"mask_iou": 1.0}
        # Behind a post, an object has two parts.
        other = tuple((x + 50, y) for x, y in square)
        parts = Region((0, 0, 100, 50), "it", (square, other))
        both = Sample("s", (picture(size=(100, 100)),), regions=(parts,))
        assert protocol.score_sample(both, found)["mask_iou"] == pytest.approx(
            1.0
        )  # of what it was asked about
        found, _ = converse(protocol.examine(both), lambda r: '[{"polygon": [0,0,50,0,50,50,0,50]}]')
        assert protocol.score_sample(both, found)["mask_iou"] == pytest.approx(0.5, abs=0.01)

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
        regions=(Region((0, 0, 8, 8), "cat", (square,)),),
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
