"""Tables of samples: every way an image can stand in a cell, and every way a row can be wrong."""

from __future__ import annotations

import base64
import csv
import io
import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as pillow

from copies import picture
from helpers import Scripted
from snellen.api import run
from snellen.datasets.base import DATASETS, Selection, select
from snellen.datasets.records import Delimited, JsonLines, Parquet
from snellen.errors import BadOption, DataError, ImageError
from snellen.images import encode


def png(color: str = "red") -> bytes:
    buffer = io.BytesIO()
    pillow.new("RGB", (8, 8), color).save(buffer, "PNG")
    return buffer.getvalue()


def b64(color: str = "red") -> str:
    return base64.b64encode(png(color)).decode()


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[dict], separator: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: list[dict]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path


ROWS = [
    {"id": "a", "image": b64("red"), "label": "cat", "note": "None"},
    {"id": "b", "image": b64("blue"), "label": "dog", "note": "N/A"},
    {"id": "c", "image": b64("lime"), "label": '猫, ein "Tier"\nzwei', "note": ""},
    {"id": "d", "image": b64("white"), "label": "dog", "note": "nan"},
]
WRITERS = {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}


@pytest.mark.parametrize("scheme", WRITERS)
def test_rows_become_samples(scheme, tmp_path):
    path = WRITERS[scheme](tmp_path / f"x.{scheme}", ROWS)
    data = DATASETS.make(f"{scheme}:{path}")
    assert len(data) == 4
    assert data.labels == tuple(sorted({row["label"] for row in ROWS}))
    assert data.invalid == ()
    for i, row in enumerate(ROWS):
        sample = data.sample(i, data.labels, None)
        assert (sample.id, sample.label) == (row["id"], row["label"])
        assert sample.images[0].data == base64.b64decode(row["image"])
        assert sample.meta["note"] == row["note"]  # "None" and "N/A" are texts like any other
        assert "image" not in sample.meta
    # In any order, and again.
    assert data.sample(3, data.labels, None).id == "d"
    assert data.sample(0, data.labels, None).id == "a"
    assert len(select(data).fingerprint()) == 64


@pytest.mark.parametrize("scheme", WRITERS)
def test_a_run_over_a_table(scheme, tmp_path, workspace):
    path = WRITERS[scheme](tmp_path / f"x.{scheme}", ROWS)
    found = run(model="pico:clip", data=f"{scheme}:{path}", protocol="rank")
    assert list(found.predictions["id"]) == ["a", "b", "c", "d"]
    assert list(found.predictions["label"]) == [row["label"] for row in ROWS]


