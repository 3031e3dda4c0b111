"""Saved weights have the names that vLLM and older versions of transformers read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from snellen.models.pico import WEIGHTS
from snellen.tuning.layout import for_servers

pytestmark = pytest.mark.slow


def test_the_names_are_those_of_the_hub_and_the_weights_the_same(tmp_path: Path):
    from transformers import AutoModelForImageTextToText

    folder = Path(shutil.copytree(WEIGHTS / "llava", tmp_path / "llava"))
    before = AutoModelForImageTextToText.from_pretrained(folder).state_dict()
    for_servers(folder)
    names = set(load_file(folder / "model.safetensors"))
    assert "vision_tower.vision_model.embeddings.class_embedding" in names
    assert not any(name.startswith("vision_tower.embeddings") for name in names)
    after = AutoModelForImageTextToText.from_pretrained(folder).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    for_servers(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp


def test_shards_and_their_index(tmp_path: Path):
    folder = Path(shutil.copytree(WEIGHTS / "llava", tmp_path / "llava"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {"model-1.safetensors": sorted(weights)[::2], "model-2.safetensors": sorted(weights)[1::2]}
    for file, names in shards.items():
        save_file({name: weights[name] for name in names}, folder / file, {"format": "pt"})
    index = {"weight_map": {name: file for file, names in shards.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for_servers(folder)
    mapped = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert all(name in load_file(folder / file) for name, file in mapped.items())
    assert sum("vision_model" in name for name in mapped) > 10


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_architecture_reads_what_is_left(architecture, tmp_path: Path):
    """Renamed or not, all its weights are the same."""
    from snellen.models.base import MODELS
    from snellen.models.huggingface.vlm import VisionLanguageModel

    def weights() -> dict[str, torch.Tensor]:
        model = MODELS.make(f"hf:{folder}")
        assert isinstance(model, VisionLanguageModel)
        model.load()
        return dict(model.decoder.state_dict())

    folder = tiny.save(architecture, tmp_path)
    before = weights()
    for_servers(folder)
    after = weights()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
