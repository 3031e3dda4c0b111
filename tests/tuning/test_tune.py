"""Fine-tuning: what is taught, by whom it is seen, that it helps, and that nothing is lost on the way."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from typer.testing import CliRunner

import tiny
from helpers import TESTS, made, picture, sample, until
from snellen.api import run
from snellen.cli import app, main
from snellen.datasets.base import DATASETS, select
from snellen.datasets.shapes import KINDS, draw, figure
from snellen.errors import BadOption, DataError, ModelError, Stopped, Unsupported, UsageError
from snellen.models.base import MODELS
from snellen.models.huggingface.chat import ChatRenderer
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.prompts import CAPTION, MULTIPLE_CHOICE, SHORT_ANSWER, fill
from snellen.runs.filters import Filters
from snellen.storage.store import Store
from snellen.tuning.collator import Collator, rows_of
from snellen.tuning.examples import SOME, WHOLE, examples
from snellen.tuning.leakage import leaks
from snellen.tuning.recipes import RECIPES, adapters, freeze, part_of
from snellen.tuning.runner import TuningRunner
from snellen.tuning.sources import Source, Subset, TrainingSet, mixed, random_split, validation_split
from snellen.tuning.trainer import last_checkpoint
from snellen.tuning.trainer_settings import read_settings
from snellen.tuning.tuning import MANIFEST, Tuning
from snellen.types import Kind, Request

pytestmark = pytest.mark.slow

runner = CliRunner()
#: Architectures of each sort of projector and placing of images.
FAMILIES = ("llava", "qwen2_vl", "qwen3_vl", "idefics3", "smolvlm", "internvl", "gemma3", "mllama")


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


class TestRecipes:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_parts_of_real_architectures(self, family):
        model, _ = tiny.ARCHITECTURES[family]()
        parts = {part_of(path) for path, _ in model.named_parameters()}
        assert parts == {"vision tower", "projector", "decoder"}
        total = sum(p.numel() for p in model.parameters())
        counted = {part: freeze(model, {part}) for part in parts}
        assert sum(counted.values()) == total
        assert all(counted.values())
        freeze(model, {"projector"})
        assert all(p.requires_grad == (part_of(n) == "projector") for n, p in model.named_parameters())

    @pytest.mark.parametrize("family", FAMILIES)
    def test_adapters_lie_in_the_decoder(self, family):
        from peft import get_peft_model

        model, _ = tiny.ARCHITECTURES[family]()
        made = get_peft_model(model, adapters(model, {"r": 4}))
        names = [name for name, p in made.named_parameters() if p.requires_grad]
        assert names
        assert {part_of(name) for name in names} == {"decoder"}
        assert not any("lm_head" in name for name in names)

    def test_no_projector(self):
        model, _ = tiny.ARCHITECTURES["llava"]()
        with pytest.raises(Unsupported, match="no projector"):
            freeze(model.model.language_model, {"projector"})

    def test_options(self, tmp_path):
        assert read_settings({"learning_rate": "1e-4", "max_steps": "5"}) == {
            "learning_rate": 1e-4,
            "max_steps": 5,
        }
        file = tmp_path / "c.yaml"
        file.write_text("max_steps: 7\nlearning_rate: 1e-3\n")
        assert read_settings({"max_steps": "9"}, file) == {"max_steps": 9, "learning_rate": 1e-3}
        with pytest.raises(BadOption, match="Did you mean 'learning_rate'"):
            read_settings({"learning_rat": "1"})
        with pytest.raises(BadOption, match="-o"):
            read_settings({"output_dir": "x"})
        with pytest.raises(BadOption, match="lora"):
            Tuning(
                model="pico:llava",
                data="chart:shapes",
                out=tmp_path / "o",
                recipe="loraa",
                workspace=tmp_path,
            )
        model, _ = tiny.ARCHITECTURES["llava"]()
        with pytest.raises(BadOption, match="LoRA"):
            adapters(model, {"rank": 4})


#: Those that are taught for real; the others are rendered and random_split.
TAUGHT = ("llava", "qwen2_vl", "idefics3", "smolvlm", "mllama")


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory) -> Path:
    return tiny.save(request.param, tmp_path_factory.mktemp(request.param), scale=1.0)


class TestTeaching:
    def test_the_loss_is_on_the_answer_alone(self, checkpoint):
        """Prompts are token by token those of examinations; the labels are the answer and its end."""
        model = made(VisionLanguageModel, f"hf:{checkpoint}?prefix=off")
        assert isinstance(model, VisionLanguageModel)
        model.load()
        source = Source(selection=select(DATASETS.make("chart:shapes?n=3")), train_format="open")
        lessons = TrainingSet([source])
        collator = Collator(model._processor)
        rows = rows_of(lessons, collator)
        batch = collator([rows[i] for i in range(3)])
        tokenizer = model._tokenizer
        for i in range(3):
            example = lessons[i]
            labels, ids = batch["labels"][i], batch["input_ids"][i]
            taught = labels[labels != -100]
            assert tokenizer.decode(taught, skip_special_tokens=True).strip() == example.answer
            assert int(taught[-1]) == tokenizer.eos_token_id
            asked = model.process(model.prompt(example.messages), example.images)["input_ids"][0]
            first = int((labels != -100).nonzero()[0])
            assert ids[:first].tolist() == asked.tolist()
            # And the answer's tokens are those that its likelihood is made of.
            request = Request(example.messages, Kind.SCORE, continuations=(example.answer,))
            (tail,), _ = model.tails(request, model.prompt(example.messages))
            assert taught[: len(tail)].tolist() == tail
        model.close()

    @pytest.mark.parametrize("first", ["prepend", "metaspace"])
    def test_tokenizers_that_begin_a_text_with_a_mark(self, first, tmp_path):
        """As Llama's do: an answer that is read apart would begin with a mark too many."""
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
        from transformers import PreTrainedTokenizerFast

        inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
        if first == "prepend":
            inner.normalizer = normalizers.Sequence(
                [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
            )
        else:
            inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        inner.decoder = decoders.Metaspace()
        special = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
        trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False)
        inner.train_from_iterator(["USER: What? a dog ASSISTANT: dog dog dog"] * 30, trainer)
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=inner,
            pad_token="<pad>",
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
            chat_template="{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} "
            "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
        )

        class Processor:
            def __call__(self, text, images=None, **how):
                return tokenizer(text, **how)

        Processor.tokenizer = tokenizer  # type: ignore[attr-defined]
        Processor.chat_template = None  # type: ignore[attr-defined]
        Processor.image_token = "<image>"  # type: ignore[attr-defined]
        collator = Collator(Processor())
        one = examples(sample(["a", "dog"], "dog"), None, {}, train_format="open")[0]
        row = {**collator.render(one), "images": []}
        labels = collator([row])["labels"][0]
        taught = labels[labels != -100].tolist()
        whole = tokenizer(row["prompt"] + " dog").input_ids
        bare = tokenizer(row["prompt"]).input_ids
        assert taught == [*whole[len(bare) :], tokenizer.eos_token_id]
        assert taught[:-1] == [tokenizer.convert_tokens_to_ids("\u2581dog")]

    @pytest.mark.parametrize("family", TAUGHT)
    def test_rows_without_an_image_among_others(self, family, tmp_path):
        """They are learned in one batch with the others, and the loss falls."""
        checkpoint = tiny.save(family, tmp_path / "model", scale=1.0)
        rows = []
        for i in range(6):
            draw(figure(f"{i}", "star"), 48).save(tmp_path / f"{i}.png")
            turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "dog"}]
            rows.append({"messages": turns, **({"images": [f"{i}.png"]} if i % 3 else {})})
        (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
        photos = tmp_path / "photos"
        for kind in ("cat", "dog"):
            (photos / kind).mkdir(parents=True)
            for i in range(4):
                draw(figure(f"{kind}/{i}", "ring"), 48).save(photos / kind / f"{i}.png")
        found = Tuning(
            model=f"hf:{checkpoint}",
            data=f"folder:{photos}",
            out=tmp_path / "out",
            train=f"conversations:{tmp_path / 'c.jsonl'}",
            settings={"max_steps": 12, "per_device_train_batch_size": 3, "learning_rate": 1e-2},
            workspace=tmp_path / "ws",
        ).run()
        held = yaml.safe_load((tmp_path / "out" / MANIFEST).read_text())
        losses = [row["loss"] for row in held["log"]["lora"] if "loss" in row]
        assert losses[-1] < 0.9 * losses[0]
        assert found.results[0].after >= 0
        assert [source["examples"] for source in found.facts["examples"]] == [6]

    def test_what_cannot_be_taught(self, tmp_path):
        folder = tiny.save("blip_2", tmp_path / "m")
        with pytest.raises(Unsupported, match="cannot be fine-tuned"):
            Tuning(model=f"hf:{folder}", data="chart:shapes", out=tmp_path / "o", workspace=tmp_path)
        with pytest.raises(Unsupported, match="by their provider"):
            Tuning(model="openai:gpt-4o", data="chart:shapes", out=tmp_path / "o", workspace=tmp_path)


def short(out: Path, workspace: Path, **more) -> Tuning:
    """A tuning of seconds."""
    more = {"settings": {"max_steps": 6, "save_steps": 2}, "train_limit": 112, **more}
    if more.get("recipe") != "head" and more.get("model") != "pico:clip":  # these answer no questions
        more = {"retention_data": ("chart:shapes?ask=color&n=28",), **more}
    if more["settings"]:
        more["settings"] = {"per_device_train_batch_size": 8, "eval_steps": 6, **more["settings"]}
    return Tuning(
        model=more.pop("model", "pico:llava-skewed"),
        data="chart:shapes?n=28",
        out=out,
        workspace=workspace,
        **more,
    )


@pytest.fixture(scope="module")
def ws(tmp_path_factory) -> Path:
    """A workspace that knows what the models were before."""
    return tmp_path_factory.mktemp("ws")


def test_classes_choose_what_is_trained_and_tested(tmp_path, ws):
    plan = short(tmp_path / "out", ws, filters=Filters(classes=("star,ring", "cup"))).plan
    assert set(plan.train_set.labels) == set(plan.test.labels) == {"star", "ring", "cup"}
    rows = [plan.train_set.data.row(index) for index in plan.train_set.indices]
    assert {row.label for row in rows} == {"star", "ring", "cup"}


def half(folder: Path) -> Path:
    """The built-in skewed model in half precision."""
    from snellen.models.pico import WEIGHTS

    out = folder / "half"
    if not out.exists():
        from safetensors.torch import save_file

        shutil.copytree(WEIGHTS / "llava-skewed", out)
        weights = load_file(out / "model.safetensors")
        cut = {key: value.to(torch.bfloat16) for key, value in weights.items()}
        save_file(cut, out / "model.safetensors", metadata={"format": "pt"})
    return out


class TestTuning:
    def test_it_mends_rare_classes(self, tmp_path, ws):
        """In small what docs/tuning.md reports: a gain that no chance makes, and colors are not forgotten."""
        found = Tuning(
            model="pico:llava-skewed",
            data="chart:shapes?n=196",
            out=tmp_path / "out",
            train_limit=560,
            settings={"max_steps": 40, "eval_steps": 40, "per_device_train_batch_size": 16},
            workspace=ws,
        ).run()
        closed, open_, color = found.results
        assert closed.verdict == open_.verdict == "better"
        assert closed.paired.difference.low > 0
        assert color.verdict == "no difference shown"
        assert color.before > 0.9
        assert color.after > 0.9
        assert found.weakest.paired.difference.low > 0
        # The figures are those of the runs.
        store = Store(ws)
        from snellen.runs.run import Run

        one, other = (Run(store, id) for id in (closed.first, closed.second))
        assert other.metrics["accuracy"].value == closed.after
        assert (one.outcomes["id"] == other.outcomes["id"]).all()
        right = [(r.outcomes["prediction"] == r.outcomes["label"]).mean() for r in (one, other)]
        assert closed.paired.difference.value == pytest.approx(right[1] - right[0])
        held = yaml.safe_load((tmp_path / "out" / MANIFEST).read_text())
        accuracies = [row for row in held["log"]["lora"] if "held_out_accuracy" in row]
        assert accuracies[0]["step"] == 0
        assert accuracies[-1]["held_out_accuracy"] > accuracies[0]["held_out_accuracy"]
        assert held["finished"]
        assert (tmp_path / "out" / "curves.png").stat().st_size > 10_000
        assert not (tmp_path / "out" / "checkpoints").exists()

    @pytest.mark.parametrize(
        "recipe",
        [
            "lora",
            "full",
            pytest.param("projector", marks=pytest.mark.exhaustive),
            pytest.param("two-stage", marks=pytest.mark.exhaustive),
        ],
    )
    def test_only_what_a_recipe_names_changes(self, tmp_path, ws, recipe):
        from snellen.models.pico import WEIGHTS

        out = tmp_path / "out"
        found = short(out, ws, recipe=recipe, export=["vllm", "ollama"]).run()
        weights = "merged" if recipe == "lora" else "."
        assert (out / "Modelfile").read_text().startswith(f"FROM {weights.replace('merged', './merged')}\n")
        assert [deployment.format for deployment in found.deployments] == ["vllm", "ollama"]
        assert "## Serve (vllm)" in (out / "README.md").read_text()
        old = load_file(WEIGHTS / "llava-skewed" / "model.safetensors")
        saved = load_file((out / "merged" if recipe == "lora" else out) / "model.safetensors")
        # Under the names that servers read.
        assert any(name.startswith("vision_tower.vision_model.") for name in saved)
        new = {name.replace("vision_tower.vision_model.", "vision_tower."): x for name, x in saved.items()}
        changed = {part_of(key) for key in old if not torch.equal(old[key].float(), new[key].float())}
        wanted = {"lora": {"decoder"}, "projector": {"projector"}, "full": {"projector", "decoder"}}
        wanted["full"] |= {"vision tower"}
        assert changed == wanted.get(recipe, {"projector", "decoder"})
        assert 0 < found.facts["trained"] <= found.facts["parameters"]
        held = yaml.safe_load((out / MANIFEST).read_text())
        assert list(held["log"]) == [stage.name for stage in RECIPES[recipe].stages]
        if recipe == "lora":  # merged or not, it answers the same
            runs = [
                run(model=f"hf:{folder}", data="chart:shapes?n=28", workspace=ws)
                for folder in (out, out / "merged")
            ]
            assert runs[0].outcomes["prediction"].tolist() == runs[1].outcomes["prediction"].tolist()

    def test_a_head(self, tmp_path, ws):
        out = tmp_path / "out"
        found = short(out, ws, recipe="head", train_limit=336, settings={}).run()
        assert found.model == f"head:{out}"
        assert found.results[0].after > 0.6
        assert len(found.results) == 1
        # The scores are those of scikit-learn's own model on the same features.
        from snellen.models.huggingface.features import features
        from snellen.prompts import OPEN_WORLD
        from snellen.types import Kind, Request, ask

        head = MODELS.make(found.model)
        one = select(DATASETS.make("chart:shapes?n=28"))[5]
        request = Request(ask(one.images, "?").messages, Kind.SCORE, continuations=KINDS)
        head.load()
        scores = [s.value for s in head.answer([request])[0].scores]  # type: ignore[attr-defined]
        assert np.logaddexp.reduce(scores) == pytest.approx(0, abs=1e-5)
        held = load_file(out / "head.safetensors")
        seen = features(head.base, ask(one.images, OPEN_WORLD[0]))  # type: ignore[attr-defined]
        last = next(v for k, v in seen.items() if k.endswith("last token"))
        logits = held["weight"] @ ((last - held["mean"]) / held["scale"]) + held["bias"]
        names = json.loads((out / "head.json").read_text())["labels"]
        expected = torch.log_softmax(logits.double(), 0)
        assert scores == pytest.approx([float(expected[names.index(k)]) for k in KINDS], abs=1e-4)
        with pytest.raises(ModelError, match="no head found"):
            MODELS.make(f"head:{tmp_path}")
        # Where all that it needs is known already, nothing else comes out.
        again = short(tmp_path / "again", ws, recipe="head", train_limit=336, settings={}).run()
        assert {**again.facts, "effective": None} == {**found.facts, "effective": None}
        assert all(
            torch.equal(v, held[k]) for k, v in load_file(tmp_path / "again" / "head.safetensors").items()
        )

    def test_a_dual_encoder(self, tmp_path, ws):
        out = tmp_path / "out"
        found = short(out, ws, model="pico:clip").run()
        assert found.model == f"clip:{out}"
        assert found.results[0].task.endswith("rank")
        held = yaml.safe_load((out / MANIFEST).read_text())
        assert any("held_out_accuracy" in row for row in held["log"]["full"]) == bool(held["validation"])
        with pytest.raises(BadOption, match="dual encoder"):
            short(tmp_path / "o", ws, model="pico:clip", recipe="head", settings={})

    def test_rare_and_hard_ones_come_more_often(self, tmp_path, ws):
        tuning = short(tmp_path / "out", ws, oversample=["hard", "rare"])
        found = tuning.run()
        source = tuning.plan.sources[0]
        assert source.wrong
        assert all(name in KINDS for names in source.confused.values() for name in names)
        assert found.facts["examples"][0]["examples"] > 2 * (112 - found.facts["validation"])

    @pytest.mark.exhaustive
    def test_several_seeds(self, tmp_path, ws):
        """The same split and settings, other seeds: the first is the result, the spread is that of all."""
        found = short(tmp_path / "out", ws, seeds=2, settings={"max_steps": 3, "eval_steps": 3}).run()
        assert (tmp_path / "out-seed-1" / MANIFEST).exists()
        held = yaml.safe_load((tmp_path / "out-seed-1" / MANIFEST).read_text())
        assert held["seed"] == 1
        for place, spread in enumerate(found.seeds):
            assert spread.task == found.results[place].task
            assert spread.scores == (found.results[place].after, held["results"][place]["after"])
        assert "over 2 seeds" in str(found.seeds[0])
        weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("out", "out-seed-1")]
        assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        with pytest.raises(BadOption, match="--seeds 0"):
            short(tmp_path / "o", ws, seeds=0)

    def test_done_twice_it_is_done_once(self, tmp_path, ws):
        out = tmp_path / "out"
        first = short(out, ws).run()
        weights = (out / "adapter_model.safetensors").stat().st_mtime_ns
        again = short(out, ws).run()
        assert (out / "adapter_model.safetensors").stat().st_mtime_ns == weights
        assert again.results == first.results
        with pytest.raises(UsageError, match="another fine-tuning"):
            short(out, ws, seed=1).run()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "x").write_text("")
        with pytest.raises(UsageError, match="not empty"):
            short(tmp_path / "full", ws).run()

    def test_a_folder_in_which_nothing_was_learned_is_taken_over(self, tmp_path, ws, monkeypatch):
        from snellen.tuning import sft, trainer

        def broken(*_, **__):
            raise RuntimeError("out of luck")

        real = trainer.run_stage
        monkeypatch.setattr(sft, "run_stage", broken)
        with pytest.raises(Unsupported, match="out of luck"):
            short(tmp_path / "out", ws).run()
        monkeypatch.setattr(sft, "run_stage", real)
        assert short(tmp_path / "out", ws, seed=1).run()

    @pytest.mark.exhaustive
    def test_in_half_precision(self, tmp_path, ws):
        """As on a GPU: what learns does so in full precision, what is asked meanwhile is no error, and
        what is
        kept is of the precision that it came in.
        """
        for recipe, settings in (("projector", {"bf16": True}),):
            out = tmp_path / recipe
            found = short(
                out,
                ws,
                recipe=recipe,
                model=f"hf:{half(tmp_path)}?dtype=bfloat16",
                settings={"max_steps": 2, **settings},
                train_limit=168,
            ).run()
            held = yaml.safe_load((out / MANIFEST).read_text())
            shares = [row["held_out_accuracy"] for row in held["log"][recipe] if "held_out_accuracy" in row]
            assert min(shares) > 0.3
            assert {value.dtype for value in load_file(out / "model.safetensors").values()} == {
                torch.bfloat16
            }
            assert found.results[0].after > 0.3

    def test_it_changes_nothing_of_the_model_itself(self, tmp_path, ws):
        before = MODELS.make("pico:llava-skewed").identity()
        short(tmp_path / "out", ws, recipe="full").run()
        assert MODELS.make("pico:llava-skewed").identity() == before

    def test_the_card(self, tmp_path, ws):
        from huggingface_hub import ModelCard

        out = tmp_path / "out"
        found = short(out, ws).run()
        card = ModelCard.load(out / "README.md")
        results = {one.metric_name: one.metric_value for one in card.data.eval_results}
        assert results["accuracy, closed-set"] == round(100 * found.results[0].after, 2)
        assert card.data.library_name == "peft"
        assert found.results[0].cells[2] in card.text
        assert str(tmp_path) not in (out / "adapter_config.json").read_text()
        assert not (out / ".eval_results").exists()

    def test_results_for_the_hub(self, tmp_path, ws):
        from dataclasses import replace

        from huggingface_hub import parse_eval_result_entries

        from snellen.tuning.card import write_card

        found = short(tmp_path / "out", ws).run()
        result = replace(found.results[0], task="hub:org/data?split=test, closed-set")
        source = {"data": "x", "samples": 2, "examples": 3}
        options = {"settings": {}, "lora": {}, "train_parts": [], "augment": [], "seed": 0, "split_seed": 0}
        facts = {"trained": 1, "parameters": 2, "examples": [source], "options": options}
        write_card(
            tmp_path,
            base="org/base",
            on_hub="org/base",
            complete=True,
            recipe=RECIPES["lora"],
            results=[result],
            weakest=None,
            facts=facts,
            notes=[],
            model="hf:x",
        )
        (entry,) = parse_eval_result_entries(
            yaml.safe_load((tmp_path / ".eval_results" / "org_data.yaml").read_text())
        )
        assert (entry.dataset_id, entry.value) == ("org/data", round(100 * result.after, 2))

    @pytest.mark.exhaustive
    def test_an_adapter_of_another_base(self, tmp_path, ws):
        out = tmp_path / "out"
        short(out, ws).run()
        other = MODELS.make(f"hf:{tiny.save('llava', tmp_path / 'm')}?adapter={out}")
        with pytest.raises(ModelError, match="different weights"):
            other.load()
        config = json.loads((out / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(tmp_path / "m")
        (out / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match="different weights"):
            MODELS.make(f"hf:{out}").load()
        del config["base_model_name_or_path"]
        (out / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match="names no base"):
            MODELS.make(f"hf:{out}")
        with pytest.raises(Unsupported, match="Merge it first"):
            Tuning(
                model=f"hf:{tmp_path / 'm'}?adapter={out}",
                data="chart:shapes",
                out=tmp_path / "o",
                workspace=tmp_path,
            )

    def test_an_adapter_is_found_wherever_it_lies(self, tmp_path, ws, monkeypatch):
        """Its base by a path that holds from everywhere; named both, the base may lie elsewhere."""
        from snellen.models.pico import WEIGHTS

        shutil.copytree(WEIGHTS / "llava-skewed", tmp_path / "base")
        monkeypatch.chdir(tmp_path)
        short(Path("out"), ws, model="hf:base").run()
        card = (tmp_path / "out" / "README.md").read_text()
        assert "base_model" not in card
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        shutil.move(tmp_path / "out", "moved")
        MODELS.make("hf:moved").load()
        shutil.move(tmp_path / "base", tmp_path / "other")
        with pytest.raises(ModelError, match="adapter=moved"):
            MODELS.make("hf:moved")
        MODELS.make("hf:../other?adapter=moved").load()

    def test_a_head_runs_no_code_of_its_folder(self, tmp_path, ws):
        out = tmp_path / "out"
        short(out, ws, recipe="head", train_limit=336, settings={}).run()
        facts = json.loads((out / "head.json").read_text())
        evil = tmp_path / "evil"
        evil.mkdir()
        (evil / "config.json").write_text(
            json.dumps({"auto_map": {"AutoConfig": "evil.Evil"}, "model_type": "evil"})
        )
        (evil / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').write('x')\nclass Evil: pass\n")
        for base, options in (
            (f"hf:{evil}", {"trust_remote_code": True}),
            (f"hf:{evil}?trust_remote_code=true", {}),
        ):
            (out / "head.json").write_text(json.dumps({**facts, "base": base, "options": options}))
            with pytest.raises(ModelError):
                MODELS.make(f"head:{out}")
        assert not (tmp_path / "ran").exists()
        (out / "head.json").write_text(json.dumps({**facts, "base": "pico:llava"}))
        with pytest.raises(ModelError, match="different weights"):
            MODELS.make(f"head:{out}")


def longer(out: Path, workspace: Path) -> Tuning:
    """A tuning in which there is time to be killed."""
    return short(out, workspace, recipe="full", settings={"max_steps": 14, "save_steps": 4, "eval_steps": 14})


class TestInterrupted:
    def test_killed_it_goes_on(self, tmp_path, ws):
        """Killed in the middle, it ends with the very weights of one that was not. (All weights: names in a
        checkpoint's file are not those of the modules.)
        """
        out = tmp_path / "out"
        folders = [str(TESTS), str(Path(__file__).parent)]
        script = f"import sys; sys.path[:0] = {folders!r}; from pathlib import Path\n"
        script += "from test_tune import longer; longer(*map(Path, sys.argv[1:])).run()"
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(out), str(ws)], stderr=subprocess.DEVNULL
        )
        folder = out / "checkpoints" / "full"
        try:
            until((folder / "checkpoint-4" / "trainer_state.json").exists)
            assert process.poll() is None
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not (out / "model.safetensors").exists()
        torso = folder / "checkpoint-10"  # killed in the middle of a write
        shutil.rmtree(torso, ignore_errors=True)
        torso.mkdir()
        (torso / "model.safetensors").write_bytes(b"x")
        longer(out, ws).run()
        longer(tmp_path / "whole", ws).run()
        one, other = (load_file(f / "model.safetensors") for f in (out, tmp_path / "whole"))
        assert one.keys() == other.keys()
        for key, value in one.items():
            torch.testing.assert_close(value, other[key], rtol=1e-3, atol=5e-4)  # the last digits vary

    @pytest.mark.exhaustive
    def test_an_ended_stage_is_not_gone_on_with(self, tmp_path, ws, monkeypatch):
        """Killed in the second stage, in the middle of an epoch of the first: the first takes no step
        more.
        """
        from snellen.tuning import sft, trainer

        how = {"recipe": "two-stage", "settings": {"max_steps": 10}, "seed": 3}
        whole = short(tmp_path / "whole", ws, **how).run()
        real = trainer.run_stage

        def killed(trainer, folder, stage, *args, **kwargs):
            if stage == "decoder":
                raise KeyboardInterrupt
            return real(trainer, folder, stage, *args, **kwargs)

        monkeypatch.setattr(sft, "run_stage", killed)
        with pytest.raises(KeyboardInterrupt):
            short(tmp_path / "out", ws, **how).run()
        monkeypatch.setattr(sft, "run_stage", real)
        short(tmp_path / "out", ws, **how).run()
        one, other = (load_file(tmp_path / f / "model.safetensors") for f in ("out", "whole"))
        assert all(torch.equal(value, other[key]) for key, value in one.items())
        held = yaml.safe_load((tmp_path / "out" / MANIFEST).read_text())
        assert max(row["step"] for row in held["log"]["projector"]) == 3
        assert whole.facts["effective"]["projector"]["steps"] == 3

    def test_asked_to_stop_it_keeps_what_it_has(self, tmp_path, ws):
        """Ctrl+C once: the step is ended, a checkpoint written; the same command goes on from there."""

        def interrupt(stage, step, of, known):
            if stage == "lora" and step == 3 and not known:
                os.kill(os.getpid(), signal.SIGINT)

        how = {"settings": {"max_steps": 6, "save_steps": 500}}
        with pytest.raises(Stopped, match="after step [34] of 6"):
            short(tmp_path / "out", ws, **how, watch=interrupt).run()
        steps = []

        def watch(stage, step, of, known):
            steps.extend([step] if stage == "lora" and not known else [])

        short(tmp_path / "out", ws, **how, watch=watch).run()
        assert steps[-1] == 6
        assert steps[0] in (4, 5)

    def test_a_torso_is_no_checkpoint(self, tmp_path):
        for number, text in ((2, "{}"), (10, "{}"), (20, '{"tru')):
            (tmp_path / f"checkpoint-{number}").mkdir()
            (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_text(text)
        (tmp_path / "checkpoint-30").mkdir()
        assert last_checkpoint(tmp_path).name == "checkpoint-10"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]
        assert last_checkpoint(tmp_path / "nowhere") is None

    def test_a_full_disk_keeps_the_last_checkpoint(self, tmp_path, ws, monkeypatch):
        from transformers import Trainer

        real, calls = Trainer._save_rng_state, []

        def full(self, folder):
            calls.append(folder)
            if len(calls) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(self, folder)

        monkeypatch.setattr(Trainer, "_save_rng_state", full)
        with pytest.raises(Stopped, match="No space left") as caught:
            short(tmp_path / "out", ws).run()
        assert "checkpoint-2 is kept" in str(caught.value)
        assert "rerun the same command" in str(caught.value)
        # With room it goes on from there.
        monkeypatch.setattr(Trainer, "_save_rng_state", real)
        steps = []

        def watch(stage, step, of, known):
            steps.extend([step] if stage == "lora" and not known else [])

        short(tmp_path / "out", ws, watch=watch).run()
        assert steps == [3, 4, 5, 6]

    @pytest.mark.exhaustive
    def test_a_real_full_disk(self, tmp_path, ws):
        script = (
            "import resource, signal\nsignal.signal(signal.SIGXFSZ, "
            "signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))\nfrom "
            "snellen import cli\ncli.main()\n"
        )
        given = "tune pico:llava-skewed --data chart:shapes?n=28 --train-limit 56 --recipe full --quiet"
        done = subprocess.run(
            [
                *(sys.executable, "-c", script, *given.split(), "-o", str(tmp_path / "out")),
                *("--workspace", str(ws)),
            ],
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 1, done.stderr
        assert "A checkpoint cannot be written" in done.stderr
        assert "Free some space" in done.stderr
        assert "Traceback" not in done.stderr

    def test_too_little_memory(self, tmp_path, ws, monkeypatch):
        from transformers import LlamaModel

        real = LlamaModel.forward

        def hungry(self, *args, **kwargs):
            if self.training:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
            return real(self, *args, **kwargs)

        monkeypatch.setattr(LlamaModel, "forward", hungry)
        with pytest.raises(Stopped, match="per_device_train_batch_size=1"):
            short(tmp_path / "out", ws).run()


class TestCommand:
    def call(self, *words: str) -> tuple[int, str]:
        found = runner.invoke(app, ["tune", *words])
        said = found.output + (str(found.exception) if found.exception else "")
        return found.exit_code, said

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["pico:llava", "--data", "folder:{photos}", "-o", "{tmp}/o"], "--hold-out 0.2"),
            (["pico:llava", "--data", "jsonl:{tmp}/x.jsonl", "-o", "{tmp}/o"], "no such file"),
            (["pico:llava", "--data", "folder:{one}", "-o", "{tmp}/o", "--hold-out", "0.5"], "at least two"),
            (
                ["pico:llava", "--data", "folder:{bad}", "-o", "{tmp}/o", "--hold-out", "0.5"],
                "not a readable image",
            ),
            (["pico:llava", "--data", "chart:shapes", "-o", "{tmp}/o", "-T", "steps=3"], "no such option"),
            (["pico:llava", "--data", "chart:shapes", "-o", "{tmp}/o", "--push-to-hub", "x"], "ORG/NAME"),
            (
                [
                    "pico:llava",
                    "--data",
                    "chart:shapes",
                    "-o",
                    "{tmp}/o",
                    "--train-split",
                    "train",
                    "--hold-out",
                    "1",
                ],
                "one of --train",
            ),
            (["pico:llava", "--data", "chart:shapes", "-o", "{tmp}/o", "--oversample", "x"], "rare, hard"),
            ("pico:llava --data chart:shapes -o {tmp}/o -T learning_rate=abc".split(), "a number"),
            (
                "pico:llava --data chart:shapes -o {tmp}/o -T per_device_train_batch_size=0".split(),
                "1 or more",
            ),
            ("pico:llava --data chart:shapes -o {tmp}/o -T hub_token=x".split(), "--push-to-hub"),
            ("pico:llava --data chart:shapes -o {tmp}/o -L r=abc".split(), "whole number"),
            ("pico:llava --data chart:shapes -o {tmp}/o -L nope=3".split(), "-L nope"),
            ("pico:llava --data chart:shapes -o {tmp}/o -L target_modules=[a".split(), "YAML"),
            (
                "pico:llava --data chart:shapes -o {tmp}/o --recipe full -L r=4".split(),
                "needs a recipe with adapters",
            ),
            (
                "pico:llava --data chart:shapes -o {tmp}/o --recipe full --merge".split(),
                "needs a recipe with adapters",
            ),
            (
                "pico:llava --data chart:shapes -o {tmp}/o --recipe head --mix chart:shapes".split(),
                "--mix cannot be used",
            ),
            ("pico:llava --data chart:shapes -o {tmp}/o --train-limit 0".split(), "--train-limit 0"),
            ("pico:llava --data chart:shapes -o {tmp}/o --public".split(), "--push-to-hub"),
            (
                "pico:llava --data folder:{split} -o {tmp}/o --hold-out 0.2".split(),
                "already has a training split",
            ),
            (
                "pico:llava --data folder:{one2} --train folder:{one2} -o {tmp}/o --leaks drop".split(),
                "all of them",
            ),
            (["pico:classifier", "--data", "chart:shapes", "-o", "{tmp}/o"], "cannot be fine-tuned"),
            (
                ["pico:llava", "--data", "chart:shapes", "-o", "{tmp}/o", "--mix", "chart:shapes@x"],
                "shapes@x",
            ),
        ],
    )
    def test_what_is_wrong_is_said(self, words, said, photos, tmp_path):
        for kind, names in {"one": ["star"], "bad": ["star", "ring"]}.items():
            for name in names:
                (tmp_path / kind / name).mkdir(parents=True)
                for i in range(3):
                    draw(figure(f"{name}{i}", name), 48).save(tmp_path / kind / name / f"{i}.png")
        (tmp_path / "bad" / "star" / "broken.png").write_bytes(b"no image")
        for split in ("train", "test"):
            shutil.copytree(photos, tmp_path / "split" / split)
        places = {"photos": photos, "tmp": tmp_path, "one": tmp_path / "one", "bad": tmp_path / "bad"}
        places |= {"split": tmp_path / "split", "one2": photos}
        words = [word.format(**places) for word in words]
        code, told = self.call(*words, "--workspace", str(tmp_path / "ws"))
        assert code != 0
        assert said in told
        assert not (tmp_path / "o" / "adapter_model.safetensors").exists()

    def test_skip_bad(self, photos, tmp_path):
        folder = tmp_path / "photos"
        shutil.copytree(photos, folder)
        (folder / "star" / "broken.png").write_bytes(b"no image")
        code, told = self.call(
            *f"pico:llava --data folder:{folder} --hold-out 0.5 -o {tmp_path / 'o'} --skip-invalid".split(),
            *f"-T max_steps=2 --quiet --workspace {tmp_path / 'ws'} --json".split(),
        )
        assert code == 0, told
        document = json.loads(told)
        assert document["results"][0]["task"].startswith("folder:photos (held out)")
        assert any("Forgetting is not measured" in note for note in document["notes"])


def test_help_names_what_there_is(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["snellen", "tune", "--help"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().out
    for recipe in RECIPES:
        assert recipe in told


def test_a_lesson_ends_where_the_template_ends_it(tmp_path):
    """Exactly one end, whatever the template writes after an answer."""
    folder = tiny.save("qwen2_vl", tmp_path)
    model = made(VisionLanguageModel, f"hf:{folder}")
    model.load()
    chat = ChatRenderer(model._processor)
    one = examples(sample(["a", "b"], "a"), None, {}, train_format="open")[0]
    prompt, completion = chat.lesson(one.messages, one.answer)
    assert completion.count("</s>") == 1
    assert completion.endswith("</s>")
    assert prompt.endswith("assistant:")
    _ = picture
    model.close()
