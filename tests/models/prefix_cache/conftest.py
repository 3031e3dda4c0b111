"""What the tests of shared prefixes share."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from helpers import made
from sharing import SHARING, of_each_kind
from snellen.models.huggingface.vlm import VisionLanguageModel


@pytest.fixture(scope="module", params=of_each_kind(SHARING))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name, tmp_path_factory) -> Path:
    return tiny.save(name, tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def plain(folder) -> VisionLanguageModel:
    return made(VisionLanguageModel, f"hf:{folder}?prefix=off")
