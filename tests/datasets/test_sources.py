"""Data as other tools lay it out: COCO, Pascal VOC, YOLO, tar shards, zip files, tables of questions."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as pillow

from helpers import Scripted
from snellen.api import run
from snellen.datasets.base import DATASETS, Dataset, select
from snellen.errors import BadOption, DataError, ImageError
from snellen.types import Sample

#: Two colors side by side: what is cut out can be told by its color.
LEFT, RIGHT = (200, 0, 0), (0, 0, 200)


def scene(path: Path, size: tuple[int, int] = (120, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pillow.new("RGB", size, LEFT)
    picture.paste(RIGHT, (size[0] // 2, 0, *size))
    picture.save(path)


def png(color: Any) -> bytes:
    buffer = io.BytesIO()
    pillow.new("RGB", (32, 32), color).save(buffer, "PNG")
    return buffer.getvalue()


def samples(data: Dataset) -> list[Sample]:
    return list(select(data))


def color(sample: Sample) -> Any:
    (image,) = sample.images
    return image.pixels.getpixel((image.pixels.width // 2, image.pixels.height // 2))


def check_crops(data: Dataset) -> None:
    """Two scenes, each with a red box on the left and a blue one on the right."""
    assert data.labels == ("blue", "red") or data.labels == ("red", "blue")
    crops = samples(data)
    assert len(crops) == 4
    for sample in crops:
        assert color(sample) == {"red": LEFT, "blue": RIGHT}[sample.label or ""]
        assert sample.images[0].size == (40, 40)
    assert len({sample.id for sample in crops}) == 4


def check_scenes(data: Dataset) -> None:
    assert data.protocol == "grounding"
    scenes = [sample for sample in samples(data) if sample.regions]
    assert len(scenes) == 2
    for sample in scenes:
        assert sample.images[0].size == (120, 60)
        assert {(region.name, *map(round, region.box)) for region in sample.regions} == {
            ("red", 10, 10, 50, 50), ("blue", 70, 10, 110, 50),
        }  # fmt: skip


class TestCoco:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        content: dict[str, Any] = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 120, "height": 60} for i in (7, 9, 11)],
            "categories": [{"id": 3, "name": "red"}, {"id": 5, "name": "blue"}, {"id": 6, "name": "green"}],
            "annotations": [],
        }
        for image in (7, 9):
            for category, left in ((3, 10), (5, 70)):
                content["annotations"].append(
                    {"image_id": image, "category_id": category, "bbox": [left, 10, 40, 40], "iscrowd": 0}
                )
        content["annotations"] += [
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 120, 60], "iscrowd": 1},
            {"image_id": 7, "category_id": 3, "bbox": [10, 10, 4, 4], "iscrowd": 0},
        ]
        for image in (7, 9, 11):
            scene(tmp_path / "val2017" / f"{image}.png")
        file = tmp_path / "annotations" / "instances_val2017.json"
        file.parent.mkdir()
        file.write_text(json.dumps(content))
        return file

    def test_objects_are_cut_out(self, file):
        data = DATASETS.make(f"coco:{file}")
        check_crops(data)
        notes = " ".join(data.notes)
        assert "4 objects of 2 images" in notes
        assert "1 smaller than 16 pixels" in notes
        assert "1 crowd left out" in notes

    def test_or_found(self, file):
        data = DATASETS.make(f"coco:{file}?task=detect")
        # The small one too; and where nothing is, nothing is right.
        assert [len(sample.regions) for sample in samples(data)] == [3, 2, 0]
        assert "1 image without an object, where none is right" in " ".join(data.notes)

    def test_annotations_that_do_not_fit_are_left_out_or_named(self, file):
        content = json.loads(file.read_text())
        row = {"category_id": 3, "bbox": [5, 5, 0, 10], "id": 77}
        content["annotations"] += [{**row, "image_id": 9}, {**row, "image_id": 99}]
        for image in content["images"]:
            image["id"] = str(image["id"])  # as some tools write them in one list, but not in the other
        file.write_text(json.dumps(content))
        data = DATASETS.make(f"coco:{file}?task=detect")
        assert [len(sample.regions) for sample in samples(data)] == [3, 2, 0]
        notes = " ".join(data.notes)
        assert "1 box without an area left out" in notes
        assert "1 annotation of images that are not listed left out" in notes
        for change, told in (
            ({"category_id": 8}, "annotation 77: the category 8 is not among 'categories'"),
            ({"bbox": [1, 2, 3]}, "annotation 77 has no bbox of four numbers"),
        ):
            wrong = {**row, "image_id": 9, **change}
            file.write_text(json.dumps({**content, "annotations": [*content["annotations"], wrong]}))
            with pytest.raises(DataError, match=told):
                DATASETS.make(f"coco:{file}")
        lost = [{**one, "image_id": 1000} for one in content["annotations"]]
        file.write_text(json.dumps({**content, "annotations": lost}))
        with pytest.raises(
            DataError, match=r"no annotation's image_id \(1000 …\) is the id of an image \(7, 9"
        ):
            DATASETS.make(f"coco:{file}")

    def test_a_run(self, file, workspace):
        def say(request: Any) -> str:
            return "red" if request.images[0].pixels.getpixel((20, 20)) == LEFT else "blue"

        found = run(model=Scripted(say), data=f"coco:{file}", protocol="closed-set?rounds=1")
        assert found.metrics["accuracy"].value == 1
        assert found.metrics.n == 4

    def test_captions(self, tmp_path):
        scene(tmp_path / "images" / "1.png")
        rows = [{"image_id": 1, "caption": "two\ncolors"}, {"image_id": 1, "caption": "Red and blue."}]
        file = tmp_path / "captions.json"
        file.write_text(json.dumps({"images": [{"id": 1, "file_name": "1.png"}], "annotations": rows}))
        data = DATASETS.make(f"coco:{file}")
        assert data.protocol == "caption"
        assert data.sample(0, (), None).references == ("two colors", "Red and blue.")
        with pytest.raises(BadOption, match="has captions"):
            DATASETS.make(f"coco:{file}?task=detect")
        rows.append({"id": 3, "image_id": 1, "caption": None})
        file.write_text(json.dumps({"images": [{"id": 1, "file_name": "1.png"}], "annotations": rows}))
        with pytest.raises(DataError, match="annotation 3 has no caption"):
            DATASETS.make(f"coco:{file}")

    def test_what_is_wrong_is_named(self, file, tmp_path):
        other = tmp_path / "other.json"
        other.write_text("[]")
        with pytest.raises(DataError, match="not COCO's format"):
            DATASETS.make(f"coco:{other}")
        content = json.loads(file.read_text())
        content["images"][0]["file_name"] = "../../secret.png"
        scene(tmp_path.parent / "secret.png")
        bad = file.with_name("bad_val2017.json")
        bad.write_text(json.dumps(content))
        with pytest.raises(DataError, match="leads out of"):
            DATASETS.make(f"coco:{bad}", {"root": str(tmp_path / "val2017")})
        (tmp_path / "val2017").rename(tmp_path / "pictures")
        with pytest.raises(DataError, match="root=FOLDER"):
            DATASETS.make(f"coco:{file}")
        check_crops(DATASETS.make(f"coco:{file}", {"root": str(tmp_path / "pictures")}))


class TestVoc:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("a", "b", "c"):
            scene(tmp_path / "JPEGImages" / f"{name}.png")
            boxes = "".join(
                f"<object><name>{label}</name><difficult>{hard}</difficult><bndbox><xmin>{left}</xmin>"
                f"<ymin>10</ymin><xmax>{left + 40}</xmax><ymax>50</ymax></bndbox></object>"
                for label, left, hard in (("red", 10, 0), ("blue", 70, 0), ("red", 20, 1))
            )
            file = tmp_path / "Annotations" / f"{name}.xml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"<annotation><filename>{name}.png</filename>{boxes}</annotation>")
        lists = tmp_path / "ImageSets" / "Main"
        lists.mkdir(parents=True)
        (lists / "val.txt").write_text("a\nb\n")
        (lists / "train.txt").write_text("c\n")
        (lists / "red_val.txt").write_text("a 1\nb -1\n")
        return tmp_path

    def test_both_tasks(self, folder):
        data = DATASETS.make(f"voc:{folder}")
        check_crops(data)
        assert "2 objects marked difficult left out" in " ".join(data.notes)
        check_scenes(DATASETS.make(f"voc:{folder}?task=detect"))
        assert len(DATASETS.make(f"voc:{folder}?split=train")) == 2
        with pytest.raises(BadOption, match="its splits: train, val"):
            DATASETS.make(f"voc:{folder}?split=test")

    def test_entities_are_refused(self, folder):
        bomb = '<!DOCTYPE a [<!ENTITY x "xxxxxxxx">]><annotation>&x;</annotation>'
        for encoding in ("utf-8", "utf-16"):
            (folder / "Annotations" / "a.xml").write_text(bomb, encoding=encoding)
            with pytest.raises(DataError, match="document type"):
                DATASETS.make(f"voc:{folder}")


class TestYolo:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for split, names in {"val": "ab", "train": "c"}.items():
            for name in names:
                scene(tmp_path / "images" / split / f"{name}.png")
                file = tmp_path / "labels" / split / f"{name}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                outline = " ".join(
                    f"{x / 120} {y / 60}" for x, y in ((70, 10), (110, 10), (110, 50), (70, 50))
                )
                file.write_text(f"1 {30 / 120} 0.5 {40 / 120} {40 / 60}\n0 {outline}\n")
        scene(tmp_path / "images" / "val" / "empty.png")
        (tmp_path / "data.yaml").write_text(
            "path: .\ntrain: images/train\nval: images/val\nnames: [blue, red]\n"
        )
        return tmp_path

    def test_both_tasks(self, folder):
        check_crops(DATASETS.make(f"yolo:{folder}/data.yaml"))
        scenes = DATASETS.make(f"yolo:{folder}?task=detect")
        check_scenes(scenes)
        assert len(scenes) == 3  # in one of them is nothing to find
        assert len(DATASETS.make(f"yolo:{folder}?split=train")) == 2

    def test_roboflow_writes_folders_above(self, folder):
        (folder / "images" / "val").rename(folder / "valid")
        (folder / "valid").rename(folder / "v")
        for name, part in (("images", "images"), ("labels", "labels")):
            (folder / "valid" / name).mkdir(parents=True)
            source = folder / "v" if part == "images" else folder / "labels" / "val"
            for path in source.iterdir():
                path.rename(folder / "valid" / name / path.name)
        (folder / "data.yaml").write_text("val: ../valid/images\nnames: {0: blue, 1: red}\n")
        check_crops(DATASETS.make(f"yolo:{folder}/data.yaml"))

    def test_a_broken_line_is_named(self, folder):
        (folder / "labels" / "val" / "a.txt").write_text("1 0.5 0.5 0.1 0.1\nred 0.5 0.5 0.1 0.1\n")
        with pytest.raises(DataError, match=r"a\.txt, line 2"):
            DATASETS.make(f"yolo:{folder}")


class TestShards:
    def shard(self, path: Path, members: dict[str, bytes]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as file:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        colors = {0: (250, 0, 0), 1: (0, 0, 250)}
        for number in range(2):
            members = {}
            for i in range(3):
                kind = (number + i) % 2
                members[f"s{number}{i}.png"] = png(colors[kind])
                members[f"s{number}{i}.cls"] = str(kind).encode()
            self.shard(tmp_path / "test" / f"{number}.tar", members)
        (tmp_path / "classnames.txt").write_text("red\nblue\ngreen\n")
        return tmp_path

    def test_classes(self, folder):
        data = DATASETS.make(f"webdataset:{folder}")
        assert set(data.labels) == {"red", "blue"}
        found = samples(data)
        assert [sample.id for sample in found] == ["0/s00", "0/s01", "0/s02", "1/s10", "1/s11", "1/s12"]
        for sample in found:
            assert color(sample) == {"red": (250, 0, 0), "blue": (0, 0, 250)}[sample.label or ""]
        assert len(DATASETS.make(f"webdataset:{folder}/test/0.tar")) == 3
        with pytest.raises(BadOption, match="its splits: test"):
            DATASETS.make(f"webdataset:{folder}?split=train")

    def test_captions_and_json(self, tmp_path):
        self.shard(
            tmp_path / "a.tar", {"x/1.png": png("red"), "x/1.txt": b"one\ntwo\n", "x/2.png": png("lime")}
        )
        data = DATASETS.make(f"webdataset:{tmp_path}")
        assert data.protocol == "caption"
        assert data.sample(0, (), None).references == ("one", "two")
        members = {"1.jpg": png("red"), "1.json": b'{"label": "ruby"}'}
        members |= {"2.jpg": png("lime"), "2.json": b'{"label": "lime"}'}
        self.shard(tmp_path / "b" / "b.tar", members)
        assert DATASETS.make(f"webdataset:{tmp_path}/b").labels == ("ruby", "lime")

    def test_what_is_wrong_is_named(self, folder, tmp_path):
        (folder / "classnames.txt").write_text("red\n")
        with pytest.raises(DataError, match="the class '1' is not one of 1"):
            DATASETS.make(f"webdataset:{folder}")
        (tmp_path / "c.tar").write_bytes(b"\x1f\x8b not a tar")
        with pytest.raises(DataError, match="not an uncompressed tar"):
            DATASETS.make(f"webdataset:{tmp_path}/c.tar")
        with pytest.raises(DataError, match="no shards"):
            DATASETS.make(f"webdataset:{tmp_path}/nothing")


class TestZip:
    def archive(self, path: Path, members: dict[str, bytes]) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name, content)

    def test_as_the_folder_is_read(self, tmp_path):
        members = {f"photos/{c}/{i}.png": png(c) for c in ("red", "blue") for i in range(2)}
        members |= {
            "photos/red/notes.txt": b"x",
            "__MACOSX/photos/red/._0.png": b"x",
            "photos/.DS_Store": b"x",
        }
        self.archive(tmp_path / "photos.zip", members)
        zipped = DATASETS.make(f"zip:{tmp_path}/photos.zip")
        assert "1 .txt (in 'red')" in " ".join(zipped.notes)
        with zipfile.ZipFile(tmp_path / "photos.zip") as file:
            file.extractall(tmp_path)
        (tmp_path / "photos" / "red" / "notes.txt").unlink()
        folder = DATASETS.make(f"folder:{tmp_path}/photos")
        assert zipped.labels == folder.labels == ("blue", "red")
        rows = [(s.id, s.label, s.images[0].sha256) for s in samples(zipped)]
        assert rows == [(s.id, s.label, s.images[0].sha256) for s in samples(folder)]

    def test_splits(self, tmp_path):
        members = {f"{s}/{c}/0.png": png(c) for s in ("train", "test") for c in ("red", "blue")}
        self.archive(tmp_path / "a.zip", members)
        data = DATASETS.make(f"zip:{tmp_path}/a.zip")
        assert [sample.id for sample in samples(data)] == ["blue/0.png", "red/0.png"]
        assert "split 'test'" in " ".join(data.notes)

    def test_what_is_no_zip_or_a_bomb(self, tmp_path, monkeypatch):
        (tmp_path / "a.zip").write_bytes(b"no")
        with pytest.raises(DataError, match="not a readable zip"):
            DATASETS.make(f"zip:{tmp_path}/a.zip")
        self.archive(tmp_path / "b.zip", {"a/1.png": bytes(5000), "b/1.png": png("red")})
        monkeypatch.setattr("snellen.datasets.zipped.MAX_BYTES", 4000)
        data = DATASETS.make(f"zip:{tmp_path}/b.zip")
        with pytest.raises(ImageError, match="larger than the limit of 4,000"):
            _ = data.sample(0, data.labels, None).images[0].data


class TestQuestions:
    def table(self, tmp_path: Path, *rows: dict[str, Any]) -> Dataset:
        (tmp_path / "1.png").write_bytes(png("red"))
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps({"image": "1.png", **row}) + "\n" for row in rows))
        return DATASETS.make(f"jsonl:{file}")

    @pytest.mark.parametrize(
        ("row", "protocol", "right"),
        [
            (
                {"text": "Which color?\nA. red\nB. blue\nChoose A or B.", "label": "A"},
                "multiple-choice",
                "red",
            ),
            ({"question": "Which?", "A": "red", "B": "blue", "answer": "B"}, "multiple-choice", "blue"),
            ({"question": "Which?", "options": ["red", "blue"], "answer": 1}, "multiple-choice", "blue"),
            ({"question": "How many?", "choices": ["3", "4"], "answer": "3"}, "multiple-choice", "3"),
            ({"question": "Which?", "choices": ["red", "blue"], "answer": "blue"}, "multiple-choice", "blue"),
        ],
    )
    def test_options_are_recognized(self, tmp_path, row, protocol, right):
        data = self.table(tmp_path, row)
        assert data.protocol == protocol
        sample = data.sample(0, (), None)
        assert [sample.choices[i] for i in sample.answers] == [right]
        assert "read as questions" in " ".join(data.notes)

    def test_answers_and_captions_too(self, tmp_path):
        data = self.table(tmp_path, {"question": "Which color?", "answer": "red"})
        assert (data.protocol, data.sample(0, (), None).references) == ("vqa", ("red",))
        data = self.table(tmp_path, {"caption": "A red square."})
        assert (data.protocol, data.sample(0, (), None).references) == ("caption", ("A red square.",))

    def test_classes_stay_classes(self, tmp_path):
        data = self.table(tmp_path, {"label": "red", "text": "A red one."}, {"label": "blue", "text": "x"})
        assert set(data.labels) == {"red", "blue"}
        data = self.table(
            tmp_path, {"label": "red", "caption": "A red one."}, {"label": "blue", "caption": "x"}
        )
        assert set(data.labels) == {"red", "blue"}
        assert not data.notes


def test_all_missing_images_are_reported(tmp_path):
    (tmp_path / "there.png").write_bytes(png("red"))
    rows = "".join(f"{'there' if i == 3 else f'gone{i}'}.png,{'ab'[i % 2]}\n" for i in range(30))
    (tmp_path / "data.csv").write_text(f"image,label\n{rows}")
    with pytest.raises(ImageError) as caught:
        select(DATASETS.make(f"csv:{tmp_path}/data.csv")).fingerprint()
    lines = str(caught.value).splitlines()
    assert lines[0] == "29 samples cannot be read:"
    assert "gone0.png" in lines[1]
    assert len(lines) == 1 + 20 + 2
    assert lines[-2:] == ["  … and 9 more", "Or skip invalid samples with --skip-invalid"]
