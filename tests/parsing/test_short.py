"""Recorded short answers, with whether a careful grader accepts them; frames, transcriptions, numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from recorded import recorded
from snellen.metrics.answers import (
    anls,
    contains,
    exact_match,
    number_match,
    open_match,
    relaxed_accuracy,
    vqa_accuracy,
)
from snellen.metrics.registry import METRICS
from snellen.metrics.values import amounts, same
from snellen.parsing import ParseFailure, parse_short

Rule = Callable[[str, Sequence[str]], float]


def read(text: str, **how: Any) -> str | None:
    said = parse_short(text, **how)
    return None if isinstance(said, ParseFailure) else said


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("docvqa", anls),
        ("gqa", exact_match),
        ("mathvista-free", number_match),
        ("mmmu-open", open_match),
        ("ocrbench-hme", contains),
        ("ocrbench-text", contains),
        ("realworldqa-open", exact_match),
        ("vqa", vqa_accuracy),
        ("chartqa", relaxed_accuracy),
    ],
)
def test_recorded_answers(name: str, rule: Rule) -> None:
    """At least 95% of the answers that a careful grader accepts are accepted, and no other."""
    right, accepted, wrongly = 0, 0, []
    for answer in recorded(f"short-{name}"):
        truth = [answer["truth"]] if isinstance(answer["truth"], str) else answer["truth"]
        said = read(answer["text"], verbatim=rule is contains)
        mark = said is not None and rule(said, truth) >= 0.5
        right += answer["right"]
        accepted += mark and answer["right"]
        if mark and not answer["right"]:
            wrongly.append((answer["text"], truth, said))
    print(f"{name}: {accepted} of {right}")
    assert not wrongly
    assert accepted / right >= 0.95


def test_answers_in_sentences() -> None:
    """Of 120 answers written by somebody who had not seen the rules, no wrong one is accepted."""
    right, accepted, wrongly = 0, 0, []
    for answer in recorded("sentences"):
        rule = METRICS.by_option("vqa", answer["metric"]).rule
        said = read(answer["text"], numeric=answer["metric"] == "number")
        mark = said is not None and rule is not None and rule(said, [answer["truth"]]) >= 0.5
        right += answer["right"]
        accepted += mark and answer["right"]
        if mark and not answer["right"]:
            wrongly.append((answer["text"], answer["truth"], said))
    print(f"{accepted} of {right}")
    assert not wrongly
    assert accepted / right >= 0.9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is red.", "red"),
        ("I think it's 3.4 million.", "3.4 million"),
        ("The value is 0.", "0"),
        ("According to the chart, it is Brazil.", "Brazil"),
        ("Red, as the picture shows.", "Red"),
        ("I can see a cat in the picture.", "a cat"),
        ("### Final Answer\n\n**145**", "145"),
        ("Answer - T-shirt", "T-shirt"),
        ("Let us look. It is clear.\n\n**red**", "red"),
        ("red\n\nExplanation: It is clear.", "red"),
        ("Red and white. The picture is clear.", "Red and white"),
        ("答えは0.28です。", "0.28"),
        ("Die Antwort ist 5/2.", "5/2"),
        ("- two", "two"),
        ("(downhill)", "downhill"),
        ("[2007, 2008]", "[2007, 2008]"),
        # Abbreviations end no answer, and sentences that frame nothing stay.
        ("Jan. 5, 1998", "Jan. 5, 1998"),
        ("The value is St. Louis.", "St. Louis"),
        ("I think it is T. F. Riehl.", "T. F. Riehl"),
        ("The answer is Mrs. Smith. She is on the left.", "Mrs. Smith"),
        ("答案是R. J. Reynolds", "R. J. Reynolds"),
        ("The answer is no. The picture is clear.", "no"),
        ("The answer is No. 5.", "No. 5"),
        ("Yes, it is.", "Yes"),
        ("5 %", "5%"),
        ("Sorry, we're closed", "Sorry, we're closed"),
        ("Sorry, I can't help.", None),
        ("U.S. Dept. of Agriculture", "U.S. Dept. of Agriculture"),
        ("A man rides a horse.", "A man rides a horse."),
        ("I'm sorry, I can't help with that.", None),
    ],
)
def test_frames(text: str, expected: str | None) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Option: Renewal", "Option: Renewal"),
        ("SORRY", "SORRY"),
        ("Sorry, we're closed", "Sorry, we're closed"),
        ("UNABLE TO PROCESS PAYMENT", "UNABLE TO PROCESS PAYMENT"),
        ("<think>a sign</think>STOP", "STOP"),
        ("I'm sorry, but I can't read it.", None),
        ("I cannot assist with that.", None),
    ],
)
def test_transcriptions_keep_what_the_picture_says(text: str, expected: str | None) -> None:
    assert read(text, verbatim=True) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x = 8.40", 8.4),
        ("About 2.50", 2.5),
        ("~5/2", 2.5),
        ("twenty-one", 21.0),
        ("seventeen", 17.0),
        ("3.4M", 3.4e6),
        ("35 mph", 35.0),
        ("90°", 90.0),
        ("41%", 0.41),
        ("twenty twenty", None),
        ("5 hundred", 500.0),
        ("So x = .3.", 0.3),
        ("[1,200]", 1200.0),
        ("thirty-nine units", 39.0),
        ("1/3 units", 1 / 3),
        ("60% units", 0.6),
        ("5 and 6", None),
        ("B2", None),
    ],
)
def test_amounts(text: str, value: float | None) -> None:
    found, _ = amounts(text)
    assert not found if value is None else min(found) == pytest.approx(value)


@pytest.mark.parametrize(
    ("answer", "reference", "equal"),
    [
        ("hotdog", "hot dog", True),
        ("mens", "men's", True),
        ("Asia-Pacific", "Asia Pacific", True),
        ("to the left", "left", True),
        ("none", "0", True),
        ("12.5%", "12.5", True),
        ("0.6", "60%", True),
        ("USA", "United States", True),
        ("Brazil; India", "[Brazil, India]", True),
        ("x = 2007, 2008", "[2007, 2008]", True),
        ("India, Brazil", "[Brazil, India]", False),
        ("on the left", "in the left", False),
        ("under the table", "table", False),
        ("glasses", "glass", False),
        ("1.5", "15", False),
        ("5-6", "56", False),
        ("-5", "5", False),
        ("C#", "C", False),
        ("5 kg", "5 lb", False),
        ("?", "!", False),
    ],
)
def test_equality_for_a_careful_reader(answer: str, reference: str, equal: bool) -> None:
    assert same(answer, reference) is equal
