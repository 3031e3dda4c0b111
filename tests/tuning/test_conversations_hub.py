"""Conversations as people have them on the Hub, and system turns for templates that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from copies import picture
from snellen.datasets.base import DATASETS
from snellen.errors import DataError
from snellen.tuning.examples import examples


def rows() -> tuple[list[dict[str, Any]], Any]:
    """Two conversations in the layout of llava-instruct-mix-vsft: parts with an index, a list of images."""
    from datasets import Features, Image, List, Value

    part = {"index": Value("int64"), "text": Value("string"), "type": Value("string")}
    features = Features(
        {"messages": List({"content": List(part), "role": Value("string")}), "images": List(Image())}
    )

    def turn(role: str, text: str, image: bool = False) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"index": None, "text": text, "type": "text"}]
        if image:
            parts.append({"index": 0, "text": None, "type": "image"})
        return {"role": role, "content": parts}

    talk = [
        [turn("user", "What is it?", True), turn("assistant", "A star.")],
        [
            turn("user", "And this?", True),
            turn("assistant", "A ring."),
            turn("user", "Sure?"),
            turn("assistant", "Yes."),
        ],
    ]
    cells = [
        {"messages": turns, "images": [{"bytes": picture(str(i)), "path": None}]}
        for i, turns in enumerate(talk)
    ]
    return cells, features


@pytest.mark.parametrize("layout", ["parquet", "disk", "dict"])
def test_the_hubs_layout(tmp_path: Path, layout: str) -> None:
    from datasets import Dataset, DatasetDict

    cells, features = rows()
    table = Dataset.from_list(cells, features=features)
    folder = tmp_path / "talk"
    if layout == "parquet":
        folder.mkdir()
        table.to_parquet(str(folder / "train-00000.parquet"))
    elif layout == "disk":
        table.save_to_disk(str(folder))
    else:
        DatasetDict({"train": table}).save_to_disk(str(folder))
    data = DATASETS.make(f"hub:{folder}")
    assert len(data) == 2
    assert any("read as conversations" in note for note in data.notes)
    sample = data.sample(1, (), None)
    assert [turn.role for turn in sample.turns] == ["user", "assistant"] * 2
    assert sample.turns[0].text == "And this?"
    assert len(sample.images) == 1
    assert sample.images[0].pixels.size == (64, 64)
    assert [example.answer for example in examples(sample, data.protocol, {})] == ["A ring.", "Yes."]
    with pytest.raises(DataError, match=r"is a folder.*hub:"):
        DATASETS.make(f"conversations:{folder}")


def test_prompt_and_completion(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Image, List, Value

    features = Features({"prompt": Value("string"), "completion": Value("string"), "images": List(Image())})
    cell = {"prompt": "What?", "completion": "A cup.", "images": [{"bytes": picture("a"), "path": None}]}
    Dataset.from_list([cell], features=features).to_parquet(str(tmp_path / "train-0.parquet"))
    sample = DATASETS.make(f"hub:{tmp_path}").sample(0, (), None)
    assert [turn.text for turn in sample.turns] == ["What?", "A cup."]
    assert len(sample.images) == 1