class TestImages:
    def data(self, tmp_path, value, **options):
        rows = [{"image": value, "label": "a"}, {"image": b64(), "label": "b"}]
        return DATASETS.make(f"jsonl:{write_jsonl(tmp_path / 'x.jsonl', rows)}", options)

    def look(self, data):
        return data.sample(0, data.labels, None).images[0].data

    def test_a_path_relative_to_the_file(self, tmp_path):
        (tmp_path / "pictures").mkdir()
        (tmp_path / "pictures" / "1.png").write_bytes(png("lime"))
        assert self.look(self.data(tmp_path, "pictures/1.png")) == png("lime")

    def test_a_data_uri(self, tmp_path):
        assert self.look(self.data(tmp_path, f"data:image/png;base64,{b64('lime')}")) == png("lime")

    def test_bytes_and_the_layout_of_the_datasets_library(self, tmp_path):
        rows: list[dict[str, Any]] = [
            {"image": {"bytes": png("lime"), "path": None}, "label": "a"},
            {"image": {"bytes": png(), "path": "x.png"}, "label": "b"},
        ]
        data = DATASETS.make(f"parquet:{write_parquet(tmp_path / 'x.parquet', rows)}")
        assert self.look(data) == png("lime")
        rows = [
            {"image_bytes": png("lime"), "class": "a"},
            {"image_bytes": png(), "class": "b"},
        ]
        data = DATASETS.make(f"parquet:{write_parquet(tmp_path / 'y.parquet', rows)}")
        assert self.look(data) == png("lime")
        assert data.labels == ("a", "b")

    @pytest.mark.parametrize("value", ["../secret.png", "/etc/passwd.png", "pictures/../../secret.png"])
    def test_no_path_leads_out_of_the_folder(self, tmp_path, value):
        (tmp_path / "secret.png").write_bytes(png())
        (tmp_path / "in").mkdir()
        data = self.data(tmp_path / "in", value)
        with pytest.raises(ImageError, match="leads out of.*allow_outside=true"):
            self.look(data)
        if value == "../secret.png":
            allowed = self.data(tmp_path / "in", value, allow_outside="true")
            assert self.look(allowed) == png()

    def test_nor_does_a_link(self, tmp_path):
        (tmp_path / "secret.png").write_bytes(png())
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
        with pytest.raises(ImageError, match="leads out"):
            self.look(self.data(tmp_path / "in", "link.png"))

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("http://example.com/a.png", "URLs in data are not fetched"),
            ("https://example.com/a.png", "not fetched"),
            ("nowhere.png", "cannot be read"),
            ("%%%", "neither a path"),
            ("", "the image cell is empty"),
            (None, "the image cell is empty"),
            (7, "the image cell is empty"),
        ],
    )
    def test_what_is_no_image_is_named_by_its_row(self, tmp_path, value, message):
        with pytest.raises(ImageError, match=message) as caught:
            self.look(self.data(tmp_path, value))
        assert "x.jsonl, line 1" in str(caught.value) or "nowhere.png" in str(caught.value)


class TestColumns:
    def test_named_ones(self, tmp_path):
        rows = [{"pic": b64(), "what": w, "key": i, "q": "Which?", "r": f"a {w}"} for i, w in enumerate("ab")]
        path = write_jsonl(tmp_path / "x.jsonl", rows)
        options = {"image": "pic", "label": "what", "id": "key", "question": "q", "reference": "r"}
        sample = DATASETS.make(f"jsonl:{path}", options).sample(1, ("a", "b"), None)
        assert (sample.id, sample.label, sample.question) == ("1", "b", "Which?")
        assert sample.references == ("a b",)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"label": "lable"}, BadOption, "label='lable': no such column in .* Did you mean 'label'"),
            ({"reference": "x"}, BadOption, "reference='x'"),
            ({"background": "none"}, BadOption, "background='none'"),
            ({"labels": "cat,cat"}, BadOption, "duplicate class name"),
        ],
    )
    def test_mistakes(self, tmp_path, options, error, message):
        path = write_jsonl(tmp_path / "x.jsonl", ROWS)
        with pytest.raises(error, match=message):
            DATASETS.make(f"jsonl:{path}", options)

    def test_no_image_column(self, tmp_path):
        path = write_jsonl(tmp_path / "x.jsonl", [{"a": 1}])
        with pytest.raises(DataError, match="no image column among a"):
            DATASETS.make(f"jsonl:{path}")

    def test_the_label_set_and_its_order(self, tmp_path):
        path = write_jsonl(tmp_path / "x.jsonl", [ROWS[0], ROWS[1], ROWS[3]])
        data = DATASETS.make(f"jsonl:{path}", {"labels": "dog, cat, clutter", "background": "clutter"})
        assert data.labels == ("dog", "cat", "clutter")
        assert data.background == "clutter"


