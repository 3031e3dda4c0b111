"""Dual encoders and classifiers, on tiny checkpoints: against the formulas."""

from __future__ import annotations

import asyncio
import json
import math

import pytest
import torch
import transformers as hf

import tiny
from helpers import made, picture
from snellen.errors import BadOption, DataError, ModelError
from snellen.models.base import MODELS
from snellen.models.classifier import match
from snellen.models.dual_encoder import DualEncoder
from snellen.types import Kind, Message, Request, ask

NAMES = ("cat", "polar bear", "car")
COLORS = ("red", "green", "blue", "white", "black")


def requests(names=NAMES):
    return [ask((picture(c),), "?", kind=Kind.SCORE, continuations=tuple(names)) for c in COLORS]


def values(model, asked, batch_size=16):
    model.batch_size = batch_size
    found = asyncio.run(model.respond(asked))
    assert not any(r.reason for r in found), found
    assert all(s.tokens == 0 for r in found for s in r.scores)
    return torch.tensor([[s.value for s in r.scores] for r in found], dtype=torch.float64)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    from snellen.models.pico import WEIGHTS

    return WEIGHTS / "clip"


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory):
    torch.manual_seed(0)
    tok = tiny.tokenizer()
    tok.model_max_length = 64
    text = {k: v for k, v in tiny.TEXT.items() if k not in ("num_key_value_heads", "max_position_embeddings")}
    text |= {"vocab_size": len(tok), "hidden_size": 32, "projection_size": 32, "max_position_embeddings": 64}
    model = hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=tiny.VISION))
    folder = tmp_path_factory.mktemp("siglip")
    model.save_pretrained(folder)
    hf.SiglipProcessor(tiny.reads("siglip", "SiglipImageProcessor", size=tiny.SIDE), tok).save_pretrained(
        folder
    )
    return folder


