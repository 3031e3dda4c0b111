"""What people put into cells: lists as text, boxes and outlines in many spellings, and nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import snellen
from helpers import picture
from snellen.datasets.base import DATASETS, Dataset, select
from snellen.errors import DataError
from snellen.runs.preflight import preflight
from snellen.types import Sample


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Writes a table in a format, and returns the name of the data set."""
    (tmp_path / "i.png").write_bytes(picture(size=(120, 80)).data)

    def write(rows: list[dict[str, Any]], kind: str = "jsonl", options: str = "") -> str:
        rows = [{"image": "i.png", **row} for row in rows]
        file = tmp_path / f"t.{kind}"
        if kind == "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif kind == "parquet":
            pandas = pytest.importorskip("pandas")
            pandas.DataFrame(rows).to_parquet(file)
        else:
            with file.open("w", newline="", encoding="utf-8") as out:
                writer = csv.DictWriter(out, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)
        return f"{kind}:{file}{options}"

    return write


def read(name: str) -> list[Sample]:
    data: Dataset = DATASETS.make(name)
    return list(select(data))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize(
    ("cell", "references"),
    [
        (json.dumps(["😀", "grin"]), ("😀", "grin")),
        (json.dumps(["red", None]), ("red",)),
        (json.dumps([3, "three"]), ("3", "three")),
        (json.dumps(["yes", True]), ("yes", "true")),
        (repr(["it's", "its"]), ("it's", "its")),
        ("[3, 4]", ("[3, 4]",)),
        ("[unclear]", ("[unclear]",)),
        ("[]", ()),
    ],
)
def test_a_list_of_answers_written_as_text(made, kind, cell, references):
    name = made([{"index": 1, "question": "Which?", "answer": cell}], kind)
    assert read(name)[0].references == references


def test_half_a_character_is_replaced(made, workspace):
    name = made([{"question": "Which?", "answer": "\ud83d", "said": "x"}])
    found = snellen.run(model="replay:said", data=name)
    assert found.metrics.outcomes["ok"] == 1
    assert read(name)[0].references == ("�",)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_rows_with_fewer_options_take_none_from_others(made, kind):
    few = {"question": "1?", "A": "red", "B": "blue", "C": None, "D": None, "answer": "A"}
    many = {"question": "2?", "A": "cat", "B": "dog", "C": "cow", "D": "pig", "answer": "C"}
    first, second = read(made([few, many], kind))
    assert (first.choices, second.choices) == (("red", "blue"), ("cat", "dog", "cow", "pig"))
    assert second.answers == (2,)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("cell", [["A", "C"], '["A", "C"]', "['A', 'C']", "A, C", "AC"])
def test_several_letters(made, kind, cell):
    row = {"question": "?", "A": "cat", "B": "dog", "C": "cow", "answer": cell}
    assert read(made([row], kind, "?answer_as=letters"))[0].answers == (0, 2)


def test_places_counted_from_one(made):
    rows = [{"question": f"{n}?", "options": ["cat", "dog", "cow", "pig"], "answer": n} for n in (1, 2, 3)]
    data = DATASETS.make(made(rows))
    assert (
        "counted from 0, but no answer is 0: if they count from 1, add -D answer_as=number" in data.notes[-1]
    )
    assert [sample.answers for sample in read(made(rows, options="?answer_as=number"))] == [(0,), (1,), (2,)]
    rows[0]["answer"] = 0
    assert DATASETS.make(made(rows)).notes[-1].endswith("counted from 0")
    rows[0]["answer"] = 4
    with pytest.raises(DataError, match="Set another with -D answer_as=number. Or skip"):
        select(DATASETS.make(made(rows))).fingerprint()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "cell", ["10,10,60,50", "[10 10 60 50]", "10 10 60 50", "(10, 10, 60, 50)", "[[10, 10, 60, 50]]"]
)
def test_boxes_written_as_text(made, kind, cell):
    (one,) = read(made([{"question": "dog", "b": cell}], kind, "?box=b&box_as=xyxy"))
    assert [region.box for region in one.regions] == [(10, 10, 60, 50)]


