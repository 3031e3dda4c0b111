"""Recognize tables of questions by their columns, so that answers are not taken for classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from snellen.datasets.columns import ColumnMapping
from snellen.datasets.options import WAYS, AnswerAs, options_in
from snellen.datasets.records import Records
from snellen.errors import DataError
from snellen.parsing.choices import LETTERS

__all__ = ["recognize"]

QUESTIONS = ("question", "query", "prompt")
ANSWERS = ("answer", "answers", "correct_answer", "gt_answer", "label")
OPTIONS = ("choices", "options", "multiple_choice_options")
CAPTIONS = ("caption", "captions", "alt_text")
CLASSES = ("label", "class", "class_name", "category")


def recognize(columns: ColumnMapping, records: Records) -> tuple[ColumnMapping, str]:
    """Return the roles of the columns of a table of questions or captions, and a note that says so; the
    given roles and no note for anything else, or if the user named one.

    Recognized are a question with options (lettered columns, a list, or lines of the question) or with an
    answer, and captions without a class.
    """
    if columns.asks or columns.question or columns.reference or columns.label or not len(records):
        return columns, ""
    spelled = {column.casefold(): column for column in reversed(records.columns)}
    first = records[0]
    roles = _of_questions(spelled, first) or _of_captions(spelled)
    if not roles:
        return columns, ""
    if columns.answer_as is not None and "answer_as" in roles:
        roles["answer_as"] = columns.answer_as  # as the user says
    used = ", ".join(dict.fromkeys(name for value in roles.values() for name in _listed(value)))
    note = f"read as questions or captions, by the columns {used}; for classification: -D label=COLUMN"
    if roles.get("answer_as") == "index" and columns.answer_as is None:
        note += f". {_counted_from(records, roles['answer'])}"
    return replace(columns, **roles), note


def _counted_from(records: Records, answer: str) -> str:
    """Say that answers are places counted from 0, and whether that can be."""
    places = {str(record.get(answer)).strip().removesuffix(".0") for record in records.scan([answer])}
    text = f"{answer} is an option's place, counted from 0"
    if "0" not in places:
        text += ", but no answer is 0: if they count from 1, add -D answer_as=number"
    return text


def _listed(value: Any) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else () if value in WAYS else (value,)


def _of_questions(spelled: Mapping[str, str], first: Mapping[str, Any]) -> dict[str, Any]:
    question = next((spelled[name] for name in QUESTIONS if name in spelled), None)
    answer = next((spelled[name] for name in ANSWERS if name in spelled), None)
    if question is None and "text" in spelled and _has_options(first.get(spelled["text"])):
        question = spelled["text"]
    if question is None or answer is None:
        return {}
    # By the columns of the file: a row may have fewer options than others.
    lettered = tuple(takewhile(lambda letter: spelled.get(letter.casefold()) == letter, LETTERS))
    options: tuple[str, ...] = ()
    if len(lettered) > 1:
        options = lettered
    elif listed := next((spelled[name] for name in OPTIONS if name in spelled), None):
        options = (listed,)
    elif _has_options(first.get(question)):
        options = (question,)
    if options:
        how = _answer_as(first.get(answer), [first.get(column) for column in options])
        return {"question": question, "choices": options, "answer": answer, "answer_as": how}
    if answer.casefold() == "label":  # a class, and what was asked about it
        return {}
    return {"question": question, "reference": (answer,)}


def _has_options(text: Any) -> bool:
    try:
        return isinstance(text, str) and len(options_in(text)[1]) > 1
    except DataError:
        return False


def _answer_as(value: Any, options: Sequence[Any]) -> AnswerAs:
    text = str(value).strip()
    texts = [option for cell in options for option in (cell if isinstance(cell, list) else [cell])]
    if text in [str(option).strip() for option in texts]:
        return "text"
    if text.isdecimal():
        return "index"
    return "letter" if len(text) == 1 and text.upper() in LETTERS else "text"


def _of_captions(spelled: Mapping[str, str]) -> dict[str, Any]:
    caption = next((spelled[name] for name in CAPTIONS if name in spelled), None)
    if caption is None or not spelled.keys().isdisjoint(CLASSES):
        return {}
    return {"reference": (caption,)}
