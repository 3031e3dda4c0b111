"""Verdicts on fine-tuning: what a constant or random answer reaches is not better."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from snellen.metrics.stats import mcnemar, paired
from snellen.tuning.results import ClassSpread, Result, corrected, remarks, still_falling


def result(
    labels: list[str], before: list[str], after: list[str], task: str = "photos, closed-set"
) -> Result:
    right = [[float(a == b) for a, b in zip(labels, said, strict=True)] for said in (after, before)]
    difference = paired(right[0], right[1], list(range(len(labels))))
    first, second = ClassSpread.of(labels, before), ClassSpread.of(labels, after)
    return Result(
        task=task,
        score="accuracy",
        first="a",
        second="b",
        before=sum(right[1]) / len(labels),
        after=sum(right[0]) / len(labels),
        paired=difference,
        spread=(first, second) if first and second else None,
    )


def test_an_inspection_set_on_which_all_is_called_nominal_is_not_better():
    """Half nominal, two sorts of defects: 28.2 to 50.0 % of accuracy without one defect found."""
    rng = Random(0)
    labels = ["nominal"] * 500 + ["crack"] * 250 + ["scratch"] * 250
    before = [rng.choice(["nominal", "crack", "scratch"]) for _ in labels]
    found = result(labels, before, ["nominal"] * 1000)
    assert found.after > found.before + 0.1
    assert found.paired.real()
    assert found.verdict == "collapsed"
    assert found.sentence == "collapsed to 'nominal'"
    told = " ".join(remarks([found]))
    assert "always answering 'nominal' reaches 50.0% accuracy" in told
    assert "never predicted: crack, scratch" in told
    assert "--recipe full" in told


def test_a_thousand_circles_and_three_crosses():
    labels = ["circle"] * 1000 + ["cross"] * 3
    before = ["cross"] * 960 + ["circle"] * 40 + ["cross"] * 3
    constant = result(labels, before, ["circle"] * 1003)
    assert (constant.after > 0.99, constant.verdict) == (True, "collapsed")
    perfect = result(labels, before, labels)
    assert perfect.verdict == "better"


def test_random_answers_are_no_better_than_guessing():
    rng = Random(1)
    labels = [rng.choice("abcd") for _ in range(400)]
    unread = [""] * 400
    guesses = [rng.choice("abcd") for _ in labels]
    found = result(labels, unread, guesses)
    assert found.paired.real()
    assert found.sentence == "no better than guessing"


def test_what_is_learned_is_better():
    rng = Random(2)
    labels = [rng.choice("abcd") for _ in range(400)]
    said = [label if rng.random() < 0.5 else rng.choice("abcd") for label in labels]
    assert result(labels, [rng.choice("abcd") for _ in labels], said).verdict == "better"


def test_four_gained_and_none_lost_of_fifty_is_no_difference_shown():
    """An interval by Student's t called it better at p = 0.125."""
    labels = ["a", "b"] * 25
    before = ["b" if k in (0, 2, 4, 6) else label for k, label in enumerate(labels)]
    found = result(labels, before, labels)
    assert (found.paired.only_first, found.paired.only_second) == (4, 0)
    assert found.paired.p == mcnemar(4, 0) == 0.125
    assert found.paired.difference.low == 0
    assert found.verdict == "no difference shown"


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60))
def test_interval_and_test_agree(gained, lost, same):
    n = gained + lost + same
    if not n:
        return
    first = [1.0] * gained + [0.0] * lost + [1.0] * same
    second = [0.0] * gained + [1.0] * lost + [1.0] * same
    found = paired(first, second, list(range(n)))
    excluded = found.difference.low > 0 or found.difference.high < 0
    assert not (excluded and found.p >= 0.05)
    assert found.real() is (excluded and found.p < 0.05)


def test_rows_of_a_table_are_corrected():
    labels = ["a", "b"] * 50
    better = [("b" if label == "a" else "a") if k < 7 else label for k, label in enumerate(labels)]
    one = result(labels, better, labels)
    assert one.verdict == "better"  # p = 2 / 2^7
    (alone,) = corrected([one])
    assert alone.verdict == "better"
    rows = corrected([one, one, one, one])
    assert [row.verdict for row in rows] == ["no difference shown"] * 4
    assert rows[0].p_adjusted == pytest.approx(4 * 2 / 2**7)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=2, max_size=60))
def test_figures_are_scikit_learns(pairs):
    labels, said = (list(column) for column in zip(*pairs, strict=True))
    spread = ClassSpread.of(labels, said)
    if len(set(labels)) < 2:
        assert spread is None
        return
    known = sorted(set(labels))
    assert spread is not None
    mine = [name if name in known else "other" for name in said]
    assert spread.macro_f1 == pytest.approx(f1_score(labels, mine, labels=known, average="macro"))
    recalls = [
        sum(a == b == name for a, b in zip(labels, said, strict=True)) / labels.count(name) for name in known
    ]
    assert spread.balanced_accuracy == pytest.approx(sum(recalls) / len(known))
    if set(said) <= set(known):
        assert spread.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, said))


@pytest.mark.parametrize(
    ("losses", "falls"),
    [
        ([2.0, 1.5, 1.2, 1.0, 0.8, 0.6, 0.5], True),
        ([2.0, 1.0, 0.6, 0.52, 0.5, 0.49, 0.49], False),
        ([2.0, 0.5, 0.4, 0.5, 0.6, 0.7, 0.8], False),
        ([2.0, 0.5, 0.2, 0.05, 0.02, 0.015, 0.01], False),  # all of it is learned
        ([2.0, 1.0], False),  # too few to tell
        ([], False),
    ],
)
def test_a_loss_that_still_falls(losses, falls):
    rows = [{"step": 10 * place, "eval_loss": loss} for place, loss in enumerate(losses)]
    notes = still_falling(
        {"projector": [{"loss": 1.0, "step": 3}], "decoder": [{"loss": 1.0, "step": 1}, *rows]}
    )
    assert bool(notes) == falls
    if falls:
        assert notes == [
            "The held-out loss was still falling at the end (from 0.80 at two thirds of the steps to 0.50), "
            "so training for longer may help: -T max_steps=189"
        ]
    assert still_falling({}) == []
