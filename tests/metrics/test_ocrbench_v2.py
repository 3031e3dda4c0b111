"""The rules of OCRBench v2, where no recorded answer goes: what is missing, hostile replies, properties."""

from __future__ import annotations

import sys
import time
from typing import Any

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from helpers import converse
from snellen.errors import DataError, MissingExtra
from snellen.metrics.boxes import iou
from snellen.metrics.ocrbench_v2 import RULES, ocrbench_v2
from snellen.metrics.pages import page_similarity
from snellen.metrics.registry import METRICS
from snellen.metrics.spotting import Spotted, read_spotted, spotting_score
from snellen.metrics.trees import document_similarity, markdown_table, table_similarity
from snellen.protocols.vqa import VQA
from snellen.types import Outcome, Prediction, Response, Sample

HOSTILE = (
    *("[" * 40_000, "{" * 40_000, "(((((1,2,3,4" * 8_000, "a " * 50_000, "```\nx" * 20_000),
    *("<table>" * 3_000, "<td><b>" * 3_000, "#" * 30_000, "9" * 50_000, "a:" * 30_000, "[ " * 30_000),
)


def row(kind: str, answers: list[str], **columns: Any) -> Sample:
    return Sample("1", question="What?", meta={"type": kind, "answers": answers, **columns})


class TestRules:
    def test_a_question_without_a_translation_does_not_count(self) -> None:
        assert ocrbench_v2("a", row("text translation cn", [""])) is None

    @pytest.mark.parametrize(
        "sample",
        [
            row("poems", ["a"]),
            row("text spotting en", ["a"]),
            row("text spotting en", ["a"], bbox_list=None, content=["a"]),
            row("text spotting en", ["a"], bbox_list=[[]], content=["a"]),
            row("text counting en", ["twelve"], eval="regression"),
            row("text counting en", ["12"], eval=None),
            row("text grounding en", ["1", "2", "x", "4"]),
            row("VQA with position en", ["a"], bbox=None),
            row("key information extraction en", ["nope"]),
        ],
        ids=lambda sample: sample.meta["type"],
    )
    def test_a_truth_that_cannot_be_read_does_not_count(self, sample: Sample) -> None:
        assert ocrbench_v2('(1, 2, 3, 4) {"answer": "a"} 12', sample) is None

    @pytest.mark.parametrize("kind", sorted(RULES))
    def test_hostile_replies_take_no_time(self, wordnet: None, kind: str) -> None:
        fields = ["{'a': 'b', 'c': ['d', 'e']}"]
        answers = {"text grounding en": ["1", "2", "3", "4"], "text counting en": ["12"]}.get(kind, fields)
        columns = {"bbox": [1, 2, 3, 4], "bbox_list": [[1, 2, 3, 2, 3, 4, 1, 4]], "content": ["a"]}
        sample = row(kind, answers, eval="regression", **columns)
        for reply in HOSTILE:
            start = time.process_time()
            score = ocrbench_v2(reply, sample)
            assert score is not None
            assert 0 <= score <= 1
            assert time.process_time() - start < 10, reply[:9]


class TestRequirements:
    def test_wordnet_is_asked_for_before_anything_is_paid(self, monkeypatch: pytest.MonkeyPatch) -> None:
        unloaded = LazyCorpusLoader("wordnet", WordNetCorpusReader, None)
        monkeypatch.setattr(nltk.data, "path", [])
        monkeypatch.setattr(nltk.corpus, "wordnet", unloaded)
        with pytest.raises(DataError, match="python -m nltk.downloader wordnet"):
            VQA(metric="ocrbench-v2").prepare()

    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "apted", None)
        with pytest.raises(MissingExtra, match=r"snellen\[ocr\]"):
            VQA(metric="ocrbench-v2").prepare()

    def test_anls_says_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
        with pytest.raises(MissingExtra, match=r"snellen\[metrics\]"):
            VQA(metric="anls").prepare()


def test_the_whole_reply_is_scored() -> None:
    protocol = VQA(metric="ocrbench-v2", prompt="{question}")
    sample = row("key information extraction en", ['{"total": "9"}'])
    assert protocol.score_sample(sample, Prediction("1", "Here:\n```json\n{'total': 9}\n```")) == {
        "ocrbench_v2": 1.0
    }
    assert protocol.score_sample(sample, Prediction("1", "", outcome=Outcome.UNPARSED)) == {
        "ocrbench_v2": 0.0
    }
    assert METRICS["ocrbench_v2"].graded


@pytest.mark.parametrize(
    ("reply", "outcome", "score"),
    [
        (Response("It says HARBOUR and", outcome=Outcome.TRUNCATED), Outcome.TRUNCATED, 1.0),
        (Response("I am sorry, harbour closed."), Outcome.OK, 1.0),
        (Response("<think>harbour?</think>pier"), Outcome.OK, 0.0),
        (Response(""), Outcome.UNPARSED, 0.0),
        (Response("", outcome=Outcome.REFUSED, reason="filtered"), Outcome.REFUSED, 0.0),
    ],
)
def test_whatever_came_is_scored(reply: Response, outcome: Outcome, score: float) -> None:
    sample = row("text recognition en", ["Harbour"])
    prediction, _ = converse(VQA(metric="ocrbench-v2").examine(sample), lambda _: reply)
    assert prediction.outcome is outcome
    assert VQA(metric="ocrbench-v2").score_sample(sample, prediction) == {"ocrbench_v2": score}


def test_a_missing_column_is_named_and_boxes_are_shown_whole() -> None:
    protocol = VQA(metric="ocrbench-v2")
    assert protocol.missing_fields(Sample("1", question="What?")) == "the column 'type'"
    assert protocol.missing_fields(row("text grounding en", ["1"])) is None
    assert protocol.truth(Sample("1", references=("1", "2", "1", "4"))) == "1 / 2 / 1 / 4"


# ── properties ──────────────────────────────────────────────────────────────────────────────────────

sides = st.integers(0, 200)
boxes = st.tuples(sides, sides, sides, sides).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1)
)
words = st.lists(
    st.builds(Spotted, boxes, st.sampled_from(["STOP", "stop", "(a)", "a", "here!"])), max_size=6
)
texts = st.text(st.sampled_from("ab #|\n*_"), max_size=40)


@given(boxes, boxes)
def test_iou_is_symmetric(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    assert iou(first, second) == iou(second, first)
    assert iou(first, first) == 1.0


@given(words)
def test_who_spots_all_words_is_right(true: list[Spotted]) -> None:
    apart = [word for i, word in enumerate(true) if all(iou(word.box, o.box) == 0 for o in true[:i])]
    assert spotting_score(apart, apart) == (1.0 if apart else 0.0)
    assert read_spotted(str([(*word.box, word.text) for word in apart])) == apart


@given(texts, texts)
def test_trees_are_alike_to_themselves(first: str, second: str) -> None:
    assert 0 <= document_similarity(first, second) <= 1
    assert document_similarity(first, second) == pytest.approx(document_similarity(second, first))
    table = markdown_table(f"| {first.replace(chr(10), ' ')} | b |\n|---|---|\n| c | d |")
    assert table_similarity(table, table) == 1.0
    assert 0 <= table_similarity(table, markdown_table(second)) <= 1


def test_a_page_read_right(wordnet: None) -> None:
    assert page_similarity("one two three four five", "one two three four five") > 0.99
    assert page_similarity("这个港口每天都从早上营业到晚上", "这个港口每天都从早上营业到晚上") > 0.99
    assert page_similarity("", "one") == 0.0
