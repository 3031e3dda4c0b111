"""Images with several right classes, and labels that are no names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from copies import picture
from helpers import Scripted
from snellen.datasets.base import DATASETS, Dataset
from snellen.runs.plan import Plan
from snellen.runs.rescore import rescore
from snellen.runs.run import Run


def lines(folder: Path, labels: list[Any]) -> Path:
    file = folder / "data.jsonl"
    rows = []
    for i, label in enumerate(labels):
        (folder / f"{i}.png").write_bytes(picture(str(i)))
        rows.append(json.dumps({"image": f"{i}.png", "label": label}))
    file.write_text("\n".join(rows), encoding="utf-8")
    return file


def made(data: str) -> Dataset:
    return DATASETS.make(data)


LABELS = [["cat", "dog"], ["dog", "cat"], ["bird"], "cat"]


def test_any_right_class_counts(tmp_path: Path, workspace: Path) -> None:
    """Asked of a model that says cat to everything: right but for the bird."""
    data = f"jsonl:{lines(tmp_path, LABELS)}"
    table = made(data)
    assert table.labels == ("bird", "cat", "dog")
    assert any("2 samples with several right classes; any of them counts" in note for note in table.notes)
    sample = table.sample(1, table.labels, None)
    assert (sample.label, sample.also) == ("dog", ("cat",))
    (run,) = Plan(models=[Scripted(lambda request: "cat")], data=[data]).run()
    assert run.metrics["accuracy"].value == 0.75
    rows = {row["id"]: row for row in run.outcomes.to_dict("records")}
    assert rows["1"]["prediction"] == rows["1"]["label"] == "dog"
    details = {row["id"]: row["details"] for row in run.findings()}
    assert details["1"]["named"] == "cat"
    again = Run(run.store, rescore(run.store, run.id))
    assert again.metrics["accuracy"] == run.metrics["accuracy"]


def test_top_five_and_the_ranking_take_any_right_class(tmp_path: Path, workspace: Path) -> None:
    labels = [["a", "g"], *"bcdefg"]
    data = f"jsonl:{lines(tmp_path, labels)}"
    best_last = Scripted(lambda request: [float(i) for i in range(7)])
    (run,) = Plan(models=[best_last], data=[data], protocols=["rank"]).run()
    first = next(iter(run.findings()))
    assert first["prediction"] == "a"  # it said g, which is right too
    assert first["ranking"][0] == "a"
    assert first["ranking"].count("a") == 1
    assert run.metrics["top5"].value == pytest.approx(6 / 7)  # a to c are last, but a is g


@pytest.mark.parametrize("text", ["['cat', 'dog']", '["cat", "dog"]'])
def test_a_list_written_as_text_is_not_a_class(tmp_path: Path, text: str) -> None:
    table = made(f"jsonl:{lines(tmp_path, [text, 'bird'])}")
    assert table.labels == ("bird", "cat", "dog")


def test_other_right_classes_are_no_distractors(tmp_path: Path, workspace: Path) -> None:
    data = f"jsonl:{lines(tmp_path, [['cat', 'dog', 'bird'], 'fish', 'dog', 'bird'])}"
    asked: list[str] = []

    def say(request: Any) -> str:
        asked.append(request.messages[-1].text)
        return "cat"

    (run,) = Plan(models=[Scripted(say)], data=[data], protocol_options={"candidates": 2}).run()
    first = next(row for row in run.findings() if row["id"] == "0")
    assert first["prediction"] == "cat"
    assert any("cat" in text and "fish" in text for text in asked)
    assert not any("cat" in text and "dog" in text and "fish" not in text for text in asked)


def test_a_missing_label_is_no_class(tmp_path: Path) -> None:
    table = made(f"jsonl:{lines(tmp_path, ['cat', None, float('nan'), [], ['dog', ''], 'dog'])}")
    assert table.labels == ("cat", "dog")
    assert [row.reason for row in table.invalid] == ["an empty label"] * 4


def test_whole_floats_are_integers_and_numbers_are_reported(tmp_path: Path) -> None:
    """As pandas writes integers next to gaps."""
    table = made(f"jsonl:{lines(tmp_path, [1.0, 0.0, 1.0])}")
    assert table.labels == ("0", "1")
    (note,) = [note for note in table.notes if "numbers" in note]
    assert "0, 1" in note
    assert "-D names=FILE" in note


def test_numbers_in_a_list_have_their_names(tmp_path: Path) -> None:
    from datasets import ClassLabel, Features, Image, List
    from datasets import Dataset as Rows

    features = Features({"image": Image(), "label": List(ClassLabel(names=["cat", "dog", "bird"]))})
    rows = [{"image": {"bytes": picture(str(i)), "path": None}, "label": [i, 2]} for i in range(2)]
    Rows.from_list(rows, features=features).to_parquet(str(tmp_path / "rows.parquet"))
    for data in (f"parquet:{tmp_path / 'rows.parquet'}", f"hub:{tmp_path}"):
        table = made(data)
        assert table.labels == ("cat", "dog", "bird")
        sample = table.sample(0, table.labels, None)
        assert (sample.label, sample.also) == ("cat", ("bird",))
