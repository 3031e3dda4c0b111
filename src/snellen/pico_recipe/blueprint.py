"""The built-in models before training: real architectures in miniature, and their processors.

Everything is built from configurations in the standard Hugging Face format, so that the trained models
load through the same code as any checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from snellen.datasets.shapes import COLORS, KINDS, caption, figure
from snellen.pico_recipe.curriculum import TASKS, ask

if TYPE_CHECKING:
    import torch

__all__ = ["PIXELS", "classifier", "clip", "llava"]

PIXELS, PATCH = 48, 12
VISION = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": PIXELS,
    "patch_size": PATCH,
}
#: The usual 0.02 stalls the training of such narrow layers.
INITIAL_RANGE = 0.08
#: CLIP models treat an end-of-text id of 2 as "the highest id" (a bug kept for compatibility), hence 3.
PAD, UNKNOWN, BOS, EOS = 0, 1, 2, 3

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- set content = message['content'] -%}
{%- if message['role'] == 'system' -%}
{{ content if content is string else content[0]['text'] }}{{ '\\n' }}
{%- elif message['role'] == 'user' -%}
{{ 'USER: ' }}
{%- if content is string -%}{{ content }}
{%- else -%}
{%- for part in content -%}
{{ '<image>\\n' if part['type'] == 'image' else part['text'] }}
{%- endfor -%}
{%- endif -%}
{{ '\\n' }}
{%- else -%}
{{ 'ASSISTANT:' }}
{%- generation -%}
{{ ' ' }}{{ content if content is string else content[0]['text'] }}{{ '</s>' }}
{%- endgeneration -%}
{{ '\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""


def _corpus() -> Iterator[str]:
    """Yield text for the tokenizers: every word in lessons, often enough to become one token."""
    rng = random.Random("snellen/pico/corpus")
    for index in range(6000):
        fig = figure(f"corpus/{index}", rng.choice(KINDS))
        question, answer = ask(rng, fig, rng.choice(list(TASKS)), rng.randint(2, 28))
        yield f"USER: {caption(fig)}\n{question}\nASSISTANT: {answer}"
    for word in (*KINDS, *COLORS):
        yield from (f" {word} {word}s a photo of a {word} {{{word}," for _ in range(50))


def _tokenizer(vocabulary: int, *, add_bos_eos: bool, **special: Any) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<unk>", "<s>", "</s>", *special.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    if add_bos_eos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=special,
        padding_side="left",
        model_max_length=1024,
    )


def _image_processor() -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    square = {"height": PIXELS, "width": PIXELS}
    return CLIPImageProcessorPil(
        size=square,
        crop_size=square,
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def clip() -> tuple[torch.nn.Module, Any]:
    """Build a CLIP dual encoder (48 px, patch 12) and its processor."""
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor

    tokenizer = _tokenizer(512, add_bos_eos=True)
    factor = 2.0  # CLIP scales its own initial ranges by this
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "max_position_embeddings": 32,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "projection_dim": 64,
    }
    vision = {**VISION, "projection_dim": 64, "initializer_factor": factor}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=64, initializer_factor=factor)
    tokenizer.model_max_length = 32
    return CLIPModel(config), CLIPProcessor(_image_processor(), tokenizer)


def classifier() -> tuple[torch.nn.Module, Any]:
    """Build a vision transformer with a head over the 28 kinds, and its image processor."""
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = ViTConfig(
        **VISION,
        initializer_range=INITIAL_RANGE,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(KINDS)),
        label2id={kind: i for i, kind in enumerate(KINDS)},
    )
    processor = ViTImageProcessorPil(
        size={"height": PIXELS, "width": PIXELS}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return ViTForImageClassification(config), processor


def llava() -> tuple[torch.nn.Module, Any]:
    """Build a LLaVA (the CLIP tower above, a Llama of 4 layers x 128) and its processor."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = _tokenizer(768, add_bos_eos=False, image_token="<image>")
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 1024,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "tie_word_embeddings": True,
        "initializer_range": INITIAL_RANGE,
    }
    vision = {
        "model_type": "clip_vision_model",
        **VISION,
        "projection_dim": 64,
        "initializer_factor": 2.0,
    }
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.image_token_id,
        # CLIP trains only the class token, so use the last layer with it rather than the patches before it.
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=(PIXELS // PATCH) ** 2 + 1,
        tie_word_embeddings=True,
    )
    processor = LlavaProcessor(
        _image_processor(),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    model = LlavaForConditionalGeneration(config)
    settings: Any = model.generation_config
    settings.pad_token_id, settings.bos_token_id, settings.eos_token_id = PAD, BOS, EOS
    return model, processor
