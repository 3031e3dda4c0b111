"""Every architecture that transformers has is tested, refused, or known to be untested."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from transformers.models.auto import modeling_auto

import measures
from helpers import made
from snellen.errors import ModelError
from snellen.models.base import MODELS
from snellen.models.huggingface.architectures import REFUSED
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.types import Kind

TOLERANCE = 1e-4
needs_torchvision = pytest.mark.skipif(
    find_spec("torchvision") is None, reason="their processors need torchvision (make test-vision)"
)
#: Model types with tiny checkpoints in tests/tiny.py and tests/zoo.py.
TESTED = {
    *("aria", "aya_vision", "blip", "blip-2", "chameleon", "cohere2_vision", "deepseek_vl"),
    *("deepseek_vl_hybrid", "emu3", "florence2", "gemma3", "gemma3n", "gemma4", "git", "glm46v", "glm4v"),
    *("glm4v_moe", "phi4_multimodal"),
    *("idefics", "idefics2", "idefics3", "instructblip", "internvl", "janus", "kimi_k25", "kosmos-2"),
    *("lfm2_vl", "llama4", "llava", "llava_next", "llava_next_video", "llava_onevision", "minicpmv4_6"),
    *("mistral3", "mllama", "molmo2", "ovis2", "paligemma", "perception_lm", "qwen2_5_vl", "qwen2_vl"),
    *("qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe", "smolvlm", "video_llama_3", "video_llava"),
    "vipllava",
}
#: Those that nobody has tried, but for the self-check that each model goes through: a new release of
#: transformers adds to them.
UNTESTED = {
    *("cohere_compass", "cosmos3_edge", "cosmos3_omni", "deepseek_ocr2", "diffusion_gemma", "dots3_note"),
    *("ernie4_5_vl_moe", "exaone4_5", "fast_vlm", "gemma4_unified", "glm5_next", "glm_ocr"),
    *("glmga", "granite4_vision", "granite_docling", "hunyuan_vl", "hyperclovax_vision_v2", "inkling2"),
    *("inkling_mm_model", "instructblipvideo", "lfm3_vl", "lighton_ocr", "minicpm_ocr", "minicpmv4_7"),
    *("minimax_m3_vl", "mistral4", "mistral_large4", "muse_glimmer", "muse_spark", "nemotron_h_omni"),
    *("paddleocr_vl", "pp_chart2table", "pp_formulanet", "qianfan_ocr"),
    *("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker", "qwen4_exp", "step3p7", "t5gemma2", "udop"),
    "unlimited_ocr",
}
#: Of the larger mapping, those that read no images.
HEAR = {
    *("fun_asr_nano", "glmasr", "granite_speech", "granite_speech_plus", "kyutai_speech_to_text"),
    *("moss_transcribe_diarize", "nemo_speechlm", "qwen2_5_omni", "qwen2_audio", "qwen3_asr"),
    *("qwen3_omni_moe", "vibevoice_asr", "voxtral", "voxtral_realtime"),
}


def test_each_model_type_is_tested_refused_or_known_not_to_be():
    known = {
        *modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    }
    assert known - TESTED - UNTESTED - HEAR == set(REFUSED)
    assert not TESTED & UNTESTED
    assert not (TESTED | UNTESTED) - known


@pytest.mark.parametrize("kind", REFUSED)
def test_what_answers_no_questions_is_refused_before_it_is_loaded(tmp_path, kind, monkeypatch):
    from types import SimpleNamespace

    from snellen.models.huggingface.checkpoint import Checkpoint

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(Checkpoint, "config", lambda _: SimpleNamespace(model_type=kind))
    with pytest.raises(ModelError, match=f"the type {kind} are refused: "):
        MODELS.make(f"hf:{tmp_path}")


def architectures():
    if find_spec("torchvision") is None:
        return ["none"]
    import zoo

    return list(zoo.ZOO)


@needs_torchvision
@pytest.mark.slow
@pytest.mark.parametrize("name", architectures())
def test_answers_are_exact(name, tmp_path):
    """Of batches, of shared computation, and against brute force; and each protocol runs."""
    folder = measures.saved(name, tmp_path / "checkpoint")
    found = measures.measure(folder, tmp_path / "workspace")
    if found.refused:
        assert " are refused: " in found.refused
        return
    assert found.errors == []
    assert (found.batch_texts, found.share_texts) == (0, 0)
    for figure in (found.batch_scores, found.brute, found.share_scores):
        assert figure is None or figure < TOLERANCE
    assert found.rendered is not False
    assert not any(found.protocols.values()), found.protocols


@needs_torchvision
@pytest.mark.slow
def test_the_self_check_looks_beyond_chunks(tmp_path):
    """A chunk of 400 tokens, which no short prompt fills."""
    import json

    folder = measures.saved("llama4", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["attention_chunk_size"] = 400
    (folder / "config.json").write_text(json.dumps(config))
    plain = made(VisionLanguageModel, f"hf:{folder}?prefix=off")
    sharing = made(VisionLanguageModel, f"hf:{folder}")
    long = [
        r.__class__(
            tuple(m.__class__(m.role, (*m.content, " cat" * 420)) for m in r.messages),
            kind=r.kind,
            continuations=r.continuations,
        )
        for r in measures.shared(Kind.SCORE)
    ]
    replies = [measures.answers(model, long, 4) for model in (plain, sharing)]
    assert sharing.sharing.way == "packed"
    assert measures.apart(*replies) < TOLERANCE
