"""Features of many images are those of each alone."""

from __future__ import annotations

import pytest
import torch

import tiny
from helpers import made, picture
from snellen.errors import Unsupported
from snellen.models.huggingface.features import batched, features
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.types import ask

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_a_batch_changes_nothing(name, tmp_path):
    model = made(VisionLanguageModel, f"hf:{tiny.save(name, tmp_path, scale=1.0)}")
    sizes = [(48, 48), (90, 40), (48, 48), (48, 48), (90, 40)]
    colors = ("red", "blue", "white", "green", "black")
    requests = [ask((picture(c, s),), "What is it?") for c, s in zip(colors, sizes, strict=True)]
    try:
        alone = [features(model, request, "all") for request in requests]
    except Unsupported:
        with pytest.raises(Unsupported, match="does not expose hidden states"):
            batched(model, requests, "all")
        return
    passes = []
    model.decoder.register_forward_pre_hook(lambda *_: passes.append(1))
    together = batched(model, requests, "all")
    for one, other in zip(alone, together, strict=True):
        assert one.keys() == other.keys()
        for place, vector in one.items():
            assert torch.allclose(vector, other[place], rtol=1e-4, atol=1e-5), place
    red, _, white = together[:3]
    assert any(not torch.allclose(red[place], white[place], atol=1e-3) for place in red), "images are seen"
    if name in ("llava", "qwen2_vl", "internvl", "smolvlm"):
        assert len(passes) == 2, "one pass for each size"


def test_in_passes_that_fit(tmp_path, monkeypatch):
    model = made(VisionLanguageModel, f"hf:{tiny.save('llava', tmp_path)}")
    model.load()
    real = model.decoder.forward
    counts = []

    def small(*given, **named):
        counts.append(len(named["input_ids"]))
        if counts[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*given, **named)

    monkeypatch.setattr(model.decoder, "forward", small)
    requests = [ask((picture(color),), "What?") for color in ("red", "blue", "white", "green", "black")]
    found = batched(model, requests)
    assert len(found) == 5
    assert counts[-1] <= 2
    monkeypatch.setattr(model.decoder, "forward", real)
    for one, request in zip(found, requests, strict=True):
        for place, vector in features(model, request).items():
            assert torch.allclose(vector, one[place], rtol=1e-4, atol=1e-5)
