"""The self-check of shared prefixes: the way that it finds, and the faults that it catches."""

from __future__ import annotations

import logging

import pytest
import torch
import transformers as hf

import tiny
from helpers import made, picture
from prefixes import count_prefixes
from sharing import WAYS, answers, of_each_kind, ragged
from snellen.errors import ModelError
from snellen.models.base import MODELS
from snellen.models.huggingface.prefix_cache.inputs import ImageContext
from snellen.models.huggingface.prefix_cache.packed import PackedSuffixes
from snellen.models.huggingface.prefix_cache.prefill import Prefix, by_layer
from snellen.models.huggingface.prefix_cache.self_check import Strategy
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.types import ask

pytestmark = pytest.mark.slow


class TestSelfCheck:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    @pytest.mark.parametrize("name", of_each_kind(tiny.ARCHITECTURES))
    def test_it_finds_the_first_exact_way(self, name, dtype, tmp_path, caplog):
        folder = tiny.save(name, tmp_path, scale=6.0 if dtype == "float32" else 3.0)
        model = made(VisionLanguageModel, f"hf:{folder}?dtype={dtype}")
        with caplog.at_level(logging.INFO, "snellen"):
            assert model.sharing.way is WAYS[name]
        declared = WAYS[name] is Strategy.PLAIN
        assert len(caplog.records) == (0 if declared else 1)
        if not declared:
            assert caplog.records[0].levelno == (
                logging.INFO if WAYS[name] in (Strategy.PACKED, Strategy.ROWS) else logging.WARNING
            )
            found = model.metadata()["prefix"]
            assert found["way"] == WAYS[name]
            assert found["tried"][WAYS[name]] < 0.2
            # Three questions in one padded batch, at twelve places each; only half precision may flip some.
            assert found["decisions"] == 36
            assert found["mixes"], "pictures of different sizes leave each other's answers as they are"
            assert found["flips"] == 0 if dtype == "float32" else found["flips"] < 36
        assert model.request_batch == (32 if WAYS[name] in (Strategy.PACKED, Strategy.ROWS) else 1)

    def test_decisions_that_depend_on_the_batch_are_counted(self, tmp_path, monkeypatch):
        on_device = VisionLanguageModel.on_device

        def dazzled(self, inputs):
            if len(inputs["input_ids"]) > 1:
                inputs["pixel_values"] = -inputs["pixel_values"]
            return on_device(self, inputs)

        monkeypatch.setattr(VisionLanguageModel, "on_device", dazzled)
        model = made(VisionLanguageModel, f"hf:{tiny.save('llava', tmp_path)}")
        assert model.sharing.way
        found = model.metadata()["prefix"]
        assert 0 < found["flips"] <= found["decisions"] == 36

    def test_pictures_that_change_each_other_are_grouped_by_size(self, tmp_path, monkeypatch):
        """As processors do that pad pictures before they are encoded."""
        process_all = VisionLanguageModel.process_all

        def padded(self, shown, padding_side):
            tensors = process_all(self, shown, padding_side)
            if len({image.size for _, images in shown for image in images}) > 1:
                tensors["pixel_values"][0] *= 0.5
            return tensors

        monkeypatch.setattr(VisionLanguageModel, "process_all", padded)
        folder = tiny.save("llava", tmp_path)
        one, same, other = (
            ask((picture(color, (side, 48)),), "What?")
            for color, side in (("red", 48), ("blue", 48), ("red", 64))
        )
        for prefix in ("auto", "off"):
            model = made(VisionLanguageModel, f"hf:{folder}?prefix={prefix}")
            assert model.together([one, same, other]) == [[0, 1], [2]]
            assert model.sharing.found is None, "one question an image takes no more of the check than this"
        checked = made(VisionLanguageModel, f"hf:{folder}")
        assert checked.sharing.way is Strategy.PACKED
        assert not checked.metadata()["prefix"]["mixes"]
        assert "only pictures of one size are put into a batch (others change it by" in str(
            checked.sharing.found
        )

    def test_pictures_that_leave_each_other_alone_are_in_one_batch(self, tmp_path):
        folder = tiny.save("llava", tmp_path)
        requests = [ask((picture(size=(side, 48)),), "What?") for side in (48, 64, 80)]
        for prefix in ("auto", "off"):
            model = made(VisionLanguageModel, f"hf:{folder}?prefix={prefix}")
            assert model.together(requests) == [[0, 1, 2]]
            assert model.sharing.found is None

    def test_a_trial_that_fails_keeps_sizes_apart(self, tmp_path, monkeypatch):
        """Whatever the reason; and nothing of it is remembered."""
        process_all = VisionLanguageModel.process_all

        def stacked(self, shown, padding_side):
            if len({image.size for _, images in shown for image in images}) > 1:
                raise ValueError("cannot stack")
            return process_all(self, shown, padding_side)

        monkeypatch.setattr(VisionLanguageModel, "process_all", stacked)
        model = made(VisionLanguageModel, f"hf:{tiny.save('llava', tmp_path)}")
        assert model.sharing.way is Strategy.PACKED
        assert "(ValueError: cannot stack)" in str(model.sharing.found)
        requests = [ask((picture(size=(side, 48)),), "What?") for side in (48, 64)]
        assert model.together(requests) == [[0], [1]]

    @pytest.mark.parametrize(
        ("config", "name", "most"),
        [
            (hf.Gemma4Config, "head_dim", 512),
            (hf.Gemma3nConfig, "intermediate_size", 16384),
            (hf.LlamaConfig, "num_key_value_heads", 32),
        ],
    )
    def test_settings_that_differ_between_layers(self, config, name, most):
        text = config().get_text_config(decoder=True)
        values = by_layer(text, name)
        assert len(values) == text.num_hidden_layers
        assert max(values) == most
        assert by_layer(text, "no_such_setting") == [0] * len(values)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("fault", ["position", "leak", "image"])
    def test_planted_faults_are_caught(self, name, fault, dtype, tmp_path, monkeypatch):
        if fault == "leak" and WAYS[name] is Strategy.ROWS:
            pytest.skip("rows have nothing to leak through")
        plant_fault(monkeypatch, fault)
        # The linear layers of this one hardly tell positions apart from rounding, where weights are large.
        folder = tiny.save(name, tmp_path, scale=2.0 if (name, dtype) == ("qwen3_5", "bfloat16") else 6.0)
        model = made(VisionLanguageModel, f"hf:{folder}?dtype={dtype}")
        model.load()
        model.sharing.images = 1
        way = model.sharing.way
        assert way is (Strategy.ROWS if fault == "leak" else way)
        assert way not in ((Strategy.PACKED,) if fault == "leak" else (Strategy.PACKED, Strategy.ROWS))

    @pytest.mark.parametrize("attn", ["eager", "sdpa"])
    def test_whatever_computes_attention(self, attn, tmp_path):
        folder = tiny.save("gemma3", tmp_path)
        assert made(VisionLanguageModel, f"hf:{folder}?attn={attn}").sharing.way is Strategy.PACKED

    def test_attention_that_takes_no_mask_runs_in_rows(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Prefix, "attention", "flash_attention_2")
        model = made(VisionLanguageModel, f"hf:{tiny.save('llava', tmp_path)}")
        assert model.sharing.way is Strategy.ROWS
        assert "does not support this kind of mask" in str(model.sharing.findings)

    def test_a_processor_that_joins_text_and_image_is_run_for_each_prompt(self, tmp_path, monkeypatch):
        """Tokens that cannot be put together are not: the forward pass is shared all the same."""
        folder = tiny.save("llava", tmp_path)
        monkeypatch.setattr(ImageContext, "continued", lambda self, text: [7, *self.ids])
        model = made(VisionLanguageModel, f"hf:{folder}")
        assert model.sharing.way is Strategy.PACKED
        assert not model.sharing.reader.splices
        plain = made(VisionLanguageModel, f"hf:{folder}?prefix=off")
        requests = ragged()[:6]
        prefixes = count_prefixes(monkeypatch)
        assert [r.text for r in answers(model, requests)] == [r.text for r in answers(plain, requests)]
        assert len(prefixes) == 1

    def test_one_that_breaks_is_plain_and_says_so(self, tmp_path, monkeypatch, caplog):
        def broken(self):
            raise RuntimeError("no such luck")

        model = made(VisionLanguageModel, f"hf:{tiny.save('llava', tmp_path)}")
        monkeypatch.setattr(type(model.sharing), "check", broken)
        assert model.sharing.way is Strategy.PLAIN
        assert "the self-check failed: RuntimeError: no such luck" in caplog.text
        assert answers(model, ragged()[:3])

    def test_prefix_on_refuses_what_is_not_possible(self, tmp_path):
        for name in ("paligemma", "florence2"):
            model = made(VisionLanguageModel, f"hf:{tiny.save(name, tmp_path / name)}?prefix=on")
            with pytest.raises(ModelError, match="prefix=on is not possible.*Leave prefix at auto"):
                answers(model, ragged()[:3])

    def test_prefix_off_checks_nothing_and_is_another_model(self, tmp_path):
        folder = tiny.save("llava", tmp_path)
        model = made(VisionLanguageModel, f"hf:{folder}?prefix=off")
        answers(model, ragged()[:3])
        assert model.sharing.found is None
        assert "prefix" not in model.metadata()
        assert model.identity() != MODELS.make(f"hf:{folder}").identity()
        assert MODELS.make(f"hf:{folder}").identity() == MODELS.make(f"hf:{folder}?prefix=on").identity()


