"""What is taught: examples of samples and conversations, mixtures, and copies of tested images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import sample
from snellen.datasets.base import DATASETS, select
from snellen.datasets.shapes import KINDS, draw, figure
from snellen.errors import BadOption, DataError
from snellen.prompts import CAPTION, MULTIPLE_CHOICE, SHORT_ANSWER, fill
from snellen.storage.store import Store
from snellen.tuning.examples import SOME, WHOLE, examples
from snellen.tuning.leakage import leaks
from snellen.tuning.runner import TuningRunner
from snellen.tuning.sources import Source, Subset, TrainingSet, mixed, random_split, validation_split
from snellen.tuning.tuning import Tuning

pytestmark = pytest.mark.slow


class TestExamples:
    def test_a_class(self):
        open_, named = examples(sample(["cat", "dog"], "dog"), None, {})
        assert open_.answer == named.answer == "dog"
        assert "cat" not in open_.messages[0].text
        assert "{" in named.messages[0].text
        assert [image.sha256 for image in open_.images] == [image.sha256 for image in named.images]
        assert len(examples(sample(["cat", "dog"], "dog"), None, {}, train_format="open")) == 1
        assert examples(sample(["cat", "dog"]), None, {}) == []  # whose class nobody knows

    @given(st.integers(2, 120), st.integers(0, 50), st.data())
    def test_lists_of_names(self, count, seed, data):
        names = [f"n{i}" for i in range(count)]
        label = data.draw(st.sampled_from(names))
        confused = data.draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
        (one,) = examples(
            sample(names, label, id=f"s{seed}"), None, {}, train_format="names", confused=confused, seed=seed
        )
        text = one.messages[0].text
        offered = text[text.index("{") + 1 : text.index("}")].split(", ")
        assert len(set(offered)) == len(offered)
        assert label in offered
        assert set(offered) <= set(names)
        assert 2 <= len(offered) <= (count if count <= WHOLE else SOME)
        hard = [name for name in confused if name != label]
        if hard:  # of a list that has room for anything wrong, what is confused comes first
            assert set(offered) & set(hard)

    def test_other_tasks_are_taught_as_they_are_asked(self):
        letter = sample([], question="Which?", choices=("red", "blue"), answers=(1,))
        (one,) = examples(letter, "multiple-choice", {})
        assert one.answer == "B"
        assert one.messages[0].text == fill(MULTIPLE_CHOICE, question="Which?", options="A. red\nB. blue")
        told = sample([], question="What color?", references=("red", "scarlet"))
        (one,) = examples(told, "vqa", {})
        assert (one.messages[0].text, one.answer) == (fill(SHORT_ANSWER, question="What color?"), "red")
        (one,) = examples(told, "vqa", {"prompt": "{question}"})
        assert one.messages[0].text == "What color?"
        (one,) = examples(sample([], question="x", references=("A cat.",)), "caption", {})
        assert (one.messages[0].text, one.answer) == (CAPTION, "A cat.")
        assert examples(sample([], question="What?"), "vqa", {}) == []
        assert examples(sample([], question="?", choices=("a", "b", "c"), answers=(0, 1)), None, {}) == []

    def test_the_prompt_is_that_of_the_examination(self):
        """What is taught of a class is asked in the very words of the protocols."""
        one = select(DATASETS.make("chart:shapes?ask=color"))[0]
        data = DATASETS.make("chart:shapes?ask=color")
        from snellen.protocols.base import PROTOCOLS

        protocol = PROTOCOLS.make("vqa", data.protocol_options)
        asked = next(protocol.examine(one))[0].messages[0].text
        (taught,) = examples(one, data.protocol, data.protocol_options)
        assert taught.messages[0].text == asked


class TestConversations:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("a.png", "b.png"):
            draw(figure(name, "star"), 48).save(tmp_path / name)
        return tmp_path

    def load(self, folder: Path, rows, name: str = "c.json", lines: bool = False):
        text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
        (folder / name).write_text(text)
        return DATASETS.make(f"conversations:{folder / name}")

    def test_both_layouts(self, folder):
        llava = {
            "id": "1",
            "image": "a.png",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat?"},
                {"from": "gpt", "value": "A star."},
                {"from": "human", "value": "Sure?"},
                {"from": "gpt", "value": "Yes."},
            ],
        }
        chat = {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Compare"}, {"type": "image"}]},
                {"role": "assistant", "content": "Alike."},
            ],
            "images": ["a.png"],
        }
        one = self.load(folder, [llava]).sample(0, (), None)
        assert [turn.role for turn in one.turns] == ["user", "assistant"] * 2
        assert len(one.images) == 1
        assert one.question == "What?"
        first, second = examples(one, "instruct", {})
        assert (first.answer, second.answer) == ("A star.", "Yes.")
        assert len(second.messages) == 3
        assert len(second.images) == 1
        two = self.load(folder, [chat], "d.jsonl", lines=True).sample(0, (), None)
        assert [type(part).__name__ for part in two.turns[1].content] == ["str", "Image"]
        plain = {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}
        assert self.load(folder, [plain]).sample(0, (), None).images == ()
        unplaced = {**plain, "images": ["a.png", "b.png"]}
        assert len(self.load(folder, [unplaced]).sample(0, (), None).turns[0].images) == 2

    def test_layouts_of_the_field(self, folder):
        """TRL's prompt and completion, texts or messages; LLaVA's rows that begin with an answer."""
        ask, say = {"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A star."}
        for prompt, completion in (("<image>What?", "A star."), ([ask], [say])):
            row = {"prompt": prompt, "completion": completion, "images": ["a.png"]}
            one = self.load(folder, [row]).sample(0, (), None)
            assert [turn.role for turn in one.turns] == ["user", "assistant"]
            assert (one.turns[0].text, one.references, len(one.images)) == ("What?", ("A star.",), 1)
        late = {
            "image": "",
            "conversations": [
                {"from": "gpt", "value": "Hello."},
                {"from": "human", "value": "2+2?"},
                {"from": "gpt", "value": "4"},
            ],
        }
        one = self.load(folder, [late]).sample(0, (), None)
        assert ([turn.text for turn in one.turns], one.images) == (["2+2?", "4"], ())

    def test_parquet_of_the_hub(self, folder):
        """Messages of parts and images of bytes, as llava-instruct-mix-vsft has them."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        part = {"index": None, "text": None, "type": "text"}
        messages = [
            {"role": "user", "content": [{**part, "text": "What?\n"}, {**part, "index": 0, "type": "image"}]},
            {"role": "assistant", "content": [{**part, "text": "A star."}]},
        ]
        image = {"bytes": (folder / "a.png").read_bytes(), "path": None}
        table = pa.Table.from_pylist([{"messages": messages, "images": [image]}] * 3)
        pq.write_table(table, folder / "x.parquet")
        data = DATASETS.make(f"conversations:{folder / 'x.parquet'}")
        assert len(data) == 3
        one = data.sample(2, (), None)
        assert one.references == ("A star.",)
        assert one.images[0].size == (48, 48)
        assert len(TrainingSet([Source(selection=select(data))])) == 3

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ({"text": "x"}, "neither messages nor conversations"),
            ({"messages": [{"role": "user", "content": "x"}]}, "must alternate"),
            ({"messages": [{"role": "ghost", "content": "x"}]}, "a role and a content"),
            ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "a text or an image"),
            ({"messages": [{"role": "user", "content": "<image>"}]}, "more image positions"),
            (
                {"messages": [{"role": "assistant", "content": "x"}], "images": ["a.png"]},
                "there is no question",
            ),
            ({"messages": []}, "neither messages"),
        ],
    )
    def test_what_is_of_another_layout(self, folder, row, said):
        with pytest.raises(DataError, match=said):
            self.load(folder, [row])

    def test_no_path_leads_out(self, folder):
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
        data = self.load(folder, [{"messages": turns, "images": ["../../x.png"]}])
        with pytest.raises(DataError, match="leads out"):
            _ = data.sample(0, (), None).images[0].pixels

    def test_not_json(self, folder):
        (folder / "x.json").write_text("[{")
        with pytest.raises(DataError, match="not JSON"):
            DATASETS.make(f"conversations:{folder / 'x.json'}")


