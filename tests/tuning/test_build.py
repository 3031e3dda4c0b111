"""Models put together from parts: what they hold, where images stand, and that they learn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BertConfig,
    BertModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    LlamaConfig,
    LlamaForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from typer.testing import CliRunner

import tiny
from helpers import made, picture
from snellen.api import run
from snellen.cli import app
from snellen.datasets.base import DATASETS, select
from snellen.errors import BadOption, ModelError, Unsupported, UsageError
from snellen.models.base import MODELS
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.tuning import Tuning
from snellen.tuning.build import build
from snellen.types import Outcome, ask

pytestmark = pytest.mark.slow

runner = CliRunner()
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """Encoders and decoders of real architectures, tiny and random."""
    top = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    tok = tiny.tokenizer()
    for tied in (True, False):
        config = LlamaConfig(vocab_size=len(tok), tie_word_embeddings=tied, **tiny.TEXT)
        folder = top / ("tied" if tied else "untied")
        LlamaForCausalLM(config).save_pretrained(folder)
        tok.chat_template = CHAT if tied else None
        tok.save_pretrained(folder)
    small = {**tiny.VISION, "image_size": 32, "patch_size": 8}
    square = {"height": 32, "width": 32}
    siglip = tiny.reads("siglip", "SiglipImageProcessor", size=square)
    SiglipVisionModel(SiglipVisionConfig(**small, vision_use_head=False)).save_pretrained(top / "siglip")
    siglip.save_pretrained(top / "siglip")
    plain = {k: v for k, v in small.items() if k != "intermediate_size"}
    Dinov2Model(Dinov2Config(**plain)).save_pretrained(top / "dinov2")
    siglip.save_pretrained(top / "dinov2")
    registers = Dinov2WithRegistersConfig(**plain, num_register_tokens=3)
    Dinov2WithRegistersModel(registers).save_pretrained(top / "registers")
    siglip.save_pretrained(top / "registers")
    BertModel(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(
        top / "bert"
    )
    tok.save_pretrained(top / "bert")
    return top


@pytest.mark.parametrize("decoder", ["tied", "untied"])
@pytest.mark.parametrize(("encoder", "tokens"), [("siglip", 16), ("dinov2", 16), (None, 16)])
def test_the_halves_are_in_it(parts, tmp_path, encoder, tokens, decoder):
    """Weight by weight; and a text without an image is read as the decoder alone reads it."""
    vision = None if encoder is None else f"hf:{parts / encoder}"
    more: dict[str, Any] = {"image_size": 32, "patch": 8} if encoder is None else {}
    found = build(f"hf:{parts / decoder}", tmp_path / "out", vision=vision, **more)
    assert found.tokens == tokens
    assert found.template == ("decoder" if decoder == "tied" else "plain")
    model = AutoModelForImageTextToText.from_pretrained(found.folder)
    alone = LlamaForCausalLM.from_pretrained(parts / decoder)
    own, theirs = model.model.language_model.state_dict(), alone.model.state_dict()
    for key, value in theirs.items():
        assert torch.equal(own[key][: len(value)], value), key  # a row more for <image>
    ids = torch.tensor([[5, 9, 17, 4]])
    with torch.inference_mode():
        wide, narrow = (one(input_ids=ids).logits for one in (model, alone))
    torch.testing.assert_close(wide[..., : narrow.shape[-1]], narrow)
    if encoder == "siglip":
        tower = SiglipVisionModel.from_pretrained(parts / "siglip").state_dict()
        mine = model.model.vision_tower.state_dict()
        assert all(torch.equal(mine[key], value) for key, value in tower.items())


def test_the_decoders_way_to_end_its_turns_is_kept(parts, tmp_path):
    """Such as Gemma's: its turns end with a token that its tokenizer does not call the end of a text."""
    from transformers import AutoTokenizer, GenerationConfig

    decoder = tmp_path / "decoder"
    shutil.copytree(parts / "tied", decoder)
    end = AutoTokenizer.from_pretrained(decoder).eos_token_id
    GenerationConfig(eos_token_id=[7, 9], do_sample=True, top_k=5).save_pretrained(decoder)
    found = build(f"hf:{decoder}", tmp_path / "out", vision=f"hf:{parts / 'siglip'}")
    kept = GenerationConfig.from_pretrained(found.folder)
    assert kept.eos_token_id == [7, 9, end]
    assert (kept.do_sample, kept.top_k) == (True, 5)


def test_registers_are_read_like_patches_and_that_is_said(parts, tmp_path, caplog):
    found = build(f"hf:{parts / 'tied'}", tmp_path / "out", vision=f"hf:{parts / 'registers'}")
    assert found.tokens == 16 + 3
    assert "it returns 3 that are no patches (registers)" in caplog.text
    model = made(VisionLanguageModel, f"hf:{found.folder}")
    (reply,) = model.answer([ask((picture(),), "What is it?", max_tokens=2)])
    assert reply.outcome in (Outcome.OK, Outcome.TRUNCATED)


def test_without_an_encoder_the_projector_sees_the_pixels(parts, tmp_path):
    """What goes into it is, patch by patch, what the image processor made."""
    build(f"hf:{parts / 'tied'}", tmp_path / "out", image_size=32, patch=8)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    seen = []
    model.model.multi_modal_projector.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    pixels = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        model.get_image_features(pixel_values=pixels, vision_feature_layer=-2)
    patches = pixels.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(1, 16, 3 * 64)
    torch.testing.assert_close(seen[0], patches)


