"""Vision-language models through transformers: no answer depends on its batch, and log-likelihoods are
what a brute-force sum says. On tiny random checkpoints of real architectures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from helpers import made, picture, text_of
from measures import NAMES, answers, questions
from sharing import KINDS
from snellen.errors import BadOption, MissingExtra, ModelError
from snellen.models.base import MODELS
from snellen.models.huggingface.architectures import ONE_IMAGE, UNPADDED
from snellen.models.huggingface.checkpoint import Checkpoint
from snellen.models.huggingface.prefix_cache.self_check import Strategy
from snellen.models.huggingface.prompted import PromptRow
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.types import Decoding, Kind, Message, Outcome, ask

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
EXHAUSTIVE = pytest.mark.exhaustive


#: Plain batches are padded, or states would see the padding: one of each. What shares nothing is plain, too.
PLAIN = [
    pytest.param((name, "off"), id=f"off-{name}", marks=[] if name in ("llava", "qwen3_5") else EXHAUSTIVE)
    for name in tiny.ARCHITECTURES
]
SHARED = [
    pytest.param((name, "auto"), id=f"auto-{name}", marks=[] if name in KINDS else EXHAUSTIVE)
    for name in tiny.ARCHITECTURES
]


@pytest.fixture(scope="module", params=[*SHARED, *PLAIN])
def model(request, tmp_path_factory) -> VisionLanguageModel:
    """A checkpoint of each architecture, with and without prefix sharing."""
    name, prefix = request.param
    found = made(VisionLanguageModel, f"hf:{tiny.save(name, tmp_path_factory.mktemp(name))}?prefix={prefix}")
    found.load()
    return found


@pytest.fixture
def scorer(model) -> VisionLanguageModel:
    """The same, where it gives log-likelihoods: all but those that say they do not."""
    if Kind.SCORE not in model.kinds:
        assert model.decoder.config.model_type in ("paligemma", "florence2")
        pytest.skip("a prefix language model, or an encoder-decoder, gives no log-likelihoods")
    return model


def test_an_answer_does_not_depend_on_its_batch(model):
    single = answers(model, questions(), 1)
    assert {r.outcome for r in single} <= {Outcome.OK, Outcome.TRUNCATED}
    assert len({r.text for r in single}) > 1, "weights too small: all answers are alike"
    for size in (3, 16):
        batched = answers(model, questions(), size)
        assert [(r.text, r.outcome, r.prompt_tokens, r.completion_tokens) for r in batched] == [
            (r.text, r.outcome, r.prompt_tokens, r.completion_tokens) for r in single
        ]


def test_a_log_likelihood_does_not_depend_on_its_batch(scorer):
    single = scores(answers(scorer, questions(Kind.SCORE), 1))
    for size in (3, 16):
        batched = scores(answers(scorer, questions(Kind.SCORE), size))
        assert (batched - single).abs().max() < TOLERANCE
    assert single.std() > 100 * TOLERANCE


def test_marks_in_a_text_are_text(model):
    """In questions, in class names and next to other prompts: no images, and no ends of turns."""
    marks = ["<image>", "<|image_pad|>", "<image_soft_token>", "[IMG]", "<fake_token_around_image>", "</s>"]
    asked = [ask((picture("red"),), f"Is {mark} like {mark}?", max_tokens=4) for mark in marks]
    alone = answers(model, asked, 1)
    assert {r.outcome for r in alone} <= {Outcome.OK, Outcome.TRUNCATED}, alone
    assert [r.text for r in answers(model, asked, 16)] == [r.text for r in alone]
    apart = [f"{mark[:-1]} {mark[-1]}" for mark in marks]
    spaced = [ask((picture("red"),), f"Is {mark} like {mark}?", max_tokens=4) for mark in apart]
    assert [r.prompt_tokens for r in answers(model, spaced, 16)] == [r.prompt_tokens for r in alone]
    if Kind.SCORE in model.kinds:
        named = [replace(r, kind=Kind.SCORE, continuations=tuple(marks)) for r in asked]
        assert torch.isfinite(scores(answers(model, named, 16))).all()


def scores(responses) -> torch.Tensor:
    assert all(r.outcome is Outcome.OK for r in responses), responses
    return torch.tensor([[s.value for s in r.scores] for r in responses], dtype=torch.float64)


def test_a_log_likelihood_is_the_brute_force_sum(scorer):
    """One row, no padding, no cache: token by token from the full logits."""
    for request in questions(Kind.SCORE)[:3]:
        found = answers(scorer, [request], 16)[0].scores
        chat, processor = scorer.chat, scorer.processor
        prompt = chat.prompt(request.messages)
        plain = scorer.tokenizer(prompt).input_ids
        for name, score in zip(NAMES, found, strict=True):
            text = prompt + chat.continuation(request.messages, name)
            tokens = len(scorer.tokenizer(text).input_ids) - len(plain)
            inputs = processor(text=[text], images=[[i.pixels for i in request.images]], return_tensors="pt")
            with torch.inference_mode():
                logits = scorer.decoder(**inputs).logits[0].double()
            ids = inputs["input_ids"][0]
            steps = torch.log_softmax(logits, -1)[:-1].gather(-1, ids[1:, None])[:, 0]
            assert score.tokens == tokens
            assert score.value == pytest.approx(float(steps[-tokens:].sum()), abs=TOLERANCE)


def test_planted_faults_would_be_seen(scorer, monkeypatch):
    """A wrong image, mask or position moves log-likelihoods by 100 times the tolerance: the tests
    above could not pass with one of them."""
    if scorer.identity().get("prefix") != "off":
        pytest.skip("the faults of prefix sharing are planted in prefix_cache/test_self_check.py")
    request = questions(Kind.SCORE)[1]
    right = scores(answers(scorer, [request], 16))
    plain = VisionLanguageModel.inputs_of

    def moved() -> float:
        return float((scores(answers(scorer, [request], 16)) - right).abs().max())

    def wrong_image(self, rows, padding_side):
        other = replace(request, messages=(Message("user", (picture("black", (48, 48)), text_of(request))),))
        return plain(self, [PromptRow(other, r.prompt, r.continuation) for r in rows], padding_side)

    logits = VisionLanguageModel.logits_of

    def wrong_position(self, inputs, keep):
        length = inputs["input_ids"].shape[1]
        positions = torch.arange(length)[None].expand_as(inputs["input_ids"]).clone()
        positions[:, length // 2 :] += 3
        return logits(self, {**inputs, "position_ids": positions}, keep)

    with monkeypatch.context() as patch:
        patch.setattr(VisionLanguageModel, "inputs_of", wrong_image)
        assert moved() > 100 * TOLERANCE
    if scorer.decoder.config.model_type != "kosmos-2":  # which makes its own positions
        with monkeypatch.context() as patch:
            patch.setattr(VisionLanguageModel, "logits_of", wrong_position)
            assert moved() > 100 * TOLERANCE
    # Lengths are read off the mask, so its fault is planted where the model itself is called.
    with monkeypatch.context() as patch:
        forward = scorer.decoder.forward

        def half_blind(**inputs):
            mask = inputs["attention_mask"].clone()
            mask[:, 2:5] = 0
            return forward(**{**inputs, "attention_mask": mask})

        patch.setattr(scorer.decoder, "forward", half_blind)
        assert moved() > 100 * TOLERANCE


def test_greedy_whatever_the_checkpoints_own_defaults(model):
    first, second = (answers(model, questions()[:4], 4) for _ in range(2))
    assert [r.text for r in first] == [r.text for r in second]
    request = questions()[1]
    warm = [replace(request, decoding=Decoding(6, temperature=3.0, draw=draw)) for draw in range(6)]
    drawn = [r.text for r in answers(model, warm, 1)]
    assert len(set(drawn)) > 1
    assert drawn == [r.text for r in answers(model, warm, 16)]


def test_penalties_and_forbidden_words_of_the_checkpoint_are_not_taken_over(tmp_path):
    folder = tiny.save("llava", tmp_path)
    plain = [r.text for r in answers(MODELS.make(f"hf:{folder}"), questions()[:4], 4)]
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text())
    settings |= {"repetition_penalty": 9.0, "num_beams": 3, "no_repeat_ngram_size": 1}
    settings["bad_words_ids"] = [[i] for i in range(3, 300)]
    path.write_text(json.dumps(settings))
    assert [r.text for r in answers(MODELS.make(f"hf:{folder}"), questions()[:4], 4)] == plain


def test_a_prompt_beyond_the_context_is_an_error(model):
    long = ask((picture(),), "cat " * 3000, max_tokens=2)
    found = answers(model, [long, questions()[0]], 2)
    assert found[0].outcome is Outcome.ERROR
    assert re.search(r"context is \d+", found[0].reason)
    assert found[1].outcome is not Outcome.ERROR


def test_requests_without_an_image_and_with_two(model):
    text = ask((), "What type of object?", max_tokens=3)
    two = ask((picture("red"), picture("blue")), "Which?", max_tokens=3)
    requests = (text, questions()[0], two)
    together = answers(model, requests, 16)
    alone = [answers(model, [request], 16)[0] for request in requests]
    assert [r.text for r in together] == [r.text for r in alone]
    kind = model.decoder.config.model_type
    assert (together[0].outcome is Outcome.ERROR) == (not model.text_only)
    assert together[1].outcome is not Outcome.ERROR
    assert (together[2].outcome is Outcome.ERROR) == (kind in ONE_IMAGE)
    if kind in ONE_IMAGE:
        assert "accepts only one" in together[2].reason


def test_the_order_of_images_counts(scorer):
    if scorer.decoder.config.model_type in ONE_IMAGE:
        pytest.skip("it takes one image")
    first, second = (
        ask(tuple(map(picture, colors)), "Which?", kind=Kind.SCORE, continuations=NAMES)
        for colors in (("red", "blue"), ("blue", "red"))
    )
    difference = scores(answers(scorer, [first], 8)) - scores(answers(scorer, [second], 8))
    assert difference.abs().max() > 100 * TOLERANCE


def test_an_answer_that_is_begun_goes_on(scorer):
    request = questions(Kind.SCORE)[0]
    begun = replace(request, messages=(*request.messages, Message("assistant", ("The photo features a",))))
    prompt = scorer.chat.prompt(begun.messages)
    assert prompt.endswith("The photo features a")
    assert scorer.chat.continuation(begun.messages, "cat") == " cat"
    assert (scores(answers(scorer, [begun], 4)) - scores(answers(scorer, [request], 4))).abs().max() > 0.01


def test_cut_off_answers_say_so(model):
    found = answers(model, [replace(questions()[0], decoding=Decoding(2))], 1)[0]
    assert found.outcome is Outcome.TRUNCATED
    assert found.completion_tokens == 2
    assert "2 tokens" in found.reason


@pytest.mark.usefixtures("no_collection")
def test_running_out_of_memory_halves_the_batch(model, monkeypatch):
    if model.decoder.config.model_type in UNPADDED or model.sharing.way is Strategy.VISION:
        pytest.skip("its batches are of one prompt length, or image, and these are ragged")
    whole = answers(model, questions(), 16)
    sizes = []
    real = VisionLanguageModel.generate

    def small(self, rows):
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, rows)

    monkeypatch.setattr(VisionLanguageModel, "generate", small)
    halved = answers(model, questions(), 16)
    assert [r.text for r in halved] == [r.text for r in whole]
    assert sizes[0] > 3
    fitted = next(i for i, size in enumerate(sizes) if size <= 3)
    assert max(sizes[fitted:]) <= 3, "what did not fit once is not tried again"
    assert model.memory.size(16) <= 3
    model.memory.limit = None


def test_one_bad_request_spoils_no_other(model, monkeypatch):
    whole = answers(model, questions(), 4)
    real = VisionLanguageModel.prompt

    def picky(self, messages):
        if len(messages[-1].text) > 100:
            raise ValueError("too long for me\nand more")
        return real(self, messages)

    monkeypatch.setattr(VisionLanguageModel, "prompt", picky)
    for request, before, now in zip(questions(), whole, answers(model, questions(), 4), strict=True):
        if len(text_of(request)) > 100:
            assert (now.outcome, now.reason) == (Outcome.ERROR, "ValueError: too long for me")
        else:
            assert now.text == before.text


def test_facts_and_identity(model):
    facts = model.metadata()
    assert facts["parameters"] == sum(p.numel() for p in model.decoder.parameters())
    assert facts["dtype"] == "float32"
    assert facts["peak_gpu_bytes"] is None
    assert model.identity()["revision"].startswith("sha256:")


class TestWithoutTemplate:
    """A checkpoint without a chat template gets the plain form."""

    def test_plain_prompt(self, tmp_path):
        folder = tiny.save("llava", tmp_path)
        (folder / "chat_template.jinja").unlink()
        found = made(VisionLanguageModel, f"hf:{folder}")
        found.load()
        request = questions()[1]
        assert found.chat.prompt(request.messages).startswith("<image>\nWhat type")
        assert answers(found, [request], 1)[0].outcome is not Outcome.ERROR
        assert found.chat.separator == " "


class TestCheckpoint:
    def test_the_identity_is_that_of_the_contents(self, tmp_path):
        import shutil

        one = tiny.save("llava", tmp_path / "one")
        two = Path(shutil.copytree(one, tmp_path / "two"))
        same = [Checkpoint.find("x", str(f)).identity() for f in (one, two)]
        assert same[0] == same[1]
        config = json.loads((two / "config.json").read_text())
        (two / "config.json").write_text(json.dumps({**config, "vision_feature_layer": -2}))
        assert Checkpoint.find("x", str(two)).identity() != same[0]
        assert Checkpoint.find("x", str(one), dtype="bfloat16").identity() != same[0]

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("./nowhere", "no such folder"),
            ("/nowhere", "no such folder"),
            ("", "no such folder"),
            ("a/b/c", "no such folder"),
            ("nobody/nothing", "hf download nobody/nothing"),
        ],
    )
    def test_what_is_not_there(self, path, message):
        with pytest.raises(ModelError, match=message):
            MODELS.make(f"hf:{path}")

    def test_what_is_no_checkpoint(self, tmp_path):
        with pytest.raises(ModelError, match="no config.json"):
            MODELS.make(f"hf:{tmp_path}")
        (tmp_path / "config.json").write_text('{"model_type": "llava"}')
        with pytest.raises(ModelError, match="cannot load its processor"):
            MODELS.make(f"hf:{tmp_path}").load()

    def test_devices(self, tmp_path):
        folder = tiny.save("llava", tmp_path)
        with pytest.raises(BadOption, match="device='cpux'"):
            MODELS.make(f"hf:{folder}?device=cpux")
        if not torch.cuda.is_available():
            with pytest.raises(BadOption, match="no usable GPU"):
                MODELS.make(f"hf:{folder}?device=cuda")

    def test_layers_spread_by_accelerate(self, tmp_path):
        """On a CPU alone they all come to lie there; nothing that is answered changes, nor who it is."""
        folder = tiny.save("llava", tmp_path, scale=1.0)
        spread, whole = (
            made(VisionLanguageModel, f"hf:{folder}?device_map=auto"),
            made(VisionLanguageModel, f"hf:{folder}"),
        )
        assert spread.identity() == whole.identity()
        told = [[reply.text for reply in answers(model, questions()[:2], 2)] for model in (spread, whole)]
        assert told[0] == told[1]
        with pytest.raises(BadOption, match="cannot be used together"):
            MODELS.make(f"hf:{folder}?device_map=auto&device=cpu")

        class Auto:
            """Takes note of what transformers is told."""

            @staticmethod
            def from_pretrained(path, **options):
                assert options["device_map"] == "auto"
                return whole.decoder

        assert spread.checkpoint.load(Auto) is whole.decoder

    def test_half_precision(self, tmp_path):
        folder = tiny.save("llava", tmp_path, scale=1.0)
        rough = MODELS.make(f"hf:{folder}?dtype=bfloat16")
        rough.load()
        assert rough.metadata()["dtype"] == "bfloat16"
        assert answers(rough, questions()[:2], 2)[0].outcome is not Outcome.ERROR
        found = scores(answers(rough, questions(Kind.SCORE)[:2], 8))
        exact = scores(answers(MODELS.make(f"hf:{folder}"), questions(Kind.SCORE)[:2], 8))
        assert (found - exact).abs().max() < 0.1 * exact.abs().max()


class TestAdapter:
    def lora(self, folder, out, scale):
        """A LoRA adapter with random weights, saved as PEFT saves it."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForImageTextToText

        torch.manual_seed(1)
        base = AutoModelForImageTextToText.from_pretrained(folder)
        wanted = r".*language_model.*\.(q|v)_proj"
        adapted = get_peft_model(base, LoraConfig(r=4, target_modules=wanted, init_lora_weights=False))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.mul_(scale)
        adapted.save_pretrained(out)
        return adapted, out

    def test_it_is_merged_and_part_of_the_identity(self, tmp_path):
        folder = tiny.save("llava", tmp_path / "base")
        adapted, adapter = self.lora(folder, tmp_path / "adapter", 1.0)
        found = made(VisionLanguageModel, f"hf:{folder}?adapter={adapter}")
        request = questions(Kind.SCORE)[1]
        plain = made(VisionLanguageModel, f"hf:{folder}")
        assert found.identity() != plain.identity()
        changed = scores(answers(found, [request], 8))
        assert (changed - scores(answers(plain, [request], 8))).abs().max() > 100 * TOLERANCE
        # What peft itself makes of it, unmerged.
        with plain.borrowing(adapted, plain.processor):
            assert (changed - scores(answers(plain, [request], 8))).abs().max() < TOLERANCE * 10

    def test_trained_again_in_place_it_is_another(self, tmp_path):
        folder = tiny.save("llava", tmp_path / "base")
        _, adapter = self.lora(folder, tmp_path / "adapter", 1.0)
        before = MODELS.make(f"hf:{folder}?adapter={adapter}").identity()
        self.lora(folder, tmp_path / "adapter", 2.0)
        assert MODELS.make(f"hf:{folder}?adapter={adapter}").identity() != before

    def test_weights_that_fit_nothing_are_refused(self, tmp_path):
        from safetensors.torch import load_file, save_file

        folder = tiny.save("llava", tmp_path / "base")
        _, adapter = self.lora(folder, tmp_path / "adapter", 1.0)
        weights = load_file(adapter / "adapter_model.safetensors")
        renamed = {name.replace("language_model", "other_model"): value for name, value in weights.items()}
        save_file(renamed, adapter / "adapter_model.safetensors")
        with pytest.raises(ModelError, match="cannot be merged.*missing adapter keys"):
            MODELS.make(f"hf:{folder}?adapter={adapter}").load()

    def test_what_is_none(self, tmp_path):
        folder = tiny.save("llava", tmp_path / "base")
        with pytest.raises(ModelError, match="cannot be merged"):
            MODELS.make(f"hf:{folder}?adapter={tmp_path}").load()


