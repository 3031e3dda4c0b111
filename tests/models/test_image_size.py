"""Limits of image sizes: what reaches the model, and what the caches know of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import tiny
from helpers import picture
from snellen.datasets.base import DATASETS
from snellen.errors import BadOption
from snellen.models.base import MODELS
from snellen.models.huggingface.image_size import ImageSize
from snellen.types import Kind, Outcome, ask

#: Families by how their processors limit an image, with the limits to try (tiles are of 48 x 48 pixels).
FAMILIES = {
    "qwen2_vl": {"max_pixels": 2304},
    "qwen3_vl": {"min_pixels": 1024, "max_pixels": 2304},
    "llava_next": {"max_pixels": 48 * 96},
    "llava_onevision": {"max_pixels": 48 * 48},
    "internvl": {"max_pixels": 48 * 48},
    "idefics3": {"max_pixels": 48 * 48},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return lambda name: tiny.save(name, tmp_path_factory.mktemp("size") / name)


def tokens(model: Any, side: int = 200) -> int:
    size = model.prompt_size(ask((picture("red", (side, side)),), "What is it?"))
    return int(size.tokens)


def seen(model: Any, request: Any) -> dict[str, tuple[int, ...]]:
    model.load()
    tensors = model.process(model.prompt(request.messages), request.images)
    return {key: tuple(value.shape) for key, value in tensors.items() if key.startswith("pixel")}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_what_processors_offer_changes_what_the_model_sees(family, folder):
    path = folder(family)
    plain = MODELS.make(f"hf:{path}?prefix=off&dtype=float32")
    limited = MODELS.make(f"hf:{path}?prefix=off&dtype=float32", FAMILIES[family])
    assert limited.identity() == {**plain.identity(), **FAMILIES[family]}
    request = ask((picture("red", (200, 200)),), "What is it?", max_tokens=3)
    (reply,) = asyncio.run(limited.respond([request]))
    assert reply.outcome is not Outcome.ERROR, reply.reason
    shapes = [seen(model, request) for model in (plain, limited)]
    assert shapes[0] != shapes[1] or tokens(plain) != tokens(limited)


@pytest.mark.parametrize(
    "text", ["image_size: {max_side: x, max_pixels: -3}", "image_size: [1]", "image_size:", "- 1", "a: [", ""]
)
def test_a_manifest_that_makes_no_sense_sets_no_limits(text, tmp_path):
    (tmp_path / "tuning.yaml").write_text(text)
    assert ImageSize.recorded(tmp_path).identity() == {}


@pytest.mark.slow
def test_what_does_not_offer_it_is_refused(folder):
    model = MODELS.make(f"hf:{folder('llava')}", {"max_pixels": 1000})
    with pytest.raises(BadOption, match="offers no min_pixels and max_pixels.*max_side=N"):
        model.load()
    with pytest.raises(BadOption, match="offers no min_pixels"):
        MODELS.make(f"hf:{folder('gemma3')}", {"max_pixels": 10_000}).load()
    with pytest.raises(BadOption, match="no grid of .* it has 4,608, 4,608, 9,216"):
        MODELS.make(f"hf:{folder('llava_next')}", {"max_pixels": 10}).load()


@pytest.mark.parametrize("name", ["pico:llava", "pico:clip", "pico:classifier"])
def test_max_side_of_every_local_model(name):
    model, small = MODELS.make(name), MODELS.make(f"{name}?max_side=8")
    assert small.identity() == {**model.identity(), "max_side": 8}
    kind = Kind.SCORE
    names = ("star", "ring", "key")
    detailed = DATASETS.make("chart:shapes?n=28").sample(0, (), None).images[0]
    request = ask((detailed,), "Which?", kind=kind, continuations=names)
    scores = [[s.value for s in asyncio.run(m.respond([request]))[0].scores] for m in (model, small)]
    assert scores[0] != scores[1]


def test_limits():
    size = ImageSize(max_side=100)
    assert size.pixels(picture("red", (300, 300))).size == (100, 100)
    assert size.pixels(picture("red", (50, 50))).size == (50, 50)
    assert size.identity() == {"max_side": 100}
    for wrong in ({"max_side": 0}, {"max_pixels": -1}, {"min_pixels": 5, "max_pixels": 4}):
        with pytest.raises(BadOption):
            ImageSize(**wrong)
