"""Figures against independent references: scikit-learn, scipy, a brute-force bootstrap."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from snellen.metrics.classification import Confusion, headline, per_class
from snellen.metrics.stats import Estimate, wilson

CLASSES = ["a", "b", "c", "d"]


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 7), (81, 263), (1, 1)])
def test_wilson_against_the_formula(k, n):
    z = 1.959963984540054
    p, scale = k / n, 1 / (1 + z * z / n)
    center = (p + z * z / (2 * n)) * scale
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) * scale
    found = wilson(k, n)
    assert found.value == p
    assert found.low == pytest.approx(max(0, center - half), abs=1e-9)
    assert found.high == pytest.approx(min(1, center + half), abs=1e-9)


def test_wilson_refuses_nonsense():
    with pytest.raises(ValueError):
        wilson(3, 2)
    with pytest.raises(ValueError):
        wilson(0, 0)
    with pytest.raises(ValueError):
        wilson(-1, 2)


PAIRS = st.lists(
    st.tuples(st.sampled_from(CLASSES), st.sampled_from([*CLASSES, ""])), min_size=1, max_size=60
)


@given(PAIRS)
def test_figures_equal_scikit_learns(pairs):
    truth, predicted = [t for t, _ in pairs], [p for _, p in pairs]
    found = headline(truth, predicted)
    # An empty prediction is a miss for its class and a false positive for none: no class of its own.
    labels = sorted({*truth, *predicted} - {""})
    for average in ("macro", "weighted"):
        p, r, f, _ = sk.precision_recall_fscore_support(
            truth, predicted, labels=labels, average=average, zero_division=0
        )
        assert found[f"{average}_f1"]["value"] == pytest.approx(f)
        assert found[f"{average}_precision"] == pytest.approx(p)
        assert found[f"{average}_recall"] == pytest.approx(r)
    assert found["accuracy"]["value"] == pytest.approx(sk.accuracy_score(truth, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sk.balanced_accuracy_score(truth, predicted)
    assert found["balanced_accuracy"]["value"] == pytest.approx(expected)
    assert 0 <= found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"] <= 1
    enough = min(truth.count(label) for label in set(truth)) >= 3
    for name in ("balanced_accuracy", "macro_f1", "weighted_f1"):
        low, value, high = (found[name][end] for end in ("low", "value", "high"))
        assert 0 <= low <= value <= high <= 1 if enough else low is high is None


@given(PAIRS)
def test_classes_and_confusions_equal_scikit_learns(pairs):
    truth, predicted = [t for t, _ in pairs], [p for _, p in pairs]
    labels = sorted({*truth, *predicted} - {""})
    report = sk.classification_report(truth, predicted, labels=labels, output_dict=True, zero_division=0)
    for row in per_class(truth, predicted):
        reference = report[row["class"]]
        assert row["precision"] == pytest.approx(reference["precision"])
        assert row["recall"] == pytest.approx(reference["recall"])
        assert row["f1"] == pytest.approx(reference["f1-score"])
        assert row["support"] == reference["support"]
    matrix = sk.confusion_matrix(truth, predicted, labels=[*labels, ""])
    wrong = sorted(
        int(matrix[i, j]) for i in range(len(matrix)) for j in range(len(matrix)) if i != j and matrix[i, j]
    )
    assert sorted(n for _, _, n in Confusion.of(truth, predicted).confused(1000)) == wrong


@pytest.mark.parametrize(("figure", "how"), [("f1", "macro"), ("f1", "weighted"), ("recall", "true")])
def test_intervals_equal_drawing_the_samples_of_each_class_again(figure, how):
    rng = np.random.default_rng(0)
    truth = rng.choice(CLASSES, 400, p=[0.5, 0.3, 0.15, 0.05])
    predicted = np.array([t if rng.random() < 0.7 else str(rng.choice([*CLASSES, ""])) for t in truth])
    found = Confusion.of(truth.tolist(), predicted.tolist()).estimate(figure, how)
    values = []
    for _ in range(400):
        draw = np.concatenate([rng.choice(np.flatnonzero(truth == c), (truth == c).sum()) for c in CLASSES])
        values.append(Confusion.of(truth[draw].tolist(), predicted[draw].tolist()).average(figure, how))
    low, high = np.quantile(values, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


@pytest.mark.parametrize("each", [3, 4, 5])
def test_intervals_of_few_images_per_class_cover_the_truth(each):
    """30 classes, of which some are easy; taken for others at random."""
    rng = np.random.default_rng(1)
    classes, tries = 30, 200
    right = rng.choice([0.3, 0.6, 0.95], classes)
    truth = np.repeat(np.arange(classes), each)

    def said(places):
        other = (places + rng.integers(1, classes, len(places))) % classes
        return np.where(rng.random(len(places)) < right[places], places, other)

    many = np.repeat(np.arange(classes), 20_000)
    goal = {"macro_f1": sk.f1_score(many, said(many), average="macro"), "balanced_accuracy": right.mean()}
    hits = dict.fromkeys(goal, 0)
    for _ in range(tries):
        figures = headline([str(t) for t in truth], [str(p) for p in said(truth)])
        for name, value in goal.items():
            hits[name] += figures[name]["low"] <= value <= figures[name]["high"]
    assert all(count / tries >= 0.92 for count in hits.values()), hits


def test_the_same_quantity_has_the_same_interval():
    truth = [c for c in CLASSES for _ in range(5)]
    predicted = truth[:12] + ["a"] * 8
    for clusters in ((), [i // 2 for i in range(20)]):
        figures = headline(truth, predicted, clusters=clusters)
        if clusters:  # a cluster may hold two classes, and has at least three per class
            assert figures["balanced_accuracy"]["low"] is not None
        assert figures["balanced_accuracy"] == figures["accuracy"]


def test_too_few_images_of_a_class_have_no_interval():
    hundred = [str(i) for i in range(100)]
    one_each = headline(hundred, hundred[:44] + ["0"] * 56)
    assert one_each["accuracy"]["low"] < 0.44 < one_each["accuracy"]["high"]
    for name in ("balanced_accuracy", "macro_f1", "weighted_f1"):
        assert one_each[name]["low"] is one_each[name]["high"] is None
    # Six copies of one image are one image.
    copies = headline(["a"] * 6 + ["b"] * 6, ["a"] * 6 + [""] * 6, clusters=["x"] * 6 + ["y"] * 6)
    assert copies["macro_f1"]["low"] is None


def test_nothing_right_is_not_sure():
    nothing = headline(["a"] * 3 + ["b"] * 3, [""] * 6)
    assert nothing["macro_f1"]["value"] == nothing["macro_f1"]["low"] == 0
    assert nothing["macro_f1"]["high"] > 0.3


def test_top5():
    truth, predicted = ["a"] * 4, ["a", "b", "b", ""]
    assert headline(truth, predicted, [True, True, False, False])["top5"]["value"] == 0.5
    assert headline(truth, predicted)["top5"] is None


def test_an_estimate_as_json():
    assert Estimate(0.5, 0.25, 0.75).as_dict() == {"value": 0.5, "low": 0.25, "high": 0.75}
