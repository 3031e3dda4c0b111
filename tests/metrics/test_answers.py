"""Rules that short answers are scored by, against brute force and by property."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snellen.metrics.answers import (
    anls,
    contains,
    exact_match,
    normalize_vqa,
    number_match,
    open_match,
    relaxed_accuracy,
    vqa_accuracy,
)
from snellen.metrics.registry import METRICS
from snellen.metrics.values import number

WORDS = st.text(alphabet="abc dé1.,'%$\n-", max_size=12)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=10))
def test_every_rule_gives_a_share_and_never_fails(answer, references):
    for name, rule in ((m.name, m.rule) for m in METRICS.values() if m.rule is not None):
        assert 0 <= rule(answer, references) <= 1, name


@given(st.text(min_size=1), st.lists(WORDS, max_size=3))
def test_the_truth_itself_is_right(truth, others):
    references = [*others, truth]
    if truth.strip():
        assert exact_match(truth, references) == 1
        assert contains(truth, references) == 1 or not truth.lower().strip()
        assert relaxed_accuracy(truth, references) == 1
        assert number_match(truth, references) == 1
        assert open_match(truth, references) == 1


class TestVQA:
    @given(st.sampled_from("abcd"), st.lists(st.sampled_from("abcd"), min_size=10, max_size=10))
    def test_equals_leaving_out_each_annotator_in_turn(self, answer, annotators):
        """Brute force over the ten subsets of nine, as the authors define it."""
        scores = []
        for left_out in range(10):
            others = [a for i, a in enumerate(annotators) if i != left_out]
            scores.append(min(1, sum(a == answer for a in others) / 3))
        # "a" is an article, which goes: compared are the letters that stay
        if answer != "a":
            assert vqa_accuracy(answer, annotators) == pytest.approx(sum(scores) / 10)

    @pytest.mark.parametrize(("same", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
    def test_the_published_steps(self, same, score):
        assert vqa_accuracy("red", ["red"] * same + ["blue"] * (10 - same)) == pytest.approx(score)

    @pytest.mark.parametrize(
        ("text", "normal"),
        [
            ("The Two dogs, dont run.", "2 dogs don't run"),
            ("1,000", "1000"),
            ("3.5", "3.5"),
            ("ten-year old", "10 year old"),
            ("a  red\ncar!", "red car"),
            ("U.S.", "us"),
            ("", ""),
            ("none", "0"),
        ],
    )
    def test_normalization(self, text, normal):
        assert normalize_vqa(text) == normal

    @given(st.text(max_size=30))
    def test_normalizing_is_done_once_and_for_all_but_for_words_that_appear_by_it(self, text):
        once = normalize_vqa(text)
        assert once == once.strip()
        assert "\n" not in once


class TestANLS:
    @staticmethod
    def distance(a: str, b: str) -> int:
        """Levenshtein's, by its recursion."""
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            row, last = [i], row
            for j, y in enumerate(b, 1):
                row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (x != y)))
        return row[-1]

    @given(st.text("abC ", max_size=8), st.lists(st.text("abC ", max_size=8), min_size=1, max_size=4))
    def test_equals_the_definition(self, answer, references):
        def plain(text):
            return " ".join(text.lower().split())

        best = 0.0
        for one in references:
            a, b = plain(answer), plain(one)
            if a or b:
                best = max(best, 1 - self.distance(a, b) / max(len(a), len(b)))
        expected = best if best >= 0.5 and plain(answer) else 0.0
        assert anls(answer, references) == pytest.approx(expected)

    def test_half_counts_and_less_does_not(self):
        assert anls("ab", ["abcd"]) == 0.5
        assert anls("a", ["abcd"]) == 0


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("7", 7),
            ("-1.5", -1.5),
            ("−2", -2),
            ("1,250", 1250),
            ("12,50", None),
            ("$5", 5),
            ("41%", 0.41),
            ("1/4", 0.25),
            ("1/0", None),
            ("about 5", None),
            ("", None),
            ("nan", None),
            ("5²", None),
            ("1/2/3", None),
            ("1e308/1e-300", None),
            ("1e3", 1000),
            ("1e999", None),
            ("5.", 5),
        ],
    )
    def test_what_is_a_number(self, text, value):
        assert number(text) == value

    @given(st.floats(1e-3, 1e6), st.floats(-0.2, 0.2))
    def test_five_per_cent(self, true, off):
        answer = true * (1 + off)
        expected = abs(float(repr(answer)) - true) <= 0.05 * true
        assert relaxed_accuracy(repr(answer), [repr(true)]) == float(expected)

    @pytest.mark.parametrize(
        ("answer", "reference", "right"),
        [
            ("105", "100", 1),
            ("106", "100", 0),
            ("0", "0", 1),
            ("0.01", "0", 0),
            ("41%", "0.41", 1),
            ("Red", "red", 1),
            ("red", "5", 0),
            ("1,000", "1000", 1),
        ],
    )
    def test_relaxed(self, answer, reference, right):
        assert relaxed_accuracy(answer, [reference]) == right

    @pytest.mark.parametrize(
        ("answer", "reference", "right"),
        [
            ("3.252", "3.25", 1),
            ("3.26", "3.25", 0),
            ("7.0", "7", 1),
            ("7.4", "7", 0),
            ("7.6", "7", 0),
            ("[1, 2]", "[1,2]", 1),
            ("A", "a", 1),
            ("0.75", "3/4", 1),
        ],
    )
    def test_to_the_decimals_of_the_truth(self, answer, reference, right):
        assert number_match(answer, [reference]) == right


def test_nothing_contains_an_empty_reference():
    assert contains("anything", ["", "  "]) == 0
    assert not math.isnan(vqa_accuracy("", ["", "x"]))


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("1%", "100%", 0), ("0.5%", "50%", 0), ("1 percent", "100%", 0), ("50", "50%", 1), ("0.5", "50%", 1),
        ("50 percent", "50%", 1), ("$5", "€5", 0), ("5", "$5", 1), ("$5.00", "$5", 1), ("x<5", "x>5", 0),
        ("x >= 5", "x≥5", 1), ("≤5", "≥5", 0), ("type", "Type A", 0), ("type a.", "Type A", 1),
        ("hepatitis", "hepatitis A", 0), ("B", "B-", 0), ("O", "O-", 0), ("o-", "O-", 1), ("a cat", "cat", 1),
        ("well-known", "well known", 1), ("the", "the", 1),
    ],
)  # fmt: skip
def test_what_a_careful_reader_tells_apart(answer, reference, right):
    assert exact_match(answer, [reference]) == right


@pytest.mark.parametrize("rule", [relaxed_accuracy, number_match, open_match, exact_match])
def test_a_percentage_is_no_hundredth_of_another(rule):
    assert [rule(said, ["100%"]) for said in ("1%", "1 percent", "100%", "100", "1.0")] == [0, 0, 1, 1, 1]