def test_clip_ranks_by_cosine(clip_folder):
    model = made(DualEncoder, f"clip:{clip_folder}")
    found = values(model, requests())
    reference = hf.CLIPModel.from_pretrained(clip_folder, dtype=torch.float32)
    processor = hf.AutoProcessor.from_pretrained(clip_folder)
    inputs = processor(
        text=[f"a photo of a {n}" for n in NAMES],
        images=[picture(c).pixels for c in COLORS],
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        logits = reference(**inputs).logits_per_image / reference.logit_scale.exp()
    assert torch.allclose(found, logits.double(), atol=1e-5)


def test_siglip_ranks_by_cosine(siglip_folder):
    found = values(MODELS.make(f"clip:{siglip_folder}"), requests())
    reference = hf.SiglipModel.from_pretrained(siglip_folder)
    processor = hf.AutoProcessor.from_pretrained(siglip_folder)
    inputs = processor(
        text=[f"a photo of a {n}" for n in NAMES],
        images=[picture(c).pixels for c in COLORS],
        padding="max_length",
        return_tensors="pt",
    )
    with torch.no_grad():
        logits = reference(**inputs).logits_per_image
        cosines = (logits - reference.logit_bias) / reference.logit_scale.exp()
    assert torch.allclose(found, cosines.double(), atol=1e-5)


def test_templates_are_averaged_as_unit_vectors(clip_folder):
    texts = ("a {}", "a photo of a {}", "a red {}")
    single = [made(DualEncoder, f"clip:{clip_folder}", {"template": t}) for t in texts]
    both = made(DualEncoder, f"clip:{clip_folder}", {"template": "|".join(texts)})
    both.load()
    vectors = []
    for model in single:
        model.load()
        vectors.append(model.text_features(NAMES))
    mean = sum(vectors) / len(vectors)
    assert torch.allclose(both.text_features(NAMES), mean / mean.norm(dim=-1, keepdim=True), atol=1e-6)
    assert both.identity() != single[0].identity()
    with pytest.raises(BadOption, match="template='a photo'"):
        MODELS.make(f"clip:{clip_folder}?template=a photo")


def test_the_ensemble_of_the_clip_paper(clip_folder):
    model = made(DualEncoder, f"clip:{clip_folder}?template=imagenet")
    assert len(model.templates) == len(set(model.templates)) == 80
    assert all(t.count("{}") == 1 for t in model.templates)
    assert values(model, requests()).isfinite().all()


def test_text_features_are_computed_once(clip_folder, monkeypatch):
    model = made(DualEncoder, f"clip:{clip_folder}")
    calls = []
    real = type(model).embed
    monkeypatch.setattr(
        type(model), "embed", lambda self, texts: calls.append(len(texts)) or real(self, texts)
    )
    values(model, requests() * 3, batch_size=4)
    values(model, requests(("cat", "dog")), batch_size=4)
    assert calls == [3, 1]  # of the second list, one name is new


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory):
    torch.manual_seed(0)
    labels = ["tabby, Cat", "polar_bear", "ice bear, polar bear", "dog"]
    config = hf.ViTConfig(
        **tiny.VISION,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("vit")
    hf.ViTForImageClassification(config).save_pretrained(folder)
    tiny.reads("vit", "ViTImageProcessor", size=tiny.SIDE).save_pretrained(folder)
    return folder


def test_a_classifiers_labels_are_mapped_by_name(classifier_folder):
    model = MODELS.make(f"classifier:{classifier_folder}")
    found = values(model, requests())
    reference = hf.ViTForImageClassification.from_pretrained(classifier_folder)
    processor = hf.AutoImageProcessor.from_pretrained(classifier_folder)
    with torch.no_grad():
        pixels = processor([picture(c).pixels for c in COLORS], return_tensors="pt")
        chances = reference(**pixels).logits.double().softmax(-1)
    assert torch.allclose(found[:, 0].exp(), chances[:, 0])
    assert torch.allclose(found[:, 1].exp(), chances[:, 1] + chances[:, 2])  # two labels mean it
    assert (found[:, 2] == -math.inf).all()
    assert model.metadata()["unmapped_classes"] == ["car"]


def test_a_mapping_file(classifier_folder, tmp_path):
    table = tmp_path / "mapping.json"
    table.write_text(json.dumps({"car": ["dog"], "cat": "tabby"}))
    model = MODELS.make(f"classifier:{classifier_folder}?mapping={table}")
    found = values(model, requests())
    assert torch.isfinite(found).all()
    assert model.metadata()["unmapped_classes"] == []
    for text in ("[]", "{", '{"a": 3}'):
        table.write_text(text)
        with pytest.raises(DataError, match="expected a JSON file"):
            MODELS.make(f"classifier:{classifier_folder}?mapping={table}")
    with pytest.raises(DataError, match="none.json"):
        MODELS.make(f"classifier:{classifier_folder}?mapping=none.json")


def test_match():
    own = {0: "hot dog, frankfurter", 1: "Dog", 2: "T-shirt"}
    assert match(["dog", "frankfurter", "t shirt", "cat"], own, {}) == [[1], [0], [2], []]


@pytest.mark.parametrize("kind", ["clip", "classifier"])
def test_no_checkpoint_of_this_kind(kind, classifier_folder, clip_folder):
    with pytest.raises(ModelError):
        MODELS.make(f"{kind}:./nowhere")


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batches_change_nothing(clip_folder, classifier_folder, size):
    for name in (f"clip:{clip_folder}", f"classifier:{classifier_folder}"):
        whole, parts = values(MODELS.make(name), requests()), values(MODELS.make(name), requests(), size)
        assert torch.allclose(whole, parts, atol=1e-5)


def test_the_frames_of_a_video_are_averaged(clip_folder):
    """Of several images, not only the last counts; one alone is what it was."""
    model = MODELS.make(f"clip:{clip_folder}")

    def ask_of(*colors: str) -> Request:
        return ask(tuple(picture(c) for c in colors), "?", kind=Kind.SCORE, continuations=NAMES)

    red, blue, both = values(model, [ask_of("red"), ask_of("blue"), ask_of("red", "blue")])
    assert torch.allclose(values(model, [ask_of("red", "red")])[0], red, atol=1e-5)
    mean = (red + blue) / 2
    assert torch.allclose(both / both.norm(), mean / mean.norm(), atol=1e-4)
    assert not torch.allclose(both, blue, atol=1e-4)


def test_names_that_are_cut_are_reported(clip_folder, caplog):
    model = MODELS.make(f"clip:{clip_folder}")
    long = "a very long name of a class that goes on and on and on and on and on and on and on and on and on"
    names = ("cat", f"{long} one", f"{long} two")
    values(model, requests(names))
    assert "2 class names are longer than the 32 tokens that it reads" in caplog.text
    assert f"It cannot tell these apart: {long} one = {long} two" in caplog.text
    facts = model.metadata()
    assert facts["names_cut"] == [names[1], names[2]]
    assert facts["names_alike"] == [[names[1], names[2]]]
    short = MODELS.make(f"clip:{clip_folder}")
    values(short, requests())
    assert "names_cut" not in short.metadata()


def test_the_images_of_a_question_that_the_assistant_begins_to_answer(clip_folder):
    """As with ``rank?prefix=``: the last message has no image."""
    model = MODELS.make(f"clip:{clip_folder}")
    plain = ask((picture("red"),), "?", kind=Kind.SCORE, continuations=NAMES)
    begun = Request((*plain.messages, Message("assistant", ("It is a",))), Kind.SCORE, continuations=NAMES)
    assert begun.shown == plain.shown
    assert torch.equal(values(model, [begun]), values(model, [plain]))
