"""Tiny random checkpoints of more architectures, whose processors need torchvision.

Each is one function, which returns a model and its processor, as in :mod:`tiny`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import transformers as hf

import tiny
from tiny import (
    BOS,
    CLIP,
    EOS,
    GRID,
    PAD,
    SIDE,
    SIGLIP,
    TEXT,
    VISION,
    reads,
    template,
    text,
    tokenizer,
    video,
)

ZOO: dict[str, Callable[[], tuple[Any, Any]]] = {}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}


def zoo(build: Callable[[], Any]) -> Callable[[], Any]:
    ZOO[build.__name__] = build
    return build


def cls(family: str, name: str) -> Any:
    return getattr(import_module(f"transformers.models.{family}.modeling_{family}"), name)


def cls_p(family: str, name: str) -> Any:
    return getattr(import_module(f"transformers.models.{family}.processing_{family}"), name)


def ids(tok: Any, *names: str) -> Any:
    return tok.convert_tokens_to_ids(list(names))


def pix(model_type="pixtral") -> Any:
    return {
        "model_type": "pixtral",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 96,
        "patch_size": 8,
    }


@zoo
def pixtral_llava() -> Any:
    """mistral-community/pixtral-12b: LlavaForConditionalGeneration over a Pixtral tower, PixtralProcessor."""
    tok = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    c = hf.LlavaConfig(
        vision_config=pix(),
        text_config=text("mistral", len(tok), head_dim=32),
        image_token_index=ids(tok, "[IMG]")[0],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    p = hf.PixtralProcessor(
        reads(
            "pixtral",
            "PixtralImageProcessor",
            size={"longest_edge": 96},
            patch_size={"height": 8, "width": 8},
        ),
        tok,
        patch_size=8,
        chat_template=template("[IMG]"),
    )
    return hf.LlavaForConditionalGeneration(c), p


@zoo
def mistral3() -> Any:
    tok = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    c = hf.Mistral3Config(
        vision_config=pix(),
        text_config=text("mistral", len(tok), head_dim=32),
        image_token_index=ids(tok, "[IMG]")[0],
        vision_feature_layer=-1,
        spatial_merge_size=2,
    )
    p = hf.PixtralProcessor(
        reads(
            "pixtral",
            "PixtralImageProcessor",
            size={"longest_edge": 96},
            patch_size={"height": 8, "width": 8},
        ),
        tok,
        patch_size=8,
        spatial_merge_size=2,
        chat_template=template("[IMG]"),
    )
    return hf.Mistral3ForConditionalGeneration(c), p


@zoo
def fuyu() -> Any:
    tok = tokenizer("|SPEAKER|", "|NEWLINE|", "<0x00>", "<0x01>", "<0x02>", "<0x03>", "<0x04>")
    c = hf.FuyuConfig(
        image_size=60,
        patch_size=30,
        text_config={
            "model_type": "persimmon",
            "vocab_size": len(tok),
            **{k: v for k, v in TEXT.items() if k != "num_key_value_heads"},
        },
        image_token_id=ids(tok, "|SPEAKER|")[0],
        vocab_size=len(tok),
        hidden_size=64,
    )
    p = hf.FuyuProcessor(reads("fuyu", "FuyuImageProcessor", size={"height": 120, "width": 120}), tok)
    return hf.FuyuForCausalLM(c), p


@zoo
def lfm2_vl() -> Any:
    rows = [f"<|img_row_{i}_col_{j}|>" for i in range(1, 4) for j in range(1, 4)]
    tok = tokenizer("<|image_start|>", "<|image_end|>", "<|img_thumbnail|>", *rows, image_token="<image>")
    c = hf.Lfm2VlConfig(
        vision_config={
            "model_type": "siglip2_vision_model",
            **{k: v for k, v in VISION.items() if k != "image_size"},
            "num_patches": 64,
            "vision_use_head": False,
        },
        text_config=text(
            "lfm2",
            len(tok),
            num_hidden_layers=3,
            layer_types=["conv", "full_attention", "conv"],
            block_multiple_of=16,
        ),
        image_token_id=tok.image_token_id,
        projector_hidden_size=64,
        downsample_factor=2,
    )
    p = hf.Lfm2VlProcessor(
        reads(
            "lfm2_vl",
            "Lfm2VlImageProcessor",
            encoder_patch_size=8,
            tile_size=48,
            min_image_tokens=4,
            max_image_tokens=9,
            max_tiles=4,
            size={"height": 48, "width": 48},
        ),
        tok,
        chat_template=template("<image>"),
    )
    return hf.Lfm2VlForConditionalGeneration(c), p


def _qwenlike(config, model, processor, vision, textextra=None, patch=8, **more) -> Any:
    names = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tok = tokenizer(*names)
    start, end, image, movie = ids(tok, *names)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    c = config(
        text_config={"vocab_size": len(tok), **TEXT, "rope_parameters": rope, **(textextra or {})},
        vision_config={"num_heads": 2, "patch_size": patch, **vision},
        image_token_id=image,
        video_token_id=movie,
        vision_start_token_id=start,
        vision_end_token_id=end,
        **more,
    )
    ip = reads(
        "qwen2_vl",
        "Qwen2VLImageProcessor",
        patch_size=patch,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 32 * 32, "longest_edge": 96 * 96},
    )
    vp = video("qwen3_vl", "Qwen3VLVideoProcessor")
    return model(c), processor(
        ip, tok, vp, chat_template=template("<|vision_start|><|image_pad|><|vision_end|>", space=False)
    )


V3 = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 64,
    "out_hidden_size": 64,
    "num_position_embeddings": 144,
    "deepstack_visual_indexes": [0, 1],
}


@zoo
def qwen3_vl_moe() -> Any:
    return _qwenlike(
        hf.Qwen3VLMoeConfig,
        hf.Qwen3VLMoeForConditionalGeneration,
        hf.Qwen3VLProcessor,
        V3,
        {
            "head_dim": 32,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "decoder_sparse_step": 1,
        },
    )


def _q35(**more) -> Any:
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
        "partial_rotary_factor": 0.25,
    }
    return {
        "num_hidden_layers": 4,
        "head_dim": 32,
        "rope_parameters": rope,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        **more,
    }


V35 = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "out_hidden_size": 64,
    "num_position_embeddings": 144,
}


@zoo
def qwen3_5_moe() -> Any:
    return _qwenlike(
        hf.Qwen3_5MoeConfig,
        hf.Qwen3_5MoeForConditionalGeneration,
        hf.Qwen3VLProcessor,
        V35,
        _q35(
            num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32
        ),
    )


def _glm(config, model, processor, ip, vp, textextra=None) -> Any:
    names = (
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|image|>",
        "<|video|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    )
    tok = tokenizer(*names)
    a, b, im, vi, bv, ev = ids(tok, *names)
    c = config(
        text_config={
            "vocab_size": len(tok),
            **TEXT,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
                "partial_rotary_factor": 1.0,
            },
            **(textextra or {}),
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "image_size": 48,
            "patch_size": 8,
            "out_hidden_size": 64,
            "intermediate_size": 64,
        },
        image_token_id=im,
        video_token_id=vi,
        image_start_token_id=a,
        image_end_token_id=b,
        video_start_token_id=bv,
        video_end_token_id=ev,
    )
    return model(c), processor(
        ip, tok, vp, chat_template=template("<|begin_of_image|><|image|><|end_of_image|>", space=False)
    )


GS = {"shortest_edge": 32 * 32, "longest_edge": 96 * 96 * 2}


@zoo
def glm4v() -> Any:
    return _glm(
        hf.Glm4vConfig,
        hf.Glm4vForConditionalGeneration,
        hf.Glm4vProcessor,
        reads("glm4v", "Glm4vImageProcessor", patch_size=8, size=GS),
        video("glm4v", "Glm4vVideoProcessor"),
    )


@zoo
def glm4v_moe() -> Any:
    return _glm(
        hf.Glm4vMoeConfig,
        hf.Glm4vMoeForConditionalGeneration,
        hf.Glm4vProcessor,
        reads("glm4v", "Glm4vImageProcessor", patch_size=8, size=GS),
        video("glm4v", "Glm4vVideoProcessor"),
        {
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "n_shared_experts": 1,
            "head_dim": 32,
        },
    )


@zoo
def glm46v() -> Any:
    return _glm(
        hf.Glm46VConfig,
        hf.Glm46VForConditionalGeneration,
        hf.Glm46VProcessor,
        reads("glm46v", "Glm46VImageProcessor", patch_size=8, size=GS),
        video("glm46v", "Glm46VVideoProcessor"),
    )


@zoo
def gemma3n() -> Any:
    """With a small network of timm in the place of MobileNetV5, which has 300 million weights."""
    tok = tokenizer(
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
        boa_token="<start_of_audio>",
        eoa_token="<end_of_audio>",
        audio_token="<audio_soft_token>",
    )
    n = len(tok)
    c = hf.Gemma3nConfig(
        text_config={
            "vocab_size": n + 256,
            **TEXT,
            "intermediate_size": [128] * 4,
            "num_hidden_layers": 4,
            "head_dim": 32,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0],
            "vocab_size_per_layer_input": n,
            "hidden_size_per_layer_input": 16,
            "num_kv_shared_layers": 2,
            "laurel_rank": 8,
        },
        vision_config={
            "architecture": "test_resnet",
            "hidden_size": 96,
            "vocab_offset": n,
            "vocab_size": 128,
        },
        audio_config={
            "hidden_size": 64,
            "conf_num_hidden_layers": 1,
            "conf_num_attention_heads": 2,
            "vocab_offset": n + 128,
            "vocab_size": 128,
        },
        vision_soft_tokens_per_image=4,
        boi_token_id=tok.boi_token_id,
        eoi_token_id=tok.eoi_token_id,
        image_token_id=tok.image_token_id,
        boa_token_id=tok.boa_token_id,
        eoa_token_id=tok.eoa_token_id,
        audio_token_id=tok.audio_token_id,
    )
    ip = reads("siglip", "SiglipImageProcessor", size={"height": 64, "width": 64})
    p = hf.Gemma3nProcessor(
        hf.Gemma3nAudioFeatureExtractor(),
        ip,
        tok,
        image_seq_length=4,
        chat_template=template("<image_soft_token>", space=False),
    )
    return hf.Gemma3nForConditionalGeneration(c), p


@zoo
def gemma4() -> Any:
    tok = tokenizer(
        "<|video|>",
        boi_token="<|image>",
        eoi_token="<image|>",
        image_token="<|image|>",
        boa_token="<|audio>",
        eoa_token="<audio|>",
        audio_token="<|audio|>",
    )
    n = len(tok)
    c = hf.Gemma4Config(
        text_config={
            "vocab_size": n,
            **TEXT,
            "num_hidden_layers": 4,
            "head_dim": 32,
            "global_head_dim": 64,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "vocab_size_per_layer_input": n,
            "hidden_size_per_layer_input": 16,
            "num_kv_shared_layers": 2,
            "use_bidirectional_attention": None,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": 8,
            "pooling_kernel_size": 2,
            "position_embedding_size": 64,
        },
        audio_config=None,
        boi_token_id=tok.boi_token_id,
        eoi_token_id=tok.eoi_token_id,
        image_token_id=tok.image_token_id,
        boa_token_id=tok.boa_token_id,
        audio_token_id=tok.audio_token_id,
        video_token_id=ids(tok, "<|video|>")[0],
    )
    ip = reads("gemma4", "Gemma4ImageProcessor", patch_size=8, max_soft_tokens=70, pooling_kernel_size=2)
    vp = video("gemma4", "Gemma4VideoProcessor")
    fe = hf.Gemma4AudioFeatureExtractor()
    p = hf.Gemma4Processor(
        fe, ip, tok, vp, image_seq_length=70, chat_template=template("<|image|>", space=False)
    )
    return hf.Gemma4ForConditionalGeneration(c), p


@zoo
def gemma4_bidir() -> Any:
    m, p = gemma4()
    c = m.config
    c.text_config.use_bidirectional_attention = "vision"
    return hf.Gemma4ForConditionalGeneration(c), p


@zoo
def internvl_tiles() -> Any:
    """InternVL with its tiling (crop_to_patches), as InternVL3-hf ships it."""
    m, p = tiny.internvl()
    p.image_processor = reads(
        "got_ocr2", "GotOcr2ImageProcessor", size=SIDE, crop_to_patches=True, max_patches=4
    )
    return m, hf.InternVLProcessor(
        p.image_processor,
        p.tokenizer,
        video("internvl", "InternVLVideoProcessor"),
        image_seq_length=9,
        chat_template=p.chat_template,
    )


@zoo
def idefics2() -> Any:
    tok = tokenizer("<fake_token_around_image>", "<image>", "<end_of_utterance>")
    c = hf.Idefics2Config(
        vision_config={**VISION, "image_size": 48},
        perceiver_config={
            "hidden_size": 64,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 2,
        },
        text_config=text("mistral", len(tok), head_dim=32),
        image_token_id=ids(tok, "<image>")[0],
    )
    p = hf.Idefics2Processor(
        reads("idefics2", "Idefics2ImageProcessor", size={"shortest_edge": 32, "longest_edge": 48}),
        tok,
        image_seq_len=4,
        chat_template=template("<image>"),
    )
    return hf.Idefics2ForConditionalGeneration(c), p


@zoo
def ovis2() -> Any:
    names = ("<image>", "<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    tok = tokenizer(*names)
    i = ids(tok, *names)
    c = hf.Ovis2Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 48,
            "patch_size": 8,
            "vocab_size": 64,
            "hidden_stride": 2,
        },
        text_config=text("qwen2", len(tok)),
        image_token_id=i[1],
        visual_indicator_token_ids=i[2:],
        hidden_size=64,
        vocab_size=len(tok),
    )
    p = hf.Ovis2Processor(
        reads("ovis2", "Ovis2ImageProcessor", size=SIDE, crop_to_patches=True, max_patches=4),
        tok,
        image_seq_length=9,
        chat_template=template("<image>\n", space=False),
    )
    return hf.Ovis2ForConditionalGeneration(c), p


@zoo
def aya_vision() -> Any:
    names = (
        "<image>",
        "<|START_OF_IMG|>",
        "<|END_OF_IMG|>",
        "<|IMG_PATCH|>",
        "<|IMG_LINE_BREAK|>",
        "TILE_GLOBAL",
        *[f"TILE_{i}" for i in range(1, 13)],
        "TILE",
    )
    tok = tokenizer(*names)
    c = hf.AyaVisionConfig(
        vision_config=SIGLIP,
        text_config=text(
            "cohere2",
            len(tok),
            head_dim=32,
            sliding_window=64,
            layer_types=["sliding_attention", "full_attention"],
        ),
        image_token_index=ids(tok, "<|IMG_PATCH|>")[0],
        downsample_factor=2,
        vision_feature_layer=-1,
    )
    p = hf.AyaVisionProcessor(
        reads("got_ocr2", "GotOcr2ImageProcessor", size=SIDE, crop_to_patches=True, max_patches=4),
        tok,
        patch_size=8,
        img_size=48,
        downsample_factor=2,
        chat_template=template("<image>", space=False),
    )
    return hf.AyaVisionForConditionalGeneration(c), p


@zoo
def cohere2_vision() -> Any:
    tok = tokenizer(
        boi_token="<|START_OF_IMG|>",
        eoi_token="<|END_OF_IMG|>",
        image_token="<|IMG_PATCH|>",
        img_line_break_token="<|IMG_LINE_BREAK|>",
    )
    c = hf.Cohere2VisionConfig(
        vision_config=SIGLIP,
        text_config=text(
            "cohere2",
            len(tok),
            head_dim=32,
            sliding_window=64,
            layer_types=["sliding_attention", "full_attention"],
        ),
        image_token_id=tok.image_token_id,
        downsample_factor=2,
        alignment_intermediate_size=64,
    )
    p = hf.Cohere2VisionProcessor(
        reads("cohere2_vision", "Cohere2VisionImageProcessor", size=SIDE, patch_size=3, max_patches=4),
        tok,
        chat_template=template("<|IMG_PATCH|>", space=False),
    )
    return hf.Cohere2VisionForConditionalGeneration(c), p


@zoo
def emu3() -> Any:
    tok = tokenizer(
        *[f"<|visual token {i:06d}|>" for i in range(16)],
        image_token="<image>",
        boi_token="<|image start|>",
        eoi_token="<|image end|>",
        image_wrapper_token="<|image token|>",
        eof_token="<|extra_201|>",
        eol_token="<|extra_200|>",
    )
    vm = tok.get_vocab()
    vm = {k: v for k, v in vm.items() if k.startswith("<|visual") or k in ("<image>", "<|extra_200|>")}
    c = hf.Emu3Config(
        vq_config={
            "codebook_size": 16,
            "embed_dim": 4,
            "latent_channels": 4,
            "base_channels": 32,
            "channel_multiplier": [1, 2, 2, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [3],
            "hidden_size": 32,
        },
        text_config={"vocab_size": len(tok), **TEXT, "attention_dropout": 0.0},
        vocabulary_map=vm,
    )
    p = hf.Emu3Processor(
        hf.Emu3ImageProcessor(min_pixels=32 * 32, max_pixels=64 * 64), tok, chat_template=template("<image>")
    )
    return hf.Emu3ForConditionalGeneration(c), p


@zoo
def janus() -> Any:
    tok = tokenizer(
        image_token="<image_placeholder>", boi_token="<begin_of_image>", eoi_token="<end_of_image>"
    )
    c = hf.JanusConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 48,
            "patch_size": 8,
            "projection_dim": 64,
            "num_image_tokens": 36,
            "mlp_ratio": 2.0,
        },
        vq_config={
            "embed_dim": 8,
            "num_embeddings": 16,
            "latent_channels": 32,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_patches": 12,
            "projection_dim": 64,
            "image_token_embed_dim": 64,
        },
        text_config=text("llama", len(tok)),
        image_token_id=tok.image_token_id,
    )
    p = hf.JanusProcessor(
        reads("janus", "JanusImageProcessor", size=SIDE, min_size=8),
        tok,
        num_image_tokens=36,
        chat_template=template("<image_placeholder>\n"),
    )
    return hf.JanusForConditionalGeneration(c), p


@zoo
def molmo2() -> Any:
    names = (
        "<im_patch>",
        "<im_col>",
        "<im_start>",
        "<low_res_im_start>",
        "<frame_start>",
        "<im_end>",
        "<frame_end>",
        "<im_low>",
    )
    tok = tokenizer(*names, image_token="<|image|>", video_token="<|video|>")
    i = dict(zip(names, ids(tok, *names), strict=True))
    n = len(tok)
    c = hf.Molmo2Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "image_size": [48, 48],
            "patch_size": 8,
            "num_position_embeddings": 36,
        },
        adapter_config={
            "vision_feature_layer": [-1],
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "intermediate_size": 64,
            "text_hidden_size": 64,
        },
        text_config={"vocab_size": n, "additional_vocab_size": 0, **TEXT, "head_dim": 32},
        image_start_token_id=i["<im_start>"],
        low_res_image_start_token_id=i["<low_res_im_start>"],
        image_end_token_id=i["<im_end>"],
        image_patch_id=i["<im_patch>"],
        frame_start_token_id=i["<frame_start>"],
        frame_end_token_id=i["<frame_end>"],
    )
    p = hf.Molmo2Processor(
        reads("molmo2", "Molmo2ImageProcessor", size=SIDE, patch_size=8, max_crops=4, overlap_margins=[1, 1]),
        video("molmo2", "Molmo2VideoProcessor"),
        tok,
        chat_template=template("<|image|>", space=False),
    )
    return hf.Molmo2ForConditionalGeneration(c), p


@zoo
def deepseek_vl() -> Any:
    tok = tokenizer(image_token="<image_placeholder>")
    c = hf.DeepseekVLConfig(
        vision_config=SIGLIP, text_config=text("llama", len(tok)), image_token_id=tok.image_token_id
    )
    p = hf.DeepseekVLProcessor(
        reads("deepseek_vl", "DeepseekVLImageProcessor", size=SIDE, min_size=8),
        tok,
        num_image_tokens=36,
        chat_template=template("<image_placeholder>"),
    )
    return hf.DeepseekVLForConditionalGeneration(c), p


@zoo
def deepseek_vl_hybrid() -> Any:
    tok = tokenizer(image_token="<image_placeholder>")
    c = hf.DeepseekVLHybridConfig(
        vision_config={**SIGLIP, "image_size": 48, "patch_size": 8},
        high_res_vision_config={
            "model_type": "sam_vision_model",
            "hidden_size": 32,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 96,
            "patch_size": 4,
            "window_size": 4,
            "global_attn_indexes": [1],
            "mlp_dim": 64,
            "num_pos_feats": 16,
        },
        text_config=text("llama", len(tok)),
        image_token_id=tok.image_token_id,
    )
    p = hf.DeepseekVLHybridProcessor(
        reads(
            "deepseek_vl_hybrid",
            "DeepseekVLHybridImageProcessor",
            size=SIDE,
            min_size=8,
            high_res_size={"height": 96, "width": 96},
        ),
        tok,
        num_image_tokens=36,
        chat_template=template("<image_placeholder>"),
    )
    return hf.DeepseekVLHybridForConditionalGeneration(c), p


@zoo
def kimi_k25() -> Any:
    names = ("<|media_start|>", "<|media_end|>", "<|media_pad|>", "<|kimi_k25_video_placeholder|>")
    tok = tokenizer(*names)
    s, e, im, vi = ids(tok, *names)
    t = {
        "model_type": "deepseek_v3",
        "vocab_size": len(tok),
        **TEXT,
        "moe_intermediate_size": 32,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 16,
        "qk_nope_head_dim": 16,
        "v_head_dim": 32,
    }
    c = hf.Kimi_K25Config(
        vision_config={
            "patch_size": 8,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
        },
        text_config=t,
        projection_hidden_size=32,
        image_token_id=im,
        video_token_id=vi,
        vision_start_token_id=s,
        vision_end_token_id=e,
    )
    p = cls_p("kimi_k25", "Kimi_K25Processor")(
        reads(
            "kimi_k25",
            "Kimi_K25ImageProcessor",
            patch_size=8,
            size={"max_height": 96, "max_width": 96},
            max_patches=144,
        ),
        tok,
        video("kimi_k25", "Kimi_K25VideoProcessor"),
        chat_template=template("<|media_start|><|media_pad|><|media_end|>", space=False),
    )
    return cls("kimi_k25", "Kimi_K25ForConditionalGeneration")(c), p


@zoo
def llama4() -> Any:
    names = (
        "<|image|>",
        "<|image_start|>",
        "<|image_end|>",
        "<|patch|>",
        "<|tile_x_separator|>",
        "<|tile_y_separator|>",
    )
    tok = tokenizer(*names)
    c = hf.Llama4Config(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 128,
            "vision_output_dim": 64,
            "image_size": 48,
            "patch_size": 8,
            "projector_input_dim": 64,
            "projector_output_dim": 64,
        },
        text_config={
            "model_type": "llama4_text",
            "vocab_size": len(tok),
            **TEXT,
            "num_hidden_layers": 4,
            "head_dim": 32,
            "intermediate_size_mlp": 128,
            "num_local_experts": 2,
            "attention_chunk_size": 64,
            "rope_parameters": ROPE,
            "layer_types": ["chunked_attention", "chunked_attention", "chunked_attention", "full_attention"],
        },
        image_token_index=ids(tok, "<|patch|>")[0],
        boi_token_index=ids(tok, "<|image_start|>")[0],
        eoi_token_index=ids(tok, "<|image_end|>")[0],
    )
    p = hf.Llama4Processor(
        reads("llama4", "Llama4ImageProcessor", size=SIDE, max_patches=4),
        tok,
        patch_size=8,
        chat_template=template("<|image|>", space=False),
    )
    return hf.Llama4ForConditionalGeneration(c), p


@zoo
def kosmos2_5() -> Any:
    tok = tokenizer(boi_token="<image>", eoi_token="</image>", image_token="<s_img>")
    c = hf.Kosmos2_5Config(
        text_config={
            "vocab_size": len(tok),
            "embed_dim": 64,
            "layers": 2,
            "ffn_dim": 128,
            "attention_heads": 2,
            "max_position_embeddings": 2048,
            "pad_token_id": PAD,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
        },
        vision_config={
            "hidden_size": 32,
            "patch_embed_hidden_size": 768,
            "intermediate_size": 64,
            "head_dim": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_num_patches": 64,
        },
        latent_query_num=8,
    )
    p = hf.Kosmos2_5Processor(
        reads("kosmos2_5", "Kosmos2_5ImageProcessor", max_patches=64), tok, num_image_tokens=8
    )
    return hf.Kosmos2_5ForConditionalGeneration(c), p


@zoo
def perception_lm() -> Any:
    tok = tokenizer(image_token="<|image|>", video_token="<|video|>")
    c = hf.PerceptionLMConfig(
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "vit_pe_core_tiny_patch16_384",
            "model_args": {
                "embed_dim": 32,
                "depth": 2,
                "num_heads": 2,
                "img_size": [32, 32],
                "patch_size": [8, 8],
                "global_pool": "",
            },
            "num_features": 32,
        },
        text_config=text("llama", len(tok)),
        image_token_id=tok.image_token_id,
        video_token_id=tok.video_token_id,
        projector_pooling_ratio=2,
        vision_use_cls_token=True,
    )
    p = hf.PerceptionLMProcessor(
        video("perception_lm", "PerceptionLMVideoProcessor", size={"height": 32, "width": 32}),
        reads("perception_lm", "PerceptionLMImageProcessor", tile_size=32, max_num_tiles=4),
        tok,
        patch_size=8,
        pooling_ratio=2,
        chat_template=template("<|image|>", space=False),
    )
    return hf.PerceptionLMForConditionalGeneration(c), p


@zoo
def vipllava() -> Any:
    tok = tokenizer(image_token="<image>")
    c = hf.VipLlavaConfig(
        vision_config={**CLIP, "num_hidden_layers": 3},
        text_config=text("llama", len(tok)),
        image_token_index=tok.image_token_id,
        vision_feature_layers=[-1, -2],
        vision_feature_layer=[-1, -2],
        image_seq_length=36,
    )
    p = hf.LlavaProcessor(
        reads("clip", "CLIPImageProcessor", size=SIDE, crop_size=SIDE, do_center_crop=False),
        tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>\n"),
    )
    return hf.VipLlavaForConditionalGeneration(c), p


@zoo
def video_llava() -> Any:
    tok = tokenizer(image_token="<image>", video_token="<video>")
    c = hf.VideoLlavaConfig(
        vision_config={**CLIP, "model_type": "clip_vision_model"},
        text_config=text("llama", len(tok)),
        image_token_index=tok.image_token_id,
        video_token_index=tok.video_token_id,
        vision_feature_layer=-1,
        image_seq_length=36,
    )
    p = hf.VideoLlavaProcessor(
        hf.VideoLlavaImageProcessor(size={"shortest_edge": 48}, crop_size=SIDE),
        video("video_llava", "VideoLlavaVideoProcessor"),
        tok,
        patch_size=8,
        chat_template=template("<image>"),
    )
    return hf.VideoLlavaForConditionalGeneration(c), p


@zoo
def chameleon() -> Any:
    tok = tokenizer(
        *[f"IMGIMG{a}{b}Z" for a in "ABCD" for b in "ABCD"],
        image_token="<image>",
        boi_token="<racm3:break>",
        eoi_token="<eoss>",
    )
    c = hf.ChameleonConfig(
        vocab_size=len(tok),
        **TEXT,
        vq_config={
            "embed_dim": 8,
            "num_embeddings": 16,
            "latent_channels": 8,
            "resolution": 48,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 1, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [6],
        },
        vocabulary_map=tok.get_vocab(),
    )
    p = hf.ChameleonProcessor(
        reads("chameleon", "ChameleonImageProcessor", size={"shortest_edge": 48}, crop_size=SIDE),
        tok,
        image_seq_length=36,
        image_token="<image>",
    )
    return hf.ChameleonForConditionalGeneration(c), p


@zoo
def aria() -> Any:
    tok = tokenizer(image_token="<|img|>")
    c = hf.AriaConfig(
        vision_config={"model_type": "idefics3_vision", **VISION, "image_size": 490, "patch_size": 70},
        text_config={
            "model_type": "aria_text",
            "vocab_size": len(tok),
            **TEXT,
            "moe_num_experts": 4,
            "moe_topk": 2,
            "moe_num_shared_experts": 1,
        },
        projector_patch_to_query_dict={49: 4, 196: 8},
        image_token_index=tok.image_token_id,
    )
    p = hf.AriaProcessor(
        reads("aria", "AriaImageProcessor", max_image_size=490, min_image_size=70),
        tok,
        size_conversion={490: 4, 980: 8},
        chat_template=template("<|img|>", space=False),
    )
    return hf.AriaForConditionalGeneration(c), p


@zoo
def video_llama_3() -> Any:
    tok = tokenizer(image_token="<image>", video_token="<video>")
    c = hf.VideoLlama3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 8,
        },
        text_config=text("qwen2", len(tok)),
        image_token_id=tok.image_token_id,
        video_token_id=tok.video_token_id,
    )
    p = hf.VideoLlama3Processor(
        reads(
            "video_llama_3",
            "VideoLlama3ImageProcessor",
            patch_size=8,
            size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64},
        ),
        tok,
        video("video_llama_3", "VideoLlama3VideoProcessor"),
        chat_template=template("<image>\n", space=False),
    )
    return hf.VideoLlama3ForConditionalGeneration(c), p


@zoo
def paligemma2() -> Any:
    tok = tokenizer(image_token="<image>")
    ip = reads("siglip", "SiglipImageProcessor", size=SIDE)
    ip.image_seq_length = 36
    c = hf.PaliGemmaConfig(
        vision_config={**SIGLIP, "num_image_tokens": 36, "projection_dim": 64},
        text_config=text("gemma2", len(tok), head_dim=32, sliding_window=64, query_pre_attn_scalar=32),
        image_token_index=tok.image_token_id,
        projection_dim=64,
        hidden_size=64,
        vocab_size=len(tok),
    )
    return hf.PaliGemmaForConditionalGeneration(c), hf.PaliGemmaProcessor(ip, tok)


@zoo
def granite_vision() -> Any:
    """granite-vision-3.x: LLaVA-NeXT over SigLIP with a Granite decoder, several feature layers."""
    tok = tokenizer(image_token="<image>")
    c = hf.LlavaNextConfig(
        vision_config={**SIGLIP, "num_hidden_layers": 4},
        text_config=text(
            "granite",
            len(tok),
            embedding_multiplier=12.0,
            attention_multiplier=0.015625,
            residual_multiplier=0.22,
            logits_scaling=8.0,
        ),
        image_token_index=tok.image_token_id,
        vision_feature_layer=[-4, -3, -2, -1],
        vision_feature_select_strategy="full",
        image_grid_pinpoints=GRID,
        use_image_newline_parameter=True,
    )
    ip = reads(
        "llava_next",
        "LlavaNextImageProcessor",
        size=SIDE,
        crop_size=SIDE,
        image_grid_pinpoints=GRID,
        do_center_crop=False,
    )
    p = hf.LlavaNextProcessor(
        ip,
        tok,
        patch_size=8,
        vision_feature_select_strategy="full",
        chat_template=template("<image>\n", space=False),
    )
    return hf.LlavaNextForConditionalGeneration(c), p


@zoo
def llava_next_video() -> Any:
    m, p = tiny.llava_next()
    tok = tokenizer(image_token="<image>", video_token="<video>")
    c = hf.LlavaNextVideoConfig(
        vision_config=CLIP,
        text_config=text("llama", len(tok)),
        image_token_index=tok.image_token_id,
        video_token_index=tok.video_token_id,
        vision_feature_layer=-1,
        image_grid_pinpoints=GRID,
    )
    ip = reads(
        "llava_next",
        "LlavaNextImageProcessor",
        size={"shortest_edge": 48},
        crop_size=SIDE,
        image_grid_pinpoints=GRID,
    )
    p = hf.LlavaNextVideoProcessor(
        video("llava_next_video", "LlavaNextVideoVideoProcessor"),
        ip,
        tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>\n"),
    )
    return hf.LlavaNextVideoForConditionalGeneration(c), p


@zoo
def minicpmv4_6() -> Any:
    tok = tokenizer(
        image_token="<unk_img>",
        video_token="<unk_vid>",
        image_start_token="<image>",
        image_end_token="</image>",
        slice_start_token="<slice>",
        slice_end_token="</slice>",
        image_id_start_token="<image_id>",
        image_id_end_token="</image_id>",
    )
    c = hf.MiniCPMV4_6Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": 112,
            "patch_size": 14,
            "insert_layer_id": 1,
        },
        text_config={"model_type": "qwen3_5_text", "vocab_size": len(tok), **TEXT, **_q35()},
        image_token_id=tok.image_token_id,
        video_token_id=tok.video_token_id,
    )
    p = cls_p("minicpmv4_6", "MiniCPMV4_6Processor")(
        reads(
            "minicpmv4_6",
            "MiniCPMV4_6ImageProcessor",
            scale_resolution=112,
            max_slice_nums=4,
            use_image_id=False,
        ),
        video("minicpmv4_6", "MiniCPMV4_6VideoProcessor"),
        tok,
        chat_template=template("<unk_img>\n", space=False),
    )
    return cls("minicpmv4_6", "MiniCPMV4_6ForConditionalGeneration")(c), p


@zoo
def phi4_multimodal() -> Any:
    """Its processor counts 256 tokens for the whole picture, so a small one has 32 patches a side, too."""
    tok = tokenizer(image_token="<|image|>", audio_token="<|audio|>")
    c = hf.Phi4MultimodalConfig(
        vocab_size=len(tok),
        **TEXT,
        original_max_position_embeddings=4096,
        vision_config={
            **VISION,
            "image_size": 64,
            "patch_size": 2,
            "num_hidden_layers": 3,
            "crop_size": 64,
            "image_token_id": tok.image_token_id,
        },
        audio_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_blocks": 1,
            "num_attention_heads": 2,
            "ext_pw_out_channel": 32,
            "depthwise_separable_out_channel": 32,
            "nemo_conv_channels": 32,
            "audio_token_id": tok.audio_token_id,
        },
    )
    ip = reads(
        "phi4_multimodal",
        "Phi4MultimodalImageProcessor",
        size={"height": 64, "width": 64},
        patch_size=2,
        dynamic_hd=4,
    )
    p = hf.Phi4MultimodalProcessor(
        ip, hf.Phi4MultimodalFeatureExtractor(), tok, chat_template=template("<|image|>", space=False)
    )
    return hf.Phi4MultimodalForCausalLM(c), p


@zoo
def got_ocr2() -> Any:
    tok = tokenizer("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<imgpad>")
    c = hf.GotOcr2Config(
        vision_config={
            "hidden_size": 32,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 96,
            "patch_size": 4,
            "window_size": 4,
            "global_attn_indexes": [1],
            "mlp_dim": 64,
        },
        text_config=text("qwen2", len(tok)),
        image_token_index=ids(tok, "<imgpad>")[0],
        image_seq_length=36,
    )
    p = hf.GotOcr2Processor(reads("got_ocr2", "GotOcr2ImageProcessor", size={"height": 96, "width": 96}), tok)
    return hf.GotOcr2ForConditionalGeneration(c), p


@zoo
def git() -> Any:
    tok = tokenizer()
    c = hf.GitConfig(
        vision_config={**VISION},
        vocab_size=len(tok),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=512,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    p = hf.GitProcessor(
        reads("clip", "CLIPImageProcessor", size=SIDE, crop_size=SIDE, do_center_crop=False), tok
    )
    return hf.GitForCausalLM(c), p


@zoo
def blip() -> Any:
    tok = tokenizer()
    c = hf.BlipConfig(
        text_config={
            "vocab_size": len(tok),
            "hidden_size": 64,
            "encoder_hidden_size": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 512,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "sep_token_id": EOS,
            "pad_token_id": PAD,
        },
        vision_config={**VISION},
        projection_dim=32,
    )
    p = hf.BlipProcessor(reads("blip", "BlipImageProcessor", size=SIDE), tok)
    return hf.BlipForConditionalGeneration(c), p


@zoo
def idefics() -> Any:
    tok = tokenizer("<fake_token_around_image>", "<image>", "<end_of_utterance>")
    c = hf.IdeficsConfig(
        vocab_size=len(tok),
        additional_vocab_size=0,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        cross_layer_interval=1,
        use_resampler=False,
        vision_config={
            "embed_dim": 32,
            "image_size": 48,
            "patch_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
        perceiver_config={
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
        },
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        max_position_embeddings=2048,
    )
    p = hf.IdeficsProcessor(reads("idefics", "IdeficsImageProcessor", image_size=48), tok, image_size=48)
    return hf.IdeficsForVisionText2Text(c), p


@zoo
def pix2struct() -> Any:
    tok = tokenizer()
    c = hf.Pix2StructConfig(
        text_config={
            "vocab_size": len(tok),
            "hidden_size": 64,
            "d_kv": 32,
            "d_ff": 128,
            "num_layers": 2,
            "num_heads": 2,
            "pad_token_id": PAD,
            "eos_token_id": EOS,
            "decoder_start_token_id": PAD,
        },
        vision_config={
            "hidden_size": 64,
            "patch_embed_hidden_size": 768,
            "d_ff": 128,
            "d_kv": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "seq_len": 64,
        },
    )
    p = hf.Pix2StructProcessor(reads("pix2struct", "Pix2StructImageProcessor", max_patches=64), tok)
    return hf.Pix2StructForConditionalGeneration(c), p


def save(name: str, folder: Any, scale: float = 6.0) -> Any:
    """Build, scale and save a checkpoint."""
    torch.manual_seed(0)
    model, processor = ZOO[name]()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "alpha_cross_attn" in key or "alpha_dense" in key:  # gates, which begin closed
                parameter.fill_(0.5 / scale if parameter.ndim >= 2 else 0.5)
    return tiny.kept(model, processor, folder, scale)
