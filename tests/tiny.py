"""Tiny random checkpoints of real architectures, built from configurations alone.

Weights are scaled up from the usual initial range, so that a fault in mask, position or image moves
logits by far more than rounding does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from snellen.models.huggingface.checkpoint import without_torchvision

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
        special_tokens=["<pad>", "<s>", "</s>", *special, *named.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([words] * 20, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
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
        CLIPImageProcessorPil(size=SIDE, crop_size=SIDE, do_center_crop=False),
        tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>\n"),
    )
    return hf.LlavaForConditionalGeneration(config), processor


def qwen2_vl() -> tuple[Any, Any]:
    without_torchvision()
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor

    names = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tok = tokenizer(*names)
    start, end, image, video = tok.convert_tokens_to_ids(list(names))
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    config = hf.Qwen2VLConfig(
        text_config={"vocab_size": len(tok), "rope_parameters": rope, **TEXT},
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "patch_size": 8,
            "mlp_ratio": 2,
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=8,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 32 * 32, "longest_edge": 96 * 96},
    )
    chat = template("<|vision_start|><|image_pad|><|vision_end|>", space=False)
    processor = hf.Qwen2VLProcessor(images, tok, AutoVideoProcessor.from_pretrained(""), chat_template=chat)
    return hf.Qwen2VLForConditionalGeneration(config), processor


def idefics3() -> tuple[Any, Any]:
    rows = [f"<row_{i}_col_{j}>" for i in range(1, 5) for j in range(1, 5)]
    names = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>", *rows)
    tok = tokenizer(*names)
    config = hf.Idefics3Config(
        vision_config=VISION,
        text_config={"model_type": "llama", "vocab_size": len(tok), **TEXT},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=PAD,
    )
    images = Idefics3ImageProcessorPil(size={"longest_edge": 96}, max_image_size={"longest_edge": 48})
    processor = hf.Idefics3Processor(images, tok, image_seq_len=9, chat_template=template("<image>"))
    return hf.Idefics3ForConditionalGeneration(config), processor


ARCHITECTURES = {"llava": llava, "qwen2_vl": qwen2_vl, "idefics3": idefics3}


def save(name: str, folder: Path, scale: float = 6.0) -> Path:
    """Build, scale and save a checkpoint."""
    torch.manual_seed(0)
    model, processor = ARCHITECTURES[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(scale)
    settings = model.generation_config
    # Sampling defaults, as many checkpoints have them: they must not be taken over.
    settings.do_sample, settings.temperature, settings.top_p = True, 0.7, 0.8
    settings.eos_token_id, settings.pad_token_id = EOS, PAD
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
