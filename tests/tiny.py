"""Tiny random checkpoints of real architectures, built from configurations alone.

Weights are scaled up from the usual initial range, so that a fault in mask, position or image moves
logits by far more than rounding does.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from snellen.models.huggingface.pixels import without_torchvision

PAD, BOS, EOS = 0, 1, 2
SIDE = {"height": 48, "width": 48}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 48,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}


def tokenizer(*special: str, **named: str) -> Any:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    words = "What type of object is in this photo? Choose one from cat dog car tyre. user assistant:"
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>", *special, *named.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([words] * 20, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named,
        model_max_length=2048,
    )


def template(image: str, *, space: bool = True) -> str:
    """A chat template; with ``space`` a blank stands between the call for an answer and the answer."""
    gap = " " if space else ""
    return (
        "{% for m in messages %}{{ m['role'] + ': ' if m['role'] != 'assistant' else 'assistant:"
        + gap
        + "' }}"
        "{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}" + image + "{% else %}{{ c['text'] }}{% endif %}{% endfor %}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )


def llava() -> tuple[Any, Any]:
    tok = tokenizer(image_token="<image>")
    config = hf.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **VISION},
        text_config={"model_type": "llama", "vocab_size": len(tok), **TEXT},
        image_token_index=tok.image_token_id,
        vision_feature_layer=-1,
    )
    processor = hf.LlavaProcessor(
        reads("clip", "CLIPImageProcessor", size=SIDE, crop_size=SIDE, do_center_crop=False),
        tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>\n"),
    )
    return hf.LlavaForConditionalGeneration(config), processor


SIGLIP = {"model_type": "siglip_vision_model", **VISION, "vision_use_head": False}
CLIP = {"model_type": "clip_vision_model", **VISION, "projection_dim": 32}
GRID = [[48, 96], [96, 48], [96, 96]]


def text(kind: str, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {"model_type": kind, "vocab_size": vocabulary, **TEXT, **more}


#: Whether images are resized by torchvision, as users mostly have it, or by Pillow.
TORCHVISION = find_spec("torchvision") is not None


def reads(family: str, name: str, **options: Any) -> Any:
    """The image processor of a family, in the form that this environment loads."""
    kind = "image_processing" if TORCHVISION else "image_processing_pil"
    module = import_module(f"transformers.models.{family}.{kind}_{family}")
    return getattr(module, name if TORCHVISION else f"{name}Pil")(**options)


def video(family: str, name: str, **options: Any) -> Any:
    """The video processor of a family, or what stands in for it."""
    if TORCHVISION:
        module = import_module(f"transformers.models.{family}.video_processing_{family}")
        return getattr(module, name)(**options)
    without_torchvision()
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor

    return AutoVideoProcessor.from_pretrained("")


def llava_next() -> tuple[Any, Any]:
    tok = tokenizer(image_token="<image>")
    config = hf.LlavaNextConfig(
        vision_config=CLIP,
        text_config=text("llama", len(tok)),
        image_token_index=tok.image_token_id,
        vision_feature_layer=-1,
        image_grid_pinpoints=GRID,
        image_seq_length=36,
    )
    images = reads(
        "llava_next",
        "LlavaNextImageProcessor",
        size={"shortest_edge": 48},
        crop_size=SIDE,
        image_grid_pinpoints=GRID,
    )
    processor = hf.LlavaNextProcessor(
        images,
        tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>\n"),
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def llava_onevision() -> tuple[Any, Any]:
    tok = tokenizer(image_token="<image>", video_token="<video>")
    grid = [[48, 48], *GRID]
    config = hf.LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config=text("qwen2", len(tok)),
        image_token_index=tok.image_token_id,
        video_token_index=tok.video_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=grid,
    )
    images = reads("llava_onevision", "LlavaOnevisionImageProcessor", size=SIDE, image_grid_pinpoints=grid)
    processor = hf.LlavaOnevisionProcessor(
        images,
        tok,
        video("llava_onevision", "LlavaOnevisionVideoProcessor"),
        num_image_tokens=36,
        vision_feature_select_strategy="full",
        chat_template=template("<image>\n"),
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def _qwen(config: Any, model: Any, processor: Any, vision: dict[str, Any], **more: Any) -> tuple[Any, Any]:
    names = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tok = tokenizer(*names)
    start, end, image, movie = tok.convert_tokens_to_ids(list(names))
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    built = config(
        text_config={"vocab_size": len(tok), **TEXT, "rope_parameters": rope, **more},
        vision_config={"num_heads": 2, "patch_size": 8, **vision},
        image_token_id=image,
        video_token_id=movie,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    images = reads(
        "qwen2_vl",
        "Qwen2VLImageProcessor",
        patch_size=8,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 32 * 32, "longest_edge": 96 * 96},
    )
    chat = template("<|vision_start|><|image_pad|><|vision_end|>", space=False)
    return model(built), processor(
        images, tok, video("qwen2_vl", "Qwen2VLVideoProcessor"), chat_template=chat
    )


def qwen2_vl() -> tuple[Any, Any]:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    return _qwen(hf.Qwen2VLConfig, hf.Qwen2VLForConditionalGeneration, hf.Qwen2VLProcessor, vision)


def qwen2_5_vl() -> tuple[Any, Any]:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "window_size": 32,
        "fullatt_block_indexes": [1],
    }
    model = hf.Qwen2_5_VLForConditionalGeneration
    return _qwen(hf.Qwen2_5_VLConfig, model, hf.Qwen2_5_VLProcessor, vision)


def qwen3_vl() -> tuple[Any, Any]:
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "num_position_embeddings": 144,
        "deepstack_visual_indexes": [0, 1],
    }
    model = hf.Qwen3VLForConditionalGeneration
    return _qwen(hf.Qwen3VLConfig, model, hf.Qwen3VLProcessor, vision, head_dim=32)


def qwen3_5() -> tuple[Any, Any]:
    """Three layers of linear attention to one of full attention: its state cannot be masked."""
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 64,
        "num_position_embeddings": 144,
    }
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
        "partial_rotary_factor": 0.25,
    }
    return _qwen(
        hf.Qwen3_5Config,
        hf.Qwen3_5ForConditionalGeneration,
        hf.Qwen3VLProcessor,
        vision,
        num_hidden_layers=4,
        head_dim=32,
        rope_parameters=rope,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
    )


def mllama() -> tuple[Any, Any]:
    tok = tokenizer("<|python_tag|>", "<|image|>")
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "vision_output_dim": 64,
        "image_size": 48,
        "patch_size": 8,
        "max_num_tiles": 2,
        "intermediate_layers_indices": [0],
        "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
    }
    config = hf.MllamaConfig(
        text_config={
            "vocab_size": len(tok),
            **TEXT,
            "num_hidden_layers": 3,
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        vision_config=vision,
        image_token_index=tok.convert_tokens_to_ids("<|image|>"),
    )
    images = reads("mllama", "MllamaImageProcessor", size=SIDE, max_image_tiles=2)
    model = hf.MllamaForConditionalGeneration(config)
    with torch.no_grad():  # cross-attention begins closed, at gates of 0: opened, so that images count
        for name, parameter in model.named_parameters():
            if "cross_attn" in name and "gate" in name:
                parameter.fill_(0.5)
    return model, hf.MllamaProcessor(images, tok, chat_template=template("<|image|>"))


def internvl() -> tuple[Any, Any]:
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tok = tokenizer(**names)
    config = hf.InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": [48, 48],
            "patch_size": [8, 8],
        },
        text_config=text("qwen2", len(tok)),
        image_token_id=tok.context_image_token_id,
        image_seq_length=9,
    )
    images = reads("got_ocr2", "GotOcr2ImageProcessor", size=SIDE, crop_to_patches=False, max_patches=4)
    processor = hf.InternVLProcessor(
        images,
        tok,
        video("internvl", "InternVLVideoProcessor"),
        image_seq_length=9,
        chat_template=template("<IMG_CONTEXT>\n", space=False),
    )
    return hf.InternVLForConditionalGeneration(config), processor


def _idefics(config: Any, model: Any, processor: Any, *more: Any) -> tuple[Any, Any]:
    rows = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    names = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *rows)
    tok = tokenizer(*names)
    built = config(
        vision_config=VISION,
        text_config=text("llama", len(tok)),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=PAD,
    )
    sizes = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 48}}
    images = reads("idefics3", "Idefics3ImageProcessor", **sizes)
    return model(built), processor(images, tok, *more, image_seq_len=9, chat_template=template("<image>"))


def idefics3() -> tuple[Any, Any]:
    return _idefics(hf.Idefics3Config, hf.Idefics3ForConditionalGeneration, hf.Idefics3Processor)


def smolvlm() -> tuple[Any, Any]:
    movie = video("smolvlm", "SmolVLMVideoProcessor")
    return _idefics(hf.SmolVLMConfig, hf.SmolVLMForConditionalGeneration, hf.SmolVLMProcessor, movie)


def paligemma() -> tuple[Any, Any]:
    tok = tokenizer(image_token="<image>")
    images = reads("siglip", "SiglipImageProcessor", size=SIDE)
    images.image_seq_length = 36
    config = hf.PaliGemmaConfig(
        vision_config={**SIGLIP, "num_image_tokens": 36, "projection_dim": 64},
        text_config=text("gemma", len(tok), head_dim=32),
        image_token_index=tok.image_token_id,
        projection_dim=64,
        hidden_size=64,
        vocab_size=len(tok),
    )
    return hf.PaliGemmaForConditionalGeneration(config), hf.PaliGemmaProcessor(images, tok)


def gemma3() -> tuple[Any, Any]:
    names = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tok = tokenizer(**names)
    config = hf.Gemma3Config(
        vision_config=SIGLIP,
        text_config={
            "vocab_size": len(tok),
            **TEXT,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 64,
        },
        mm_tokens_per_image=9,
        boi_token_index=tok.boi_token_id,
        eoi_token_index=tok.eoi_token_id,
        image_token_index=tok.image_token_id,
    )
    images = reads("gemma3", "Gemma3ImageProcessor", size=SIDE)
    processor = hf.Gemma3Processor(
        images, tok, image_seq_length=9, chat_template=template("<start_of_image>", space=False)
    )
    model = hf.Gemma3ForConditionalGeneration(config)
    with torch.no_grad():  # the projection begins at 0, and with it the image would not count
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(0, 0.05)
    return model, processor


QFORMER = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "encoder_hidden_size": 32,
    "cross_attention_frequency": 1,
}


def opt(vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "opt",
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "ffn_dim": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 64,
        "max_position_embeddings": 512,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }


def blip_2() -> tuple[Any, Any]:
    tok = tokenizer("<image>")
    images = reads("blip", "BlipImageProcessor", size=SIDE)
    config = hf.Blip2Config(
        vision_config={**VISION, "initializer_range": 0.02},
        qformer_config=QFORMER,
        text_config=opt(len(tok)),
        num_query_tokens=8,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
    )
    processor = hf.Blip2Processor(images, tok, num_query_tokens=8)
    return hf.Blip2ForConditionalGeneration(config), processor


def instructblip() -> tuple[Any, Any]:
    tok = tokenizer("<image>")
    images = reads("blip", "BlipImageProcessor", size=SIDE)
    config = hf.InstructBlipConfig(
        vision_config={**VISION, "initializer_range": 0.02},
        qformer_config=QFORMER,
        text_config=opt(len(tok)),
        num_query_tokens=8,
        image_token_index=tok.convert_tokens_to_ids("<image>"),
    )
    processor = hf.InstructBlipProcessor(images, tok, tokenizer(), num_query_tokens=8)
    return hf.InstructBlipForConditionalGeneration(config), processor


def kosmos2() -> tuple[Any, Any]:
    tok = tokenizer()
    images = reads("clip", "CLIPImageProcessor", size=SIDE, crop_size=SIDE, do_center_crop=False)
    processor = hf.Kosmos2Processor(images, tok, num_patch_index_tokens=16)
    config = hf.Kosmos2Config(
        text_config={
            "vocab_size": len(tok) + 80,
            "embed_dim": 64,
            "layers": 2,
            "ffn_dim": 128,
            "attention_heads": 2,
            "max_position_embeddings": 512,
            "pad_token_id": PAD,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
        },
        vision_config=VISION,
        latent_query_num=64,
    )
    model = hf.Kosmos2ForConditionalGeneration(config)
    with torch.no_grad():  # the latents see each other and the image; large, they would see only each other
        model.image_to_text_projection.latent_query.mul_(0.01)
    return model, processor


def florence2() -> tuple[Any, Any]:
    tok = tokenizer(image_token="<image>")
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    square = {"height": 64, "width": 64}
    images = reads("clip", "CLIPImageProcessor", size=square, crop_size=square, do_center_crop=False)
    images.image_seq_length = 5
    bart = {
        "model_type": "bart",
        "vocab_size": len(tok),
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "decoder_start_token_id": EOS,
        "forced_eos_token_id": EOS,
    }
    vision = {
        "depths": [1, 1, 1, 1],
        "embed_dim": [16, 32, 48, 64],
        "num_heads": [1, 2, 2, 2],
        "num_groups": [1, 2, 2, 2],
        "window_size": 4,
        "projection_dim": 64,
    }
    config = hf.Florence2Config(text_config=bart, vision_config=vision, image_token_id=tok.image_token_id)
    return hf.Florence2ForConditionalGeneration(config), hf.Florence2Processor(images, tok)


ARCHITECTURES = {
    build.__name__: build
    for build in (
        llava,
        llava_next,
        llava_onevision,
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        qwen3_5,
        mllama,
        internvl,
        idefics3,
        smolvlm,
        paligemma,
        gemma3,
        blip_2,
        instructblip,
        kosmos2,
        florence2,
    )
}


def save(name: str, folder: Path, scale: float = 6.0) -> Path:
    """Build, scale and save a checkpoint."""
    torch.manual_seed(0)
    return kept(*ARCHITECTURES[name](), folder, scale)


def kept(model: Any, processor: Any, folder: Path, scale: float) -> Path:
    """Scale and save a checkpoint, with defaults as many have them."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(scale)
    settings = model.generation_config
    # For sampling: they must not be taken over.
    settings.do_sample, settings.temperature, settings.top_p = True, 0.7, 0.8
    settings.eos_token_id, settings.pad_token_id = EOS, PAD
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
