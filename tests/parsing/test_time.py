"""Pathological answers: every reader is quick, whatever a model repeats."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snellen.parsing import (
    is_refusal,
    parse_choice,
    parse_choices,
    parse_label,
    parse_short,
    parse_yes_no,
    split_thinking,
)
from snellen.parsing.boxes import parse_boxes

OPTIONS = ["cat", "dog", "bird", "fish"]
LABELS = ["cat", "dog", "polar bear", "猫", "C++", "C", "고양이", "قطة"]
READERS: dict[str, Callable[[str], object]] = {
    "choice": lambda text: parse_choice(text, OPTIONS),
    "choices": lambda text: parse_choices(text, OPTIONS),
    "label": lambda text: parse_label(text, LABELS),
    "yes or no": lambda text: parse_yes_no(text, question="Is there a cat?"),
    "yes or no, not in English": lambda text: parse_yes_no(text, question="¿Hay un gato?"),
    "short": parse_short,
    "number": lambda text: parse_short(text, numeric=True),
    "transcription": lambda text: parse_short(text, verbatim=True),
    "refusal": is_refusal,
    "thinking": split_thinking,
    "boxes": lambda text: parse_boxes(text, "pixels", (100, 100)),
}
MARKERS = [
    "\n",
    " ",
    "\t",
    "<think>",
    "</think>",
    "[THINK]",
    "<answer>",
    "</answer>",
    "<b>",
    "answer is ",
    "answer: ",
    "Answer -\n",
    "Final answer\n\n",
    "the answer is not ",
    "\\boxed{",
    "\\text{",
    "\\frac{1}{",
    "{",
    "}",
    "[",
    "]",
    "(",
    "A ",
    "B. ",
    "B, ",
    "B\n",
    "A: no\n",
    "(a) ",
    "option B ",
    "only B ",
    "not ",
    "not a cat, ",
    "? no. B is ",
    "yes ",
    "no ",
    "Yes. ",
    "Yes, no ",
    "**",
    "*",
    "_",
    "`",
    "```\n",
    "$",
    "1,",
    "1.",
    "1/",
    "-",
    '"',
    "'",
    "“",
    "，",
    "是",
    "答案是",
    "不是A而是B",
    "猫",
    "고양이는 ",
    "والقطة ",
    "ก",
    "is ",
    "it is ",
    "I think it is ",
    "The value of x is ",
    "so x = ",
    "cat ",
    "a ",
    "polar ",
    "C+",
    "sorry ",
    "i can not ",
    "there is no ",
    "if ",
    '{"answer": ',
    "wait ",
    "remains ",
    "es ",
    "creo que es ",
    "é",
]


@pytest.mark.parametrize("reader", READERS)
def test_hundreds_of_thousands_of_characters_take_less_than_a_second(reader: str) -> None:
    slow = []
    for marker in MARKERS:
        text = marker * (300_000 // len(marker))
        began = time.process_time()
        READERS[reader](text)
        if (seconds := time.process_time() - began) > 1:
            slow.append((marker, seconds))
    assert slow == []


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(MARKERS), min_size=2, max_size=5), st.sampled_from(sorted(READERS)))
def test_no_combination_of_markers_is_slow(parts: list[str], reader: str) -> None:
    unit = "".join(parts)
    began = time.process_time()
    READERS[reader](unit * (300_000 // len(unit)))
    assert time.process_time() - began < 1