def test_no_box(made):
    cells: list[Any] = [[], None, "", "[]"]
    rows = [{"question": "dog", "b": cell} for cell in cells]
    assert [one.regions for one in read(made(rows, options="?box=b"))] == [()] * 4


def test_boxes_beyond_their_picture_are_looked_at(made):
    rows = [
        {"id": n, "question": "dog", "b": box}
        for n, box in ((1, [10, 10, 121, 81]), (2, [10, 10, 600, 5000]))
    ]
    problems = "\n".join(preflight(made(rows, options="?box=b&box_as=xyxy")).problems())
    assert "1 sample has a box that reaches beyond its picture (2)" in problems


@pytest.mark.parametrize(
    ("cell", "outlines"),
    [
        ([0, 0, 20, 0, 20, 80], 1),
        ([[0, 0], [20, 0], [20, 80]], 1),
        ([[0, 0, 20, 0, 20, 80], [100, 0, 120, 0, 120, 80]], 2),
        ("[[0, 0, 20, 0, 20, 80], [100, 0, 120, 0, 120, 80]]", 2),
        ([[[0, 0], [20, 0], [20, 80]], [[100, 0], [120, 0], [120, 80]]], 2),
        (None, 0),
    ],
)
def test_an_object_of_several_outlines(made, cell, outlines):
    (one,) = read(made([{"question": "dog", "b": [0, 0, 120, 80], "p": cell}], options="?box=b&polygon=p"))
    assert len(one.regions[0].outlines) == outlines
    assert all(len(outline) == 3 for outline in one.regions[0].outlines)


def test_outlines_of_several_objects(made):
    boxes, outlines = [[0, 0, 20, 80], [100, 0, 20, 80]], [[0, 0, 20, 0, 20, 80], [100, 0, 120, 0, 120, 80]]
    (one,) = read(made([{"question": "dog", "b": boxes, "p": outlines}], options="?box=b&polygon=p"))
    assert [len(region.outlines) for region in one.regions] == [1, 1]


def test_what_is_missing_is_nothing(made, workspace):
    rows: list[dict[str, Any]] = [
        {"question": f"{n}?", "answer": "yes", "said": said, "g": group}
        for n, (said, group) in enumerate([("yes", None), ("no", None), ("yes", "a"), ("yes", "a")])
    ]
    found = snellen.run(
        model="replay:said", data=made(rows, options="?answer=answer&answer_as=yes-no&pair=g")
    )
    assert found.metrics.protocol["pairs"] == 1
    nan = {"question": "?", "answer": float("nan")}
    assert read(made([nan]))[0].references == ()
    unnamed = DATASETS.make(made([{"id": None, "label": "a"}, {"id": 2, "label": "b"}]))
    assert [row.reason for row in unnamed.invalid] == ["an empty id"]


def test_questions_about_the_same_image_need_no_other_ids(made):
    rows = [{"image_id": 1, "question": f"{n}?", "answer": "a"} for n in range(2)]
    assert len(read(made(rows))) == 2
    with pytest.raises(DataError, match=r"duplicate id '1' \(-D id=COLUMN; -D id= numbers the rows\)"):
        read(made([{"id": 1, **row} for row in rows]))


def test_one_of_several_image_columns_may_be_empty(made):
    rows = [{"two": cell, "question": "?", "answer": "a"} for cell in ("i.png", "")]
    both, one = read(made(rows, "csv", "?image=image,two"))
    assert (len(both.images), len(one.images)) == (2, 1)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"id,label\rx,a\r", "carriage return alone.*CSV UTF-8"),
        ("id,label\nx,é\n".encode("latin-1"), "not UTF-8 at byte 11. Save it as UTF-8"),
        ("id,label\nx,a\n".encode("utf-16"), "not UTF-8 at byte 0. Save it as UTF-8"),
    ],
)
def test_files_of_other_programs(tmp_path, content, told):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=told):
        DATASETS.make(f"csv:{tmp_path}/t.csv")