BAD = [
    ({"id": "a", "image": b64(), "label": "cat"}, "duplicate id 'a'"),
    ({"id": "", "image": b64(), "label": "cat"}, "an empty id"),
    ({"id": "x", "image": b64(), "label": " "}, "an empty label"),
    ({"id": "x", "image": b64(), "label": None}, "an empty label"),
    ({"id": "x", "image": b64(), "label": "cta"}, "'cta' is not in the label set Did you mean 'cat'"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_bad_rows_are_named_or_skipped(row, reason, tmp_path, workspace):
    rows = [ROWS[0], ROWS[1], row, {**ROWS[3], "label": "cat"}]
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    data = DATASETS.make(f"jsonl:{path}", {"labels": "cat,dog"})
    with pytest.raises(DataError, match="line 3.*--skip-invalid") as caught:
        select(data)
    assert reason in str(caught.value)
    found = run(
        model="pico:clip",
        data=f"jsonl:{path}",
        data_options={"labels": "cat,dog"},
        protocol="rank",
        skip_invalid=True,
    )
    assert list(found.predictions["id"]) == ["a", "b", "d"]
    assert found.metrics.skipped == 1
    assert reason in found.manifest.data.skipped[0].reason


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"", "no rows|no column"),
        ("x.jsonl", b'{"image": "a.png", "label": "a"}\n{oops\n', "line 2: not JSON"),
        ("x.jsonl", b"1\n", "line 1: expected a JSON object, found int"),
        ("x.jsonl", b'{"image": "\xff"}\n', "not UTF-8"),
        ("x.csv", b"", "file is empty"),
        ("x.csv", b"image,label\na.png\n", "line 2: 1 cells, but the header has 2"),
        ("x.csv", b"image,image\na,b\n", "duplicate column names"),
        ("x.csv", b"image,label\n", "no rows"),
        ("x.parquet", b"not parquet", "not a parquet file"),
    ],
)
def test_broken_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        DATASETS.make(f"{name[2:]}:{tmp_path / name}")
    with pytest.raises(DataError, match="no such file"):
        DATASETS.make(f"{name[2:]}:{tmp_path / 'nowhere'}")


