"""What tests of shared prefixes ask, and the ways in which they have it answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

import tiny
from helpers import picture
from snellen.models.huggingface.prefix_cache.self_check import Findings, Strategy
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.types import Kind, Message, Outcome, Request, ask

TOLERANCE = 1e-4
#: What the self-check is to find, for each architecture of docs/models.md.
WAYS = dict.fromkeys(tiny.ARCHITECTURES, Strategy.PACKED) | {
    "qwen3_5": Strategy.ROWS,
    "paligemma": Strategy.VISION,
    "blip_2": Strategy.PLAIN,
    "instructblip": Strategy.PLAIN,
    "kosmos2": Strategy.PLAIN,
    "florence2": Strategy.PLAIN,
}
SHARING = [name for name, way in WAYS.items() if way in (Strategy.PACKED, Strategy.ROWS)]
#: One of each kind: of how it shares a prefix, and of its cache. Others go the same ways, and
#: test_architectures measures all of them.
KINDS = ("llava", "qwen2_vl", "qwen3_5", "mllama", "gemma3", "paligemma", "blip_2", "florence2")


def of_each_kind(names: Iterable[str]) -> list[Any]:
    """Return names as parameters of a test, those of other kinds for the exhaustive tests."""
    return [name if name in KINDS else pytest.param(name, marks=pytest.mark.exhaustive) for name in names]


def forced(
    model: VisionLanguageModel, way: Strategy, images: int = 1, batch_size: int = 16, **found: Any
) -> VisionLanguageModel:
    """A model that takes this way, so many images at once."""
    sharing = model.sharing
    sharing.findings = sharing.found = Findings(way, 0.0, {}, **found)
    sharing.images, sharing.prompt_tokens = images, 10**6
    model.batch_size = batch_size
    return model


def answers(model, requests):
    found = asyncio.run(model.respond(requests))
    assert {r.outcome for r in found} <= {Outcome.OK, Outcome.TRUNCATED}, found
    return found


NAMES = ("cat", "car", "car tyre", "car tyre dog", "x", "a much longer name, " * 4, "cat", "猫")


def ragged(kind: Kind = Kind.GENERATE, colors=("red", "blue", "white")) -> list[Request]:
    """Of each image: suffixes of one token and of a hundred, one that begins another, two that are equal,
    one without an image and one with two, one that shares not even its first word."""
    found = []
    for i, color in enumerate(colors):
        image = (picture(color, (90, 40) if i % 2 else (48, 48)),)
        texts = [
            "What is it?",
            "What is it",
            "What is it? " * 30,
            "What is it?",
            "Is it a cat?",
            "Is it a dog?",
        ]
        requests = [ask(image, text, kind=kind, max_tokens=7) for text in texts]
        odd = replace(requests[0], messages=(Message("user", ("Look: ", *image, "What is it?")),))
        begun = replace(requests[0], messages=(*requests[0].messages, Message("assistant", ("It is a",))))
        requests += [odd, begun, ask((), "What is it?", kind=kind, max_tokens=7)]
        requests += [ask((*image, picture("green")), t, kind=kind, max_tokens=7) for t in texts[:2]]
        found += requests
    if kind is Kind.SCORE:
        found = [replace(request, continuations=NAMES) for request in found]
    return found


def scores(responses) -> torch.Tensor:
    return torch.tensor([[s.value for s in r.scores] for r in responses], dtype=torch.float64)
