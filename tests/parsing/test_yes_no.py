"""Yes and no: recorded answers, with what a careful person reads; statements against their question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorded import recorded
from snellen.parsing import ParseFailure, parse_yes_no
from snellen.parsing.text import HEAD, TAIL, capped, split_thinking

RECORDED = recorded("yes-no")
#: With their questions, in 16 languages; written by somebody who had not seen the rules.
QUESTIONS = recorded("questions")


def read(text: str, question: str | None = None) -> bool | None:
    said = parse_yes_no(text, question=question)
    return None if isinstance(said, ParseFailure) else said


def test_recorded_answers() -> None:
    """All 180 are read as a careful person reads them."""
    wrong = [
        (answer["text"], answer["read"]) for answer in RECORDED if read(answer["text"]) != answer["read"]
    ]
    assert len(RECORDED) == 180
    assert not wrong


def test_answers_to_questions() -> None:
    """None of 150 is misread. Unread are those that need knowledge of the world ("The door is closed")."""
    found = [
        (answer["text"], read(answer["text"], answer["question"]), answer["read"]) for answer in QUESTIONS
    ]
    assert [(text, said) for text, said, true in found if said is not None and said is not true] == []
    readable = [said is true for _, said, true in found if true is not None]
    print(f"{sum(readable)} of {len(readable)}")
    assert sum(readable) / len(readable) >= 0.92


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There is no dog in the image.", False),
        ("I don't see a dog in this picture.", False),
        ("I can't see any dogs.", False),
        ("I see no dog.", False),
        ("I cannot see the image.", None),
        ("The statement is correct.", True),
        ("The claim is not correct.", False),
        ("I don't think so.", False),
        ("I would answer yes.", True),
        ("I'd go with no.", False),
        ("Both are equal, so yes.", True),
        ("Sure, here is the answer.", None),
        ("Certainly! Let me look.", None),
        ("Yes.\n\nNo other animal is in it.", True),
        ("Yes. No.", None),
        ("True or false? True.", True),
        ("Is it true? I cannot tell.", None),
        ("There is not enough information.", None),
        ("It is not clear whether there is a dog.", None),
        ('{"answer": false, "occluded": true}', False),
        ('{"dog": true, "cat": false}', None),
        # Further languages.
        ("没有狗。", False),
        ("图片中没有狗。", False),
        ("无法确定。", None),
        ("いいえ。", False),
        ("わかりません。", None),
        ("아니요, 개가 없습니다.", False),
        ("Sí, hay un perro.", True),
        ("Oui, il y a un chien.", True),
        ("Nein, das stimmt nicht.", False),
        ("Sì.", True),
        ("Evet.", True),
        ("Hayır, yok.", False),
        ("हाँ", True),
        ("नहीं।", False),
        ("ใช่ครับ", True),
        ("ไม่ใช่", False),
        ("Không.", False),
        ("Tidak, tidak ada.", False),
        ("Да, есть.", True),
        ("نعم، يوجد كلب.", True),
    ],
)
def test_answers_as_models_give_them(text: str, expected: bool | None) -> None:
    assert read(text) is expected


@pytest.mark.parametrize(
    ("question", "text", "expected"),
    [
        ("Is there a dog in the image?", "There is no dog.", False),
        ("Is there a dog? Answer yes or no.", "There are no dogs in the picture.", False),
        ("Is there a dog?", "There is a cat.", None),
        ("Is there a red dog?", "There is a dog.", None),
        ("Is there a red dog?", "There is no dog.", False),
        ("Is there a dog?", "The dog is not brown.", None),
        ("Is the room empty?", "There is no one in the room.", None),
        ("Are the lines equal?", "The lines are not equal.", False),
        ("Is there no dog?", "There is a dog in the photo.", None),
    ],
)
def test_a_statement_answers_only_what_was_asked(question: str, text: str, expected: bool | None) -> None:
    assert read(text, question) is expected


def test_a_long_answer_is_read_at_its_ends() -> None:
    reasoning = "The left side shows a street with a lamp. " * 2_000
    assert read(f"Yes.\n{reasoning}") is True
    assert read(f"{reasoning}\nAnswer: no") is False
    assert len(capped(reasoning)) == HEAD + TAIL + 1


@pytest.mark.parametrize(
    ("text", "thought", "rest"),
    [
        ("<think>a</think>b", "a", "b"),
        ("a</think>b", "a", "b"),
        ("<think>a", "a", ""),
        ("<think>a<think>b</think>c", "a<think>b", "c"),
        ("<think>a</thinking>b", "a", "b"),
        ("x<thought>a</thought>y<think>b</think>z", "a\nb", "xyz"),
        ("[THINK]a[/THINK]b", "a", "b"),
    ],
)
def test_reasoning_in_tags(text: str, thought: str, rest: str) -> None:
    assert split_thinking(text) == (thought, rest)


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<thought>", "</reasoning>", "a", "yes"]), max_size=12)
)
def test_nothing_outside_tags_is_lost(parts: list[str]) -> None:
    thought, rest = split_thinking("".join(parts))
    for word in ("a", "yes"):
        assert thought.count(word) + rest.count(word) == "".join(
            p for p in parts if not p.startswith("<")
        ).count(word)
