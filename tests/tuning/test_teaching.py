"""Recipes, and what a model of each architecture is taught, token by token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import tiny
from helpers import made, picture, sample
from snellen.datasets.base import DATASETS, select
from snellen.datasets.shapes import draw, figure
from snellen.errors import BadOption, Unsupported
from snellen.models.huggingface.chat import ChatRenderer
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.tuning.collator import Collator, rows_of
from snellen.tuning.examples import examples
from snellen.tuning.recipes import adapters, freeze, part_of
from snellen.tuning.sources import Source, TrainingSet
from snellen.tuning.trainer_settings import read_settings
from snellen.tuning.tuning import MANIFEST, Tuning
from snellen.types import Kind, Request

pytestmark = pytest.mark.slow


#: Architectures of each sort of projector and placing of images.
FAMILIES = ("llava", "qwen2_vl", "qwen3_vl", "idefics3", "smolvlm", "internvl", "gemma3", "mllama")


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
        collator = Collator(model.processor)
        rows = rows_of(lessons, collator)
        batch = collator([rows[i] for i in range(3)])
        tokenizer = model.tokenizer
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


def test_a_lesson_ends_where_the_template_ends_it(tmp_path):
    """Exactly one end, whatever the template writes after an answer."""
    folder = tiny.save("qwen2_vl", tmp_path)
    model = made(VisionLanguageModel, f"hf:{folder}")
    model.load()
    chat = ChatRenderer(model.processor)
    one = examples(sample(["a", "b"], "a"), None, {}, train_format="open")[0]
    prompt, completion = chat.lesson(one.messages, one.answer)
    assert completion.count("</s>") == 1
    assert completion.endswith("</s>")
    assert prompt.endswith("assistant:")
    _ = picture
    model.close()