class TestSources:
    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
    def test_parted(self, photos, share):
        data = DATASETS.make(f"folder:{photos}")
        learned, tested = random_split(data, share, 0)
        ids = [{part.row(i).id for i in range(len(part))} for part in (learned, tested)]
        assert not ids[0] & ids[1]
        assert len(ids[0] | ids[1]) == len(data)
        for part in (learned, tested):  # every class on both sides
            assert {part.row(i).label for i in range(len(part))} == set(data.labels)
        again = random_split(data, share, 0)[1]
        assert [again.row(i) for i in range(len(again))] == [tested.row(i) for i in range(len(tested))]
        other = random_split(data, share, 1)[1]
        assert ids[1] != {other.row(i).id for i in range(len(other))} or share == 0.9

    def test_questions_about_an_image_stay_together(self, photos, tmp_path):
        rows = [
            {"image": str(path), "question": f"{q}?", "answer": "yes"}
            for path in sorted(photos.rglob("*.png"))
            for q in "abc"
        ]
        (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
        data = DATASETS.make(
            f"jsonl:{tmp_path / 'x.jsonl'}",
            {"question": "question", "reference": "answer", "allow_outside": True},
        )
        learned, tested = random_split(data, 0.4, 0)
        seen = [
            {part.sample(i, (), None).images[0].sha256 for i in range(len(part))}
            for part in (learned, tested)
        ]
        assert not seen[0] & seen[1]
        assert len(tested) == 6

    def test_a_mixture_takes_the_training_split(self, tmp_path, photos):
        assert mixed("chart:shapes@0.5", "both", 0).selection.data.split == "train"  # type: ignore[attr-defined]
        for split in ("train", "test"):
            shutil.copytree(photos, tmp_path / split)
        found = mixed(f"folder:{tmp_path}", "both", 0).selection
        assert str(found.data.root).endswith("train")  # type: ignore[attr-defined]

    def test_copies_stay_together(self, tmp_path):
        for kind in ("star", "ring"):
            (tmp_path / kind).mkdir()
            for i in range(6):
                draw(figure(f"{kind}{i // 2}", kind), 48).save(tmp_path / kind / f"{i}.png")
        learned, tested = random_split(DATASETS.make(f"folder:{tmp_path}"), 0.4, 3)
        digests = [{part.digest(i) for i in range(len(part))} for part in (learned, tested)]
        assert not digests[0] & digests[1]

    def test_one_image_cannot_be_parted(self, tmp_path):
        for kind in ("star", "ring"):
            (tmp_path / kind).mkdir()
            draw(figure(kind, kind), 48).save(tmp_path / kind / "0.png")
        with pytest.raises(DataError, match="single image"):
            random_split(DATASETS.make(f"folder:{tmp_path}"), 0.5, 0)
        with pytest.raises(BadOption, match="between 0 and 1"):
            random_split(DATASETS.make(f"folder:{tmp_path}"), 1.0, 0)

    def test_a_mixture_by_weight(self):
        first = Source(selection=select(DATASETS.make("chart:shapes?n=56")))
        half = mixed("chart:shapes?ask=color&n=10@0.5", "both", 0)
        assert half.weight == 0.5
        lessons = TrainingSet([first, half])
        assert lessons.counts == [112, 56]  # of ten, several times
        assert {one.answer for one in (lessons[i] for i in range(112, 168))} <= set(
            "red orange yellow green blue purple black brown white gray pink cyan".split()
        )
        with pytest.raises(BadOption, match="weight"):
            mixed("chart:shapes@0", "both", 0)

    def test_rare_classes_come_as_often(self):
        data = DATASETS.make("chart:shapes?n=280")
        many = [i for i in range(280) if data.row(i).label != "star"]
        few = [i for i in range(280) if data.row(i).label == "star"][:2]
        source = Source(selection=select(Subset(data, [*few, *many], "x")), train_format="open")
        assert TrainingSet([source]).classes()["star"] == 2
        counted = TrainingSet([source], rare=True).classes()
        assert counted["star"] == counted["ring"] == 10

    def test_hard_ones_come_three_times(self):
        source = Source(
            selection=select(DATASETS.make("chart:shapes?n=28")), train_format="open", wrong=frozenset({3, 5})
        )
        lessons = TrainingSet([source])
        assert len(lessons) == 28 + 4

    def test_what_is_kept_apart(self):
        source = Source(selection=select(DATASETS.make("chart:shapes?n=560")))
        kept = validation_split(source, 0)
        assert len(kept) == 56
        counted = [source.label(i) for i in kept]
        assert all(counted.count(name) == 2 for name in KINDS)
        assert not validation_split(
            Source(selection=select(DATASETS.make("chart:shapes?n=84"))), 0
        )  # too few to tell anything
        taught = TrainingSet([source], without=kept)
        assert len(taught) == 2 * (560 - 56)

    def test_nothing_to_learn(self, tmp_path):
        (tmp_path / "x.jsonl").write_text(json.dumps({"image": "a.png", "question": "Why?"}) + "\n")
        with pytest.raises(DataError, match="nothing to train on"):
            TrainingSet(
                [Source(selection=select(DATASETS.make(f"jsonl:{tmp_path / 'x.jsonl'}?question=question")))]
            )


class TestLeaks:
    @pytest.fixture
    def both(self, tmp_path: Path) -> tuple[Path, Path]:
        folders = tmp_path / "learned", tmp_path / "tested"
        for folder, key in zip(folders, "lt", strict=True):
            for kind in ("star", "ring"):
                (folder / kind).mkdir(parents=True)
                for i in range(3):
                    noise = np.random.default_rng(abs(hash((key, kind, i))) % 2**32)
                    pixels = noise.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                    from PIL import Image

                    Image.fromarray(pixels).resize((64, 64), 0).save(folder / kind / f"{key}{i}.png")
        return folders

    def look(self, both):
        train, tested = ([select(DATASETS.make(f"folder:{folder}"))] for folder in both)
        return leaks(train, tested)

    def test_of_every_sort(self, both):
        from PIL import Image

        learned, tested = both
        assert self.look(both).identical == []
        assert self.look(both).near == []
        shutil.copy(tested / "star" / "t0.png", learned / "ring" / "copy.png")
        with Image.open(tested / "star" / "t1.png") as one:
            one.save(learned / "star" / "again.bmp")  # other bytes, the same pixels
        with Image.open(tested / "ring" / "t2.png") as one:
            one.resize((80, 80)).save(learned / "ring" / "near.jpg", quality=70)
        found = self.look(both)
        assert set(found.identical) == {("ring/copy.png", "star/t0.png"), ("star/again.bmp", "star/t1.png")}
        assert [row[:2] for row in found.near] == [("ring/near.jpg", "ring/t2.png")]
        assert len(found.places[0]) == 2

    def test_they_are_refused_or_dropped(self, both, tmp_path):
        learned, tested = both
        shutil.copy(tested / "star" / "t0.png", learned / "star" / "copy.png")
        common: dict[str, Any] = {
            "model": "pico:llava",
            "data": f"folder:{tested}",
            "train": f"folder:{learned}",
        }
        store = Store(tmp_path / "ws")
        with pytest.raises(DataError, match="--leaks drop"):
            Tuning(**common, out=tmp_path / "out", workspace=store).run()
        assert not (tmp_path / "out").exists()
        dropped = Tuning(**common, out=tmp_path / "out", workspace=store, leaks="drop")
        leaked = TuningRunner(dropped.plan).find_leaks()
        assert [dropped.plan.train_set.id(place) for place in leaked] == ["star/copy.png"]
        assert "dropped" in dropped.plan.notes[-1]

    def test_the_same_split_is_refused(self, photos, tmp_path):
        tuning = Tuning(
            model="pico:llava",
            data=f"folder:{photos}",
            out=tmp_path / "out",
            train=f"folder:{photos}",
            workspace=tmp_path,
        )
        with pytest.raises(DataError, match="20 in total"):
            tuning.run()