def test_quantization_says_what_it_needs(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtra, match=r"snellen\[quantization\]"):
        MODELS.make(f"hf:{tiny.save('llava', tmp_path)}?quantization=4bit")


def test_the_prompt_that_was_sent_is_kept(model):
    (found,) = answers(model, questions()[:1], 1)
    assert "What?" in found.prompt
    assert found.prompt == model.chat.prompt(questions()[0].messages)


class TestBoxes:
    """How the families write boxes, and in whose pixels."""

    @pytest.mark.parametrize(
        ("family", "format"),
        [
            ("paligemma", "loc"),
            ("florence2", "florence"),
            ("kosmos2", "kosmos"),
            ("qwen2_vl", "thousand"),
            ("qwen2_5_vl", "pixels"),
            ("qwen3_vl", "thousand"),
            ("internvl", "thousand"),
            ("llava", "padded-unit"),
            ("llava_next", None),
        ],
    )
    def test_a_family_says_how(self, family, format, tmp_path):
        assert made(VisionLanguageModel, f"hf:{tiny.save(family, tmp_path)}").boxes == format

    def test_pixels_are_those_of_the_picture_as_it_was_scaled(self, tmp_path):
        """As the processor of Qwen2.5-VL scales it: sides of whole patches, within its limits."""
        model = made(VisionLanguageModel, f"hf:{tiny.save('qwen2_5_vl', tmp_path)}")
        wide = picture("red", (400, 100))
        (reply,) = model.answer([ask((wide,), "Where?", max_tokens=2)])
        width, height = reply.meta["frame"]
        images = model.processor.image_processor
        shown = images(images=[wide.pixels], return_tensors="pt")
        assert [1, height // images.patch_size, width // images.patch_size] == shown["image_grid_thw"][
            0
        ].tolist()
        assert width > height
        assert width * height <= 96 * 96
        (both,) = model.answer([ask((wide, wide), "Where?", max_tokens=2)])
        assert "frame" not in both.meta

    @pytest.mark.parametrize("family", ["paligemma", "florence2", "kosmos2"])
    def test_places_are_not_dropped_as_special_tokens(self, family, tmp_path):
        """What is decoded holds no mark of beginning, end or padding, and would hold places."""
        model = made(VisionLanguageModel, f"hf:{tiny.save(family, tmp_path)}")
        (reply,) = model.answer([ask((picture(),), "Where?", max_tokens=4)])
        for word in ("<s>", "</s>", "<pad>", "<eos>", "<bos>", "<image>"):
            assert word not in reply.text
