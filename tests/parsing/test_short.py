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
    quantity,
    relaxed_accuracy,
    vqa_accuracy,
)
from snellen.parsing import ParseFailure, parse_short

Rule = Callable[[str, Sequence[str]], float]


def read(text: str, **how: Any) -> str | None:
    said = parse_short(text, **how)
    return None if isinstance(said, ParseFailure) else said


@pytest.mark.parametrize(
    ("name", "rule", "least"),
    [
        ("docvqa", anls, 0.97),
        ("gqa", exact_match, 0.57),  # a grader accepts articles and hyphens; the authors' metric does not
        ("mathvista-free", number_match, 0.86),
        ("mmmu-open", open_match, 0.87),
        ("ocrbench-hme", contains, 0.99),
        ("ocrbench-text", contains, 1.0),
        ("realworldqa-open", exact_match, 0.76),
        ("vqa", vqa_accuracy, 0.91),
        ("chartqa", relaxed_accuracy, 0.76),
    ],
)
def test_recorded_answers(name: str, rule: Rule, least: float) -> None:
    """The share of right answers that is accepted does not fall; no wrong answer is accepted, but for years
    near the right one in ChartQA, whose authors' metric allows 5%.
    """
    right, accepted, wrongly = 0, 0, []
    for answer in recorded(f"short-{name}"):
        truth = [answer["truth"]] if isinstance(answer["truth"], str) else answer["truth"]
        said = read(answer["text"], verbatim=rule is contains)
        mark = said is not None and rule(said, truth) >= 0.5
        right += answer["right"]
        accepted += mark and answer["right"]
        if mark and not answer["right"] and not (name == "chartqa" and truth == ["2010"]):
            wrongly.append((answer["text"], truth, said))
    print(f"{name}: {accepted} of {right}")
    assert not wrongly
    assert accepted / right >= least


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
        ("5 hundred", None),
        ("5 and 6", None),
        ("B2", None),
    ],
)
def test_quantities(text: str, value: float | None) -> None:
    found = quantity(text)
    assert found is None if value is None else found == pytest.approx(value)