def test_images_stand_in_the_decoders_own_template(parts, tmp_path):
    build(f"hf:{parts / 'tied'}", tmp_path / "out", vision=f"hf:{parts / 'siglip'}")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {"role": "user", "content": "Sure?"},
    ]
    told = processor.apply_chat_template(turns, add_generation_prompt=True)
    assert told == "<user><image>\nWhat?</s><assistant>A cat.</s><user>Sure?</s><bot>"


@pytest.mark.exhaustive
def test_it_can_be_examined_and_learns(tmp_path):
    """The built-in encoder and decoder, joined anew: from guessing to seeing in a few steps."""
    out = tmp_path / "built"
    build("pico:llava", out, vision="pico:clip", layer=-1, select="full")
    assert isinstance(MODELS.make(f"hf:{out}"), VisionLanguageModel)
    blind = run(model=f"hf:{out}", data="chart:shapes?n=28", workspace=tmp_path / "ws")
    assert blind.metrics["accuracy"].value < 0.3
    found = Tuning(
        model=f"hf:{out}",
        data="chart:shapes?n=56",
        out=tmp_path / "out",
        recipe="projector",
        retention_data=("chart:shapes?ask=color&n=8",),
        train_limit=560,
        settings={"max_steps": 45, "eval_steps": 45, "per_device_train_batch_size": 16},
        workspace=tmp_path / "ws",
    ).run()
    assert found.results[0].paired.difference.low > 0.1


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ({"language": "hf:{parts}/tied", "vision": "hf:{parts}/bert"}, Unsupported, "patch_size"),
        ({"language": "hf:{parts}/bert", "vision": "hf:{parts}/siglip"}, Unsupported, "similar to Llama"),
        ({"language": "hf:{parts}/tied", "vision": "hf:{parts}/nothing"}, ModelError, "no such"),
        ({"language": "hf:{parts}/tied", "image_size": 100, "patch": 16}, BadOption, "divide"),
        ({"language": "hf:{parts}/tied", "vision": "hf:{parts}/siglip", "layer": 9}, BadOption, "2 layers"),
        ({"language": "hf:{parts}/tied?device=cpu"}, BadOption, "options"),
    ],
)
def test_what_does_not_go_together(parts, tmp_path, words, error, said):
    words = {k: v.format(parts=parts) if isinstance(v, str) else v for k, v in words.items()}
    with pytest.raises(error, match=said):
        build(words.pop("language"), tmp_path / "out", **words)
    assert not (tmp_path / "out").exists()


def test_the_command(parts, tmp_path):
    words = (
        f"build --language hf:{parts / 'tied'} --vision hf:{parts / 'siglip'} -o {tmp_path / 'out'}".split()
    )
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "projector: " in done.output
    assert "untrained" in done.output
    assert "--recipe two-stage" in done.output
    again = runner.invoke(app, words)
    assert isinstance(again.exception, UsageError)
    other = runner.invoke(app, [*words[:-1], str(tmp_path / "b"), "--json"])
    assert json.loads(other.output)["image_tokens"] == 16


class TestStreaming:
    @pytest.mark.parametrize("family", ["llava", "qwen2_vl", "idefics3", "florence2"])
    def test_pieces_make_the_answer(self, family, tmp_path):
        from snellen._util.asyncio import complete
        from snellen.types import Decoding, Request

        model = made(VisionLanguageModel, f"hf:{tiny.save(family, tmp_path, scale=1.0)}?prefix=off")
        one = select(DATASETS.make("chart:shapes?n=1"))[0]
        request = Request(ask(one.images, "What is it?").messages, decoding=Decoding(max_tokens=12))
        (whole,) = complete(model.respond([request]))
        stream, pieces = model.stream(request), []
        try:
            while True:
                pieces.append(next(stream))
        except StopIteration as end:
            reply = end.value
        assert (reply.text, reply.outcome) == (whole.text, whole.outcome)
        assert reply.completion_tokens == whole.completion_tokens
        if family != "florence2":  # places are special tokens there, which stream as nothing
            assert "".join(pieces).strip() == whole.text
        model.close()

    def test_it_can_be_stopped(self, tmp_path):
        from snellen._util.asyncio import complete
        from snellen.types import Decoding, Request

        model = made(VisionLanguageModel, f"hf:{tiny.save('llava', tmp_path)}?prefix=off")
        model.load()
        model.own_config.eos_token_id = None  # it would never end
        steps = []
        model.decoder.register_forward_hook(lambda *_: steps.append(1))
        one = select(DATASETS.make("chart:shapes?n=1"))[0]
        request = Request(ask(one.images, "What?").messages, decoding=Decoding(max_tokens=1500))
        stream = model.stream(request)
        next(stream)
        stream.close()
        assert len(steps) < 1000
        (next_one,) = complete(model.respond([Request(request.messages, decoding=Decoding(max_tokens=2))]))
        assert next_one.completion_tokens == 2  # nobody waits for what was stopped

    def test_a_failure_is_told(self, tmp_path):
        from snellen.types import Decoding, Outcome, Request

        model = made(VisionLanguageModel, f"hf:{tiny.save('llava', tmp_path)}?prefix=off")
        request = Request(ask([], "x" * 9000).messages, decoding=Decoding(max_tokens=4))
        stream = model.stream(request)
        with pytest.raises(StopIteration) as end:
            next(stream)
        assert end.value.value.outcome is Outcome.ERROR
        assert "context" in end.value.value.reason