def test_a_byte_order_mark_blank_lines_and_windows_line_ends(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbfid,image,label\r\n1,a.png,"two\r\nlines"\r\n\r\n2,b.png,c\r\n')
    records = Delimited(path, ",")
    assert records.columns == ("id", "image", "label")
    assert [records[i]["label"] for i in (1, 0)] == ["c", "two\r\nlines"]
    lines = tmp_path / "x.jsonl"
    lines.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \n{"b": 2}')
    found = JsonLines(lines)
    assert (found[0], found[1], found.where(1)) == ({"a": 1}, {"b": 2}, f"{lines}, line 4")
    assert found.columns == ("a", "b")


def test_rows_stay_in_their_file(tmp_path):
    """A file of 20 MB is read through and its rows picked, in a twentieth of that memory."""
    rows = ({"id": i, "image": "x" * 2000 + str(i), "label": "ab"[i % 2]} for i in range(10_000))
    path = tmp_path / "x.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    tracemalloc.start()
    data = DATASETS.make(f"jsonl:{path}")
    for i in range(0, 10_000, 37):
        data.sample(i, data.labels, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 20_000_000
    assert peak < 4_000_000


def test_parquet_by_row_groups(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", [{"n": i} for i in range(7)])
    records = Parquet(path)
    assert [records[i]["n"] for i in (6, 0, 3, 5, 2)] == [6, 0, 3, 5, 2]
    assert [row["n"] for row in records.scan(["n"])] == list(range(7))


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record which row groups are read."""
    import pyarrow.parquet as pq

    read: list[int] = []
    plain = pq.ParquetFile.read_row_group

    def counted(file, group, **options):
        read.append(group)
        return plain(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    return read


def many_groups(path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"image": {"bytes": picture(f"{i}"), "path": None}, "label": "ab"[i % 2]} for i in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
    return path


def test_shuffled_rows_read_each_row_group_once(tmp_path, monkeypatch):
    records = Parquet(many_groups(tmp_path / "x.parquet"))
    read = count_reads(monkeypatch)
    order = random.Random(1).sample(range(40), 40)
    assert [records[i]["label"] for i in order] == ["ab"[i % 2] for i in order]
    assert sorted(read) == list(range(10))


def test_row_groups_in_memory_are_bounded(tmp_path, monkeypatch):
    records = Parquet(many_groups(tmp_path / "x.parquet"))
    rows = [records[i] for i in range(4)]
    group = sum(len(row["image"]["bytes"]) for row in rows)
    monkeypatch.setattr("snellen.datasets.records.HELD", 3 * group)
    read = count_reads(monkeypatch)
    for i in (4, 0, 8, 0, 36, 12, 0):  # the row that is asked for most stays
        records[i]
    assert read[:4] == [1, 2, 9, 3]
    read.clear()
    for i in (*range(0, 40, 4), 4):
        records[i]
    assert read[-1] == 1  # left in between


def test_a_shuffled_data_set_is_hashed_in_the_order_of_its_file(tmp_path, monkeypatch):
    """Also where memory holds a single row group."""
    data = DATASETS.make(f"parquet:{many_groups(tmp_path / 'x.parquet')}")
    monkeypatch.setattr("snellen.datasets.records.HELD", 0)
    order = random.Random(1).sample(range(40), 40)
    plain = Selection(data, order, data.labels).fingerprint()
    read = count_reads(monkeypatch)
    assert Selection(DATASETS.make(data.name), order, data.labels).fingerprint() == plain
    assert read == list(range(10))
    assert Selection(data, order[::-1], data.labels).fingerprint() != plain


class TestTsv:
    ROWS = [  # noqa: RUF012
        {
            "index": "1", "image": b64("red"), "question": "Which?", "hint": "look", "A": "None", "B": "N/A",
            "C": "cat", "D": "", "answer": "B", "category": "x", "l2-category": "y", "split": "dev",
        },
        {
            "index": "2", "image": "1", "question": "And?", "hint": "", "A": "yes", "B": "no",
            "C": "", "D": "", "answer": "A", "category": "x", "l2-category": "y", "split": "test",
        },
        {
            "index": "3", "image": str([b64("lime"), b64("blue")]), "question": "Two?", "hint": "", "A": "1",
            "B": "2", "C": "3", "D": "4", "answer": "AC", "category": "z", "l2-category": "y",
            "split": "test",
        },
    ]  # fmt: skip

    def test_what_vlmevalkit_prints(self, tmp_path, workspace):
        data = f"tsv:{write_csv(tmp_path / 'x.tsv', self.ROWS[:2], chr(9))}"
        found = run(model=Scripted(lambda request: "B"), data=data)
        figures = {(figure.group, figure.name): figure.value for figure in found.metrics.official}
        assert figures == {
            ("", "Overall"): 0.5,
            ("split", "dev"): 1.0,
            ("split", "test"): 0.0,
            ("l2-category", "y"): 0.5,
            ("category", "x"): 0.5,
        }

    def test_the_layout(self, tmp_path):
        data = DATASETS.make(f"tsv:{write_csv(tmp_path / 'x.tsv', self.ROWS, chr(9))}")
        one, two, three = (data.sample(i, (), None) for i in range(3))
        assert one.choices == ("None", "N/A", "cat")
        assert one.meta["letters"] == ["A", "B", "C"]
        assert one.references == ("N/A",)
        assert (one.question, one.meta["hint"], one.meta["answer"]) == ("Which?", "look", "B")
        assert two.images[0].data == png("red")  # that of the row it refers to
        assert [image.data for image in three.images] == [png("lime"), png("blue")]
        assert three.meta["answer"] == "AC"
        assert len(select(data).fingerprint()) == 64

    def test_splits(self, tmp_path):
        path = write_csv(tmp_path / "x.tsv", self.ROWS, "\t")
        data = DATASETS.make(f"tsv:{path}?split=test")
        assert [data.row(i).id for i in range(len(data))] == ["2", "3"]
        assert data.sample(0, (), None).images[0].data == png("red")
        with pytest.raises(BadOption, match="no split 'val'; its splits: dev, test"):
            DATASETS.make(f"tsv:{path}?split=val")

    def test_paths(self, tmp_path):
        (tmp_path / "1.png").write_bytes(png("lime"))
        rows = [{"index": "7", "image_path": "1.png", "question": "?", "answer": "x"}]
        data = DATASETS.make(f"tsv:{write_csv(tmp_path / 'x.tsv', rows, chr(9))}")
        assert data.sample(0, (), None).images[0].data == png("lime")

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([{"image": "x", "question": "?"}], "missing column 'index'"),
            ([{"index": "1", "question": "?"}], "expected a column 'image' or 'image_path'"),
        ],
    )
    def test_missing_columns(self, tmp_path, rows, message):
        with pytest.raises(DataError, match=message):
            DATASETS.make(f"tsv:{write_csv(tmp_path / 'x.tsv', rows, chr(9))}")

    def test_two_rows_of_one_index(self, tmp_path):
        data = DATASETS.make(f"tsv:{write_csv(tmp_path / 'x.tsv', [self.ROWS[0]] * 2, chr(9))}")
        with pytest.raises(DataError, match="line 3: duplicate index '1'"):
            select(data)


def test_class_names_in_a_parquet_file_are_used(tmp_path):
    import datasets

    rows = {"image": ["a.png", "b.png"], "label": [1, 0]}
    features = datasets.Features(
        {"image": datasets.Value("string"), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    datasets.Dataset.from_dict(rows, features).to_parquet(str(tmp_path / "x.parquet"))
    data = DATASETS.make(f"parquet:{tmp_path / 'x.parquet'}")
    assert data.labels == ("cat", "dog")
    assert [data.row(i).label for i in range(2)] == ["dog", "cat"]


def test_a_list_is_no_class_name(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"image": "a.png", "label": [["cat", "dog"]]}\n')
    data = DATASETS.make(f"jsonl:{tmp_path / 'x.jsonl'}")
    assert "a list where the name of a class is expected" in data.invalid[0].reason


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_tables_as_people_have_them(tmp_path, separator):
    """A Kaggle CSV: images in another folder, without extension, spaces and capitals in the header."""
    folder = tmp_path / "train"
    folder.mkdir()
    for name in ("000bec", "001513"):
        (folder / f"{name}.jpg").write_bytes(encode(pillow.new("RGB", (8, 8)), "JPEG"))
    rows = [("FileName", " Label "), ("000bec", "dog"), ("001513", "cat")]
    (tmp_path / "labels.csv").write_text("".join(separator.join(row) + "\n" for row in rows))
    data = DATASETS.make(f"csv:{tmp_path / 'labels.csv'}?root={folder}")
    assert data.labels == ("cat", "dog")
    assert data.sample(0, data.labels, None).images[0].size == (8, 8)


def test_a_list_in_json_is_read_as_lines_are(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(pillow.new("RGB", (8, 8))))
    rows = [{"image": "a.png", "label": "x"}, {"image": "a.png", "label": "y"}]
    (tmp_path / "data.jsonl").write_text(json.dumps(rows, indent=1))
    data = DATASETS.make(f"jsonl:{tmp_path / 'data.jsonl'}")
    assert [data.row(i).label for i in range(len(data))] == ["x", "y"]
    (tmp_path / "data.jsonl").write_text('["a.png"]')
    with pytest.raises(DataError, match="expected a list of JSON objects"):
        DATASETS.make(f"jsonl:{tmp_path / 'data.jsonl'}")


def test_paths_of_other_systems(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "cafe\u0301.png").write_bytes(encode(pillow.new("RGB", (8, 8))))
    (tmp_path / "x.csv").write_text("image,label\nd\\cafe\u0301.png,a\nd/caf\u00e9.png,b\n")
    data = DATASETS.make(f"csv:{tmp_path / 'x.csv'}")
    assert all(data.sample(i, data.labels, None).images[0].size == (8, 8) for i in range(2))


def test_how_answers_are_read_is_as_the_user_says(tmp_path):
    """Also where a table is recognized by its columns; the first answer is a letter and a text."""
    (tmp_path / "a.png").write_bytes(png())
    rows = 'image,question,A,B,C,answer\na.png,Q?,"C","B","A",C\na.png,Q?,"4","2","1",C\n'
    (tmp_path / "rows.csv").write_text(rows)
    with pytest.raises(DataError, match="Set another with -D answer_as=letter"):
        list(select(DATASETS.make(f"csv:{tmp_path / 'rows.csv'}")))
    data = select(DATASETS.make(f"csv:{tmp_path / 'rows.csv'}?answer_as=letter"))
    assert [sample.answers for sample in data] == [(2,), (2,)]
