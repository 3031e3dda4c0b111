"""Data sets: folders, charts, filters, fingerprints."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from snellen.datasets.base import DATASETS, Selection, select
from snellen.datasets.folder import clean
from snellen.datasets.names import read_names
from snellen.datasets.shapes import KINDS, caption, draw, figure, nth_figure
from snellen.errors import BadOption, DataError, ImageError, UnknownName


def make(top: Path, *paths: str) -> Path:
    for i, path in enumerate(paths):
        file = top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i * 7 % 256, i * 13 % 256, 40)).save(file)
    return top


def labels_of(selection: Selection) -> list[str | None]:
    return [sample.label for sample in selection]


class TestFolder:
    def test_one_folder_a_class(self, tmp_path):
        make(tmp_path, "polar_bear/1.png", "polar_bear/2.png", "black-cat/1.JPG", "dog/deep/er/1.webp")
        (tmp_path / "dog" / "notes.txt").write_text("not a readable image")
        data = DATASETS.make(f"folder:{tmp_path}")
        assert data.labels == ("black cat", "dog", "polar bear")
        rows = [data.row(i) for i in range(len(data))]
        assert [r.id for r in rows] == [
            "black-cat/1.JPG",
            "dog/deep/er/1.webp",
            "polar_bear/1.png",
            "polar_bear/2.png",
        ]
        assert [r.label for r in rows] == ["black cat", "dog", "polar bear", "polar bear"]
        sample = data.sample(2, data.labels, None)
        assert sample.images[0].pixels.size == (8, 8)

    def test_any_prefix_is_balanced(self, tmp_path):
        make(tmp_path, *(f"{c}/{i}.png" for c in "abc" for i in range(5)))
        picked = select(DATASETS.make(f"folder:{tmp_path}"), limit=6)
        assert Counter(labels_of(picked)) == {"a": 2, "b": 2, "c": 2}

    def test_raw_names_and_leaf_folders(self, tmp_path):
        make(tmp_path, "animals/polar_bear/1.png", "things/257.clutter/1.png", "things/cup/1.png")
        assert DATASETS.make(f"folder:{tmp_path}").labels == ("animals", "things")
        assert DATASETS.make(f"folder:{tmp_path}?level=leaf").labels == ("polar bear", "clutter", "cup")
        raw = DATASETS.make(f"folder:{tmp_path}?raw_names=true&level=leaf")
        assert raw.labels == ("animals/polar_bear", "things/257.clutter", "things/cup")

    def test_splits(self, tmp_path):
        make(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png", "val/b/2.png")
        assert len(DATASETS.make(f"folder:{tmp_path}")) == 3
        chosen = DATASETS.make(f"folder:{tmp_path}?split=train")
        assert len(chosen) == 2
        assert "split 'train' of train, val" in chosen.notes[0]
        with pytest.raises(BadOption, match="no split 'test'.*train, val"):
            DATASETS.make(f"folder:{tmp_path}?split=test")

    def test_classes_called_train_and_test_are_classes(self, tmp_path):
        make(tmp_path, "train/1.png", "bus/1.png")
        assert DATASETS.make(f"folder:{tmp_path}").labels == ("bus", "train")
        with pytest.raises(BadOption, match="has no splits"):
            DATASETS.make(f"folder:{tmp_path}?split=train")

    def test_background_and_synonyms(self, tmp_path):
        make(tmp_path, "001.ak47/1.png", "257.clutter/1.png")
        names = tmp_path / "names.json"
        names.write_text(json.dumps({"ak47": ["Kalashnikov"]}))
        data = DATASETS.make(f"folder:{tmp_path}?background=clutter&synonyms={names}")
        assert data.background == "clutter"
        assert data.sample(0, data.labels, "clutter").synonyms == {"ak47": ("Kalashnikov",)}
        with pytest.raises(BadOption, match="background='cluter'.*Did you mean 'clutter'"):
            DATASETS.make(f"folder:{tmp_path}?background=cluter")

    @pytest.mark.parametrize(
        ("paths", "message"),
        [
            ((), "no images in class folders"),
            (("1.png", "2.png"), "2 are at the top level"),
            (("big_cat/1.png", "big-cat/1.png"), "raw_names=true"),
        ],
    )
    def test_what_is_no_data_set(self, tmp_path, paths, message):
        with pytest.raises(DataError, match=message):
            DATASETS.make(f"folder:{make(tmp_path, *paths)}")
        with pytest.raises(DataError, match="no such folder"):
            DATASETS.make(f"folder:{tmp_path}/nowhere")

    def test_one_class_is_refused(self, tmp_path):
        make(tmp_path, "cat/1.png", "cat/2.png")
        with pytest.raises(DataError, match="at least two"):
            select(DATASETS.make(f"folder:{tmp_path}"))

    def test_a_link_to_a_folder_above_does_not_go_round_for_ever(self, tmp_path):
        make(tmp_path / "d", "a/1.png", "b/1.png")
        (tmp_path / "d" / "a" / "up").symlink_to(tmp_path / "d")
        make(tmp_path / "elsewhere", "1.png")
        (tmp_path / "d" / "c").symlink_to(tmp_path / "elsewhere")
        assert DATASETS.make(f"folder:{tmp_path}/d").labels == ("a", "b", "c")

    def test_the_fingerprint_is_of_names_and_contents(self, tmp_path):
        make(tmp_path / "one", "a/1.png", "b/1.png")
        shutil.copytree(tmp_path / "one", tmp_path / "two")

        def fingerprint(name):
            return select(DATASETS.make(f"folder:{tmp_path}/{name}")).fingerprint()

        before = fingerprint("one")
        assert before == fingerprint("two")
        Image.new("RGB", (8, 8), "blue").save(tmp_path / "two" / "a" / "1.png")
        assert before != fingerprint("two")
        make(tmp_path / "one", "a/2.png")
        assert before != fingerprint("one")

    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("names.csv", "id,name,synonym\nn01,tench,Tinca tinca\nn02,goldfish\n"),
            ("names.json", '{"n01": ["tench", "Tinca tinca"], "n02": "goldfish"}'),
            ("names.tsv", "n01\ttench\tTinca tinca\nn02\tgoldfish\n"),
        ],
    )
    def test_names_from_a_file(self, tmp_path, file, text):
        make(tmp_path / "photos", "n01/1.png", "n02/1.png")
        (tmp_path / file).write_text(text)
        data = DATASETS.make(f"folder:{tmp_path / 'photos'}", {"names": str(tmp_path / file)})
        picked = select(data)
        assert picked.labels == ("tench", "goldfish")
        assert [sample.label for sample in picked] == ["tench", "goldfish"]
        assert picked[0].synonyms == {"tench": ("Tinca tinca",)}
        assert picked[0].labels == picked.labels

    def test_names_to_choose_from_that_no_image_has(self, tmp_path):
        make(tmp_path / "photos", "cat/1.png", "dog/1.png")
        (tmp_path / "classes.txt").write_text("cat\ndog\nfox, red\n")
        for name in (f"folder:{tmp_path / 'photos'}", f"csv:{tmp_path / 'data.csv'}"):
            (tmp_path / "data.csv").write_text("image,label\nphotos/cat/1.png,cat\nphotos/dog/1.png,dog\n")
            picked = select(DATASETS.make(name, {"labels": f"@{tmp_path / 'classes.txt'}"}))
            assert picked[0].labels == picked.labels == ("cat", "dog", "fox, red")
            assert picked[0].label == "cat"
        with pytest.raises(BadOption, match="lacks the class 'dog'"):
            DATASETS.make(f"folder:{tmp_path / 'photos'}", {"labels": "cat,fox"})

    def test_names_by_number_and_in_lines(self, tmp_path):
        (tmp_path / "names.txt").write_text("cat\ndog\n")
        (tmp_path / "data.csv").write_text("image,label\na.png,1\nb.png,0\n")
        make(tmp_path, "a.png", "b.png")
        data = DATASETS.make(f"csv:{tmp_path / 'data.csv'}?names={tmp_path / 'names.txt'}")
        assert labels_of(select(data)) == ["dog", "cat"]
        (tmp_path / "names.txt").write_text("cat\n")
        with pytest.raises(DataError, match="no name for 1 of 2 classes: 1"):
            DATASETS.make(f"csv:{tmp_path / 'data.csv'}?names={tmp_path / 'names.txt'}")

    def test_names_that_mean_nothing_are_reported(self, tmp_path):
        make(tmp_path, "n01440764/1.png", "n01443537/1.png")
        plain = select(DATASETS.make(f"folder:{tmp_path}"))
        assert "-D names=imagenet" in plain.data.notes[-1]
        data = DATASETS.make(f"folder:{tmp_path}", {"names": "imagenet"})
        assert data.labels == ("tench", "goldfish")
        numbers = select(DATASETS.make(f"folder:{make(tmp_path / 'n', '0/1.png', '1/1.png')}"))
        assert "the class names are numbers" in numbers.data.notes[-1]

    def test_imagenets_names_are_all_different(self):
        both = read_names("imagenet")
        names = {key: row for key, row in both.items() if not key.isdecimal()}
        # By number, in the order of the ids.
        assert [both[str(i)] for i in range(1000)] == [names[key] for key in sorted(names)]
        assert len(names) == len({first.casefold() for first, *_ in names.values()}) == 1000
        assert names["n02012849"] == ("crane (bird)",)

    def test_what_is_left_out_is_named(self, tmp_path):
        make(tmp_path, "cat/1.png", "dog/1.png")
        for path in ("cat/a.psd", "cat/b.mp4", "dog/c.mp4", "film/d.mp4"):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes(b"no picture")
        notes = DATASETS.make(f"folder:{tmp_path}").notes
        assert any("3 .mp4 (in 'cat', 'dog', 'film'); 1 .psd (in 'cat')" in note for note in notes)
        assert any("no class, since there is no image in it: 'film'" in note for note in notes)

    def test_an_empty_folder_is_named(self, tmp_path):
        make(tmp_path, "cat/1.png", "dog/1.png", "1.png")
        (tmp_path / "bird").mkdir()
        notes = DATASETS.make(f"folder:{tmp_path}").notes
        assert any("no class, since there is no image in it: 'bird'" in note for note in notes)
        assert any(note.endswith("1 image outside class folders left out") for note in notes)

    def test_classes_that_read_alike_are_one(self, tmp_path):
        make(tmp_path, "Cat/1.png", "cat/2.png", "caf\u00e9/1.png", "cafe\u0301/2.png", "dog/1.png")
        picked = select(DATASETS.make(f"folder:{tmp_path}"))
        assert len(picked.labels) == 3
        assert len(picked) == 5
        assert set(labels_of(picked)) == set(picked.labels)
        assert "'cat' is 'Cat'" in picked.data.notes[-1]

    def test_names_in_any_script(self, tmp_path):
        make(tmp_path, "猫/写真 1.png", "собака/ф.png", "café 'o'/🦊.png")
        data = DATASETS.make(f"folder:{tmp_path}")
        assert set(data.labels) == {"猫", "собака", "café 'o'"}

    def test_file_names_as_people_have_them(self, tmp_path):
        make(tmp_path, "a/Screenshot at 3.14\u202fPM.png", "b/👩\u200d🚀.png", "b/new\nline.png")
        assert len(DATASETS.make(f"folder:{tmp_path}")) == 3

    def test_a_folder_beside_the_splits_does_not_make_classes_of_them(self, tmp_path):
        make(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")
        (tmp_path / "annotations").mkdir()
        data = DATASETS.make(f"folder:{tmp_path}")
        assert data.labels == ("a", "b")
        assert "annotations next to the splits is skipped" in " ".join(data.notes)

    def test_a_pipe_is_no_image(self, tmp_path):
        import os

        make(tmp_path, "a/1.png", "b/1.png")
        os.mkfifo(tmp_path / "a" / "2.png")
        with pytest.raises(ImageError, match=r"a/2\.png: cannot be read"):
            select(DATASETS.make(f"folder:{tmp_path}")).fingerprint()

    @given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["C"]), min_size=1))
    def test_a_clean_name_is_clean_already(self, name):
        once = clean(name)
        assert once
        assert clean(once) == once or once[0].isdigit()


class TestChart:
    def test_the_same_for_everybody(self):
        one, two = (DATASETS.make("chart:shapes?n=30&seed=7") for _ in range(2))
        for i in (0, 29):
            a, b = (data.sample(i, data.labels, None).images[0] for data in (one, two))
            assert a.data == b.data
        other = DATASETS.make("chart:shapes?n=30&seed=8")
        assert other.sample(0, other.labels, None).images[0].data != a.data

    def test_every_round_holds_each_kind_once(self):
        data = DATASETS.make("chart:shapes?n=84")
        for start in (0, 28, 56):
            assert sorted(str(data.row(i).label) for i in range(start, start + 28)) == sorted(KINDS)

    def test_what_a_sample_says_is_what_was_drawn(self):
        data = DATASETS.make("chart:shapes?n=3&ask=multiple-choice")
        sample = data.sample(1, data.labels, None)
        assert sample.label in sample.choices
        assert len(set(sample.choices)) == 4
        assert sample.references == (sample.label,)
        captioned = DATASETS.make("chart:shapes?n=3&ask=caption").sample(1, KINDS, None)
        for word in (captioned.label, captioned.meta["color"], captioned.meta["size"]):
            assert word in captioned.references[0]

    def test_every_kind_can_be_told_from_every_other(self):
        """No two kinds draw the same picture, and none is empty."""
        pictures = {}
        for kind in KINDS:
            fig = figure("same/for/all", kind)
            pictures[kind] = np.asarray(draw(fig, 48), dtype=float)
        for kind, pixels in pictures.items():
            assert pixels.std() > 5, kind
            for other, others in pictures.items():
                assert kind == other or np.abs(pixels - others).mean() > 0.5, (kind, other)

    def test_tests_and_training_never_share_a_figure(self):
        from snellen.pico_recipe.curriculum import training_figures

        trained = {fig.seed for skewed in (False, True) for fig in training_figures(skewed, 0)}
        shown = {
            nth_figure(f"chart/{split}/{seed}", i).seed
            for split in ("test", "train")
            for seed in range(3)
            for i in range(560)
        }
        # 32-bit seeds collide by chance (about 3 of 36,000 x 3,360 pairs): never more than that.
        assert len(trained & shown) <= 3

    def test_caption(self):
        fig = nth_figure("k", 0)
        assert fig.kind in caption(fig)

    @pytest.mark.parametrize(
        ("name", "error", "message"),
        [
            ("chart:shape", UnknownName, "Did you mean 'shapes'"),
            ("chart:shapes?n=0", BadOption, "n=0"),
            ("chart:shapes?size=5", BadOption, "16 to 4096"),
            ("chart:shapes?ask=why", BadOption, "multiple-choice"),
        ],
    )
    def test_refusals(self, name, error, message):
        with pytest.raises(error, match=message):
            DATASETS.make(name)


class TestFilters:
    @pytest.fixture
    def data(self):
        return DATASETS.make("chart:shapes?n=140")

    def test_nothing(self, data):
        picked = select(data)
        assert len(picked) == 140
        assert picked.filters == {}

    def test_classes(self, data):
        picked = select(data, classes=("star", "key"))
        assert set(labels_of(picked)) == {"star", "key"} == set(picked.labels)
        assert all(set(sample.labels) == {"star", "key"} for sample in picked)
        with pytest.raises(BadOption, match="no class 'stars'. Did you mean 'star'"):
            select(data, classes=("stars",))
        with pytest.raises(DataError, match="at least two"):
            select(data, classes=("star",))

    def test_classes_with_commas_in_them(self, tmp_path):
        make(tmp_path, "cup, tea/1.png", "heart/1.png", "star/1.png")
        data = DATASETS.make(f"folder:{tmp_path}")
        assert select(data, classes=("cup, tea", "heart,star")).labels == data.labels
        assert select(data, classes="heart,star").labels == ("heart", "star")

    def test_two_samples_of_one_id_are_refused(self):
        class Twins(type(DATASETS.make("chart:shapes"))):  # type: ignore[misc]
            def row(self, index):
                return super().row(index)._replace(id="same")

        with pytest.raises(DataError, match="two samples have the id 'same'"):
            select(Twins(3, 0, 32, "test", "object")).fingerprint()

    def test_a_random_subset_of_classes_is_nested_and_seeded(self, data):
        few, more = (set(select(data, num_classes=n, seed=1).labels) for n in (5, 12))
        assert len(few) == 5
        assert few < more
        assert few == set(select(data, num_classes=5, seed=1).labels)
        assert few != set(select(data, num_classes=5, seed=2).labels)

    def test_the_background_is_always_in_a_subset(self, tmp_path):
        make(tmp_path, *(f"c{i}/1.png" for i in range(9)), "clutter/1.png")
        data = DATASETS.make(f"folder:{tmp_path}?background=clutter")
        for seed in range(5):
            picked = select(data, num_classes=3, seed=seed)
            assert "clutter" in picked.labels
            assert len(picked.labels) == 3
            assert picked.background == "clutter"
        assert select(data, classes=("c1", "c2")).background is None

    def test_per_class_limit_and_shuffle(self, data):
        assert Counter(labels_of(select(data, per_class=2))) == dict.fromkeys(KINDS, 2)
        plain, one, two = (
            [s.id for s in select(data, shuffle=shuffle, limit=50, seed=seed)]
            for shuffle, seed in ((False, 0), (True, 0), (True, 1))
        )
        assert len(plain) == len(one) == 50
        assert plain != one != two
        assert one == [s.id for s in select(data, shuffle=True, limit=50, seed=0)]

    @pytest.mark.parametrize("option", ["limit", "per_class", "num_classes"])
    def test_numbers_are_positive(self, data, option):
        with pytest.raises(BadOption, match="1 or more"):
            select(data, **dict[str, Any]({option: 0}))

    def test_the_fingerprint_knows_the_selection(self, data):
        prints = [
            select(data).fingerprint(),
            select(data, limit=10).fingerprint(),
            select(data, classes=("star", "key")).fingerprint(),
            select(data, shuffle=True).fingerprint(),
            select(DATASETS.make("chart:shapes?n=140&size=64")).fingerprint(),
        ]
        assert len(set(prints)) == len(prints)
        assert prints[0] == select(DATASETS.make("chart:shapes?n=140")).fingerprint()


def test_a_broken_image_is_named(tmp_path):
    make(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "0.jpg").write_bytes(b"not a readable image")
    data = DATASETS.make(f"folder:{tmp_path}")
    with pytest.raises(ImageError, match=r"a/0\.jpg: not a readable image"):
        _ = data.sample(0, data.labels, None).images[0].pixels
