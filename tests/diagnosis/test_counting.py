"""How often names occur in texts, against one regular expression for each."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snellen.diagnosis.exposure_counts import TrainingText, count, texts
from snellen.errors import DataError

pytestmark = pytest.mark.slow

NAMES = ["star", "polar bear", "bear", "ring", "half-moon"]


def brute(names: dict[str, list[str]], lines: list[str]) -> dict[str, int]:
    """One regular expression for each name, as one would write it first."""
    found = {}
    for owner, known in names.items():
        forms = [re.sub(r"[\W_]+", " ", name.lower()).strip() for name in {owner, *known}]
        pattern = re.compile("|".join(rf"(?<!\S){re.escape(form)}(?:s|es)?(?!\S)" for form in forms))
        found[owner] = sum(
            bool(pattern.search(re.sub(r"[\W_]+", " ", line.lower()).strip())) for line in lines
        )
    return found


class TestCounting:
    @given(
        st.lists(
            st.lists(
                st.sampled_from(
                    [
                        "star",
                        "stars",
                        "a",
                        "polar",
                        "bear",
                        "Bears,",
                        "ring",
                        "rings.",
                        "string",
                        "half-moon",
                        "half",
                        "moon",
                        "boxes",
                    ]
                ),
                max_size=8,
            ).map(" ".join),
            max_size=12,
        )
    )
    def test_as_one_expression_for_each_name_would(self, lines):
        names: dict[str, list[str]] = {name: [] for name in NAMES} | {"cube": ["box", "dice"]}
        counted = count(names, [TrainingText(line) for line in lines])
        assert counted.texts == len(lines)
        assert {name: counted.answers[name] for name in names} == brute(names, lines)
        assert not counted.prompts
        swapped = count(names, [TrainingText("", line) for line in lines])
        assert (swapped.prompts, swapped.answers) == (counted.answers, counted.prompts)

    def test_by_hand(self):
        lines = ["A POLAR BEAR.", "two polar-bears", "a string of stars", "unstarred", "an asterisk"]
        names = {"star": ["asterisk"], "bear": [], "polar bear": []}
        assert count(names, map(TrainingText, lines)).answers == {"star": 2, "bear": 2, "polar bear": 2}

    def test_layouts(self, tmp_path):
        llava = [
            {
                "id": "1",
                "image": "star.jpg",
                "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A ring."}],
            }
        ]
        (tmp_path / "a.json").write_text(json.dumps(llava))
        (tmp_path / "b.jsonl").write_text(
            '{"caption": "a star", "url": "http://ring"}\n\n["x", {"text": "y"}]\n'
        )
        (tmp_path / "c.txt").write_text("one line\n\nanother\n")
        pd.DataFrame({"caption": ["a key", "a cup"], "n": [1, 2]}).to_parquet(tmp_path / "d.parquet")
        assert list(texts(tmp_path / "a.json")) == [("A ring.", "What?")]
        assert list(texts(tmp_path / "b.jsonl")) == [("a star", ""), ("x . y", "")]
        assert list(texts(tmp_path / "c.txt")) == [("one line\n", ""), ("another\n", "")]
        assert [text.answers for text in texts(tmp_path / "d.parquet")] == ["a key", "a cup"]

    def test_options_in_a_question_are_not_taught(self, tmp_path):
        """ "bolt" stood in 673 texts, and was the answer of 19."""
        ask = "Which is it? {star, bolt, ring}"
        rows = [
            {"messages": [
                {"role": "system", "content": "You know every bolt."},
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ask}]},
                {"role": "assistant", "content": [{"type": "text", "text": "star"}]},
            ]},
            {"conversations": [{"from": "human", "value": ask}, {"from": "gpt", "value": "bolt"}]},
            {"prompt": ask, "completion": "ring"},
            {"question": "What is it?", "choices": ["star", "bolt"], "answer": "ring"},
        ]  # fmt: skip
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        counted = count({"star": [], "bolt": [], "ring": []}, texts(tmp_path / "rows.jsonl"))
        assert counted.answers == {"star": 1, "bolt": 1, "ring": 2}
        assert counted.prompts == {"star": 4, "bolt": 4, "ring": 3}

    @pytest.mark.parametrize(
        ("name", "text", "told"),
        [
            ("a.csv", "x", "unsupported extension"),
            ("a.json", "{}", "a list of rows"),
            ("a.json", "[", "does not fit its extension"),
            ("a.jsonl", "{\n", "line 1"),
            ("a.parquet", "x", "not a parquet"),
            ("missing.txt", None, "cannot be read"),
        ],
    )
    def test_another_layout(self, tmp_path, name, text, told):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=told):
            list(texts(tmp_path / name))
