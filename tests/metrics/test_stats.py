"""Figures against independent references: scikit-learn, scipy, a brute-force bootstrap."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from snellen.metrics.classification import Confusion, headline, per_class
from snellen.metrics.stats import Estimate, bootstrap, wilson

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
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1"):
        assert 0 <= found[name]["low"] <= found[name]["value"] <= found[name]["high"] <= 1


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


def test_bootstrap_equals_drawing_the_samples_again():
    rng = np.random.default_rng(0)
    truth = rng.choice(CLASSES, 300, p=[0.5, 0.3, 0.15, 0.05]).tolist()
    predicted = [t if rng.random() < 0.7 else str(rng.choice([*CLASSES, ""])) for t in truth]
    found = Confusion.of(truth, predicted).estimate("f1", "macro", seed=1)

    truths, guesses = np.array(truth), np.array(predicted)
    values = []
    for _ in range(400):
        draw = rng.integers(0, len(truths), len(truths))
        values.append(
            sk.f1_score(truths[draw], guesses[draw], labels=CLASSES, average="macro", zero_division=0)
        )
    low, high = np.quantile(values, [0.025, 0.975])
    assert found.value == pytest.approx(sk.f1_score(truth, predicted, labels=CLASSES, average="macro"))
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_bootstrap_is_reproducible_and_covers_a_rate():
    counts = np.array([70, 30])
    share = lambda c: c[:, 0] / c.sum(1)  # noqa: E731
    assert bootstrap(counts, share, seed=3) == bootstrap(counts, share, seed=3)
    assert bootstrap(counts, share, seed=3) != bootstrap(counts, share, seed=4)
    exact = wilson(70, 100)
    found = bootstrap(counts, share)
    assert found.low == pytest.approx(exact.low, abs=0.02)
    assert found.high == pytest.approx(exact.high, abs=0.02)


def test_top5():
    truth, predicted = ["a"] * 4, ["a", "b", "b", ""]
    assert headline(truth, predicted, [True, True, False, False])["top5"]["value"] == 0.5
    assert headline(truth, predicted)["top5"] is None


def test_an_estimate_as_json():
    assert Estimate(0.5, 0.25, 0.75).as_dict() == {"value": 0.5, "low": 0.25, "high": 0.75}
