"""Copies, near-duplicates and named groups stay on one side of a split; classes count alike in training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snellen.datasets.base import DATASETS, Dataset, select
from snellen.errors import BadOption, DataError
from snellen.tuning.grouping import together
from snellen.tuning.leakage import leaks
from snellen.tuning.sources import Source, Subset, TrainingSet, random_split, split_data


def texture(key: int) -> Image.Image:
    """A picture that looks like no other."""
    blocks = np.random.default_rng(key).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Two classes of ten pictures; each picture lies there as PNG, as BMP, and as a small JPEG."""
    for number, kind in enumerate(("star", "ring")):
        folder = tmp_path / "photos" / kind
        folder.mkdir(parents=True)
        for i in range(10):
            image = texture(100 * number + i)
            image.save(folder / f"{i}.png")
            image.save(folder / f"{i}-again.bmp")
            image.resize((80, 80)).save(folder / f"{i}-small.jpg", quality=70)
    return tmp_path / "photos"


def names(part: Dataset) -> set[str]:
    """The pictures of a part, whatever their format."""
    return {part.row(i).id.partition(".")[0].partition("-")[0] for i in range(len(part))}


def test_copies_in_any_format_stay_on_one_side(copied):
    data = DATASETS.make(f"folder:{copied}")
    assert sorted(map(len, together(data))) == [3] * 20
    learned, tested = random_split(data, 0.3, 0)
    assert not names(learned) & names(tested)
    assert len(tested) == 18
    found = leaks([select(learned)], [select(tested)])
    assert not found.identical
    assert not found.near


def test_near_ones_are_dropped_as_identical_ones_are(copied):
    data = DATASETS.make(f"folder:{copied}")
    png = [i for i in range(len(data)) if data.row(i).id.endswith(".png")]
    rest = [i for i in range(len(data)) if i not in png]
    found = leaks([select(Subset(data, rest, "training"))], [select(Subset(data, png, "test"))])
    assert len(found.places[0]) == len(found.near_places[0]) == 20
    assert "dropped" in found.notes(["photos"], dropped=True)[-1]
    assert "--leaks drop" in found.notes(["photos"], dropped=False)[-1]


def test_a_plain_picture_resembles_nothing(tmp_path):
    for kind, gray in (("a", 10), ("b", 200)):
        (tmp_path / kind).mkdir()
        for i in range(3):
            Image.new("L", (32, 32), gray + i).save(tmp_path / kind / f"{i}.png")
    data = DATASETS.make(f"folder:{tmp_path}")
    assert sorted(map(len, together(data))) == [1] * 6
    assert not leaks([select(Subset(data, [0, 1], "x"))], [select(Subset(data, [2, 3], "y"))]).near


def test_where_all_look_alike_only_equal_pixels_are_copies(tmp_path):
    for kind in "ab":
        (tmp_path / kind).mkdir()
        for i in range(4):
            image = texture(1)
            image.putpixel((i, 0 if kind == "a" else 9), (0, 0, 0))
            image.save(tmp_path / kind / f"{i}.png")
    data = DATASETS.make(f"folder:{tmp_path}")
    told: list[str] = []
    assert sorted(map(len, together(data, tell=told.append))) == [1] * 8
    assert "--group" in told[0]


def test_a_named_group_stays_on_one_side(tmp_path):
    rows = []
    for i in range(24):
        texture(i).save(tmp_path / f"{i}.png")
        rows.append({"image": f"{i}.png", "label": "ab"[i // 12], "patient": f"p{i // 3}"})
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    name = f"jsonl:{tmp_path / 'x.jsonl'}"
    data = DATASETS.make(name, {"label": "label"})
    learned, tested = random_split(data, 0.25, 0, group="patient")
    patients = [
        {part.sample(i, part.labels, None).meta["patient"] for i in range(len(part))}
        for part in (learned, tested)
    ]
    assert not patients[0] & patients[1]
    assert len(patients[1]) == 2
    with pytest.raises(BadOption, match="no such column. Did you mean 'patient'"):
        random_split(data, 0.25, 0, group="patients")
    with pytest.raises(BadOption, match="--group needs --hold-out"):
        split_data(name, {}, train=None, split=None, share=None, seed=0, group="patient")


def test_a_folder_stays_on_one_side(tmp_path):
    for i in range(16):
        folder = tmp_path / "ab"[i // 8] / f"camera{i // 2}"
        folder.mkdir(parents=True, exist_ok=True)
        texture(i).save(folder / f"{i}.png")
    data = DATASETS.make(f"folder:{tmp_path}")
    learned, tested = random_split(data, 0.25, 1, group="folder")
    folders = [{part.row(i).id.rpartition("/")[0] for i in range(len(part))} for part in (learned, tested)]
    assert not folders[0] & folders[1]
    with pytest.raises(DataError, match="single group"):
        random_split(Subset(data, range(2), "x"), 0.5, 0, group="folder")


@pytest.mark.parametrize(
    ("sizes", "expected"), [((40, 4), (40, 40)), ((9, 8), (9, 8)), ((1000, 3), (1000, 300))]
)
def test_unequal_classes_are_balanced_by_default(sizes, expected):
    data = DATASETS.make("chart:shapes?n=30000")
    places: list[int] = []
    for kind, count in zip(("circle", "ring"), sizes, strict=True):
        places += [i for i in range(len(data)) if data.row(i).label == kind][:count]
    source = Source(selection=select(Subset(data, places, "x")), train_format="open")
    counted = TrainingSet([source], rare=None).classes()
    assert (counted["circle"], counted["ring"]) == expected
    assert TrainingSet([source], rare=None).balanced == (sizes != expected)
    plain = TrainingSet([source], rare=False).classes()
    assert (plain["circle"], plain["ring"]) == sizes