def plant_fault(monkeypatch, fault: str) -> None:
    if fault == "position":
        real = Prefix.positions
        monkeypatch.setattr(Prefix, "positions", lambda self, *given: real(self, *given) + 1)
    elif fault == "leak":
        monkeypatch.setattr(PackedSuffixes, "visible", lambda self, sees: torch.ones_like(sees))
    else:
        begin = ImageContext.beginning
        first: list[ImageContext] = []

        def wrong(self, length):
            first.append(self)
            mine, other = begin(self, length), begin(first[0], length)
            pixels = "pixel_values"
            return {**mine, pixels: other[pixels]}

        monkeypatch.setattr(ImageContext, "beginning", wrong)


class TestVision:
    def test_features_are_computed_once_and_answers_stay(self, tmp_path, monkeypatch):
        folder = tiny.save("paligemma", tmp_path)
        model, plain = (
            made(VisionLanguageModel, f"hf:{folder}"),
            made(VisionLanguageModel, f"hf:{folder}?prefix=off"),
        )
        requests = [
            ask((picture(c),), t, max_tokens=6)
            for c in ("red", "blue")
            for t in ("What?", "Is it? Is it?", "A")
        ]
        expected = answers(plain, requests)
        assert model.sharing.way is Strategy.VISION
        tower = type(model.decoder.model.vision_tower)
        seen = []
        real = tower.forward

        def counted(self, pixel_values, **more):
            seen.append(len(pixel_values))
            return real(self, pixel_values, **more)

        monkeypatch.setattr(tower, "forward", counted)
        assert [r.text for r in answers(model, requests)] == [r.text for r in expected]
        assert seen == [1, 1]
