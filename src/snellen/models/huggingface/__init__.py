"""Models on the Hugging Face Hub, or folders in its format, through transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from snellen.errors import BadOption, require
from snellen.models.base import MODELS
from snellen.models.huggingface.options import Attention, Dtype, PrefixMode

if TYPE_CHECKING:
    from snellen.models.huggingface.custom_code.base import CustomCodeModel
    from snellen.models.huggingface.vlm import VisionLanguageModel

__all__ = ["hf"]


@MODELS.register("hf", example="hf:ORG/NAME or hf:FOLDER")
def hf(
    checkpoint: str,
    *,
    revision: str | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    device_map: Literal["none", "auto", "balanced", "sequential"] = "none",
    attn: Attention = "auto",
    adapter: str | None = None,
    quantization: Literal["none", "8bit", "4bit"] = "none",
    trust_remote_code: bool = False,
    prefix: PrefixMode = "auto",
    graphs: Literal["auto", "off"] = "auto",
    cache_budget: str = "auto",
    max_side: int | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    chat_template: str | None = None,
    thinking: bool | None = None,
    template: Mapping[str, str] = MappingProxyType({}),
) -> VisionLanguageModel | CustomCodeModel:
    """Any image-text-to-text checkpoint of transformers, by Hub id or folder.

    Options: ``revision``; ``dtype`` (auto: float32 on the CPU, the checkpoint's own on a GPU); ``device``
    (auto: a GPU if available); ``device_map``, to spread the layers over all GPUs with accelerate, and beyond
    them over main memory, which is slow; ``attn`` implementation; ``adapter``, a PEFT adapter (folder or Hub
    id) to merge; ``quantization`` with bitsandbytes; ``trust_remote_code=true`` runs code that comes with the
    checkpoint; ``prefix``, whether questions about an image share its computation (auto: if a self-check
    finds that answers do not change; on: otherwise refuse); ``graphs``, whether a GPU records the steps of
    decoding; ``cache_budget``, the memory for both (auto, or such as 2GB); ``max_side``: shrink larger images
    to this many pixels a side; ``min_pixels`` and ``max_pixels`` of an image, in the way that the processor
    offers (Qwen's pixels, LLaVA-NeXT's grids, InternVL's tiles, the longer side of Idefics and SmolVLM; a
    model tuned with any of these keeps them unless one is given); ``chat_template``, a file in Jinja in place
    of the checkpoint's own; ``thinking``, whether a model that can do both is to think, and
    ``template.NAME=VALUE``, any other variable of the template.

    Raises:
        MissingExtra: transformers or torch is not installed.
        ModelError: no such checkpoint.
    """
    # Long for its options alone.
    from snellen.models.huggingface.chat import ChatTemplate
    from snellen.models.huggingface.checkpoint import Checkpoint
    from snellen.models.huggingface.custom_code.base import FAMILIES, CustomCodeModel
    from snellen.models.huggingface.image_size import ImageSize
    from snellen.models.huggingface.prefix_cache.budget import parse_bytes
    from snellen.models.huggingface.vlm import VisionLanguageModel

    size = ImageSize(max_side=max_side, min_pixels=min_pixels, max_pixels=max_pixels)
    budget = parse_bytes("hf?cache_budget", cache_budget)
    weights = Checkpoint.find(
        f"hf:{checkpoint}",
        checkpoint,
        revision=revision,
        dtype=dtype,
        device=device,
        attn=attn,
        trust_remote_code=trust_remote_code,
        adapter=adapter,
        quantization=quantization,
    )
    if device_map != "none":
        if device != "auto":
            raise BadOption(f"device={device} and device_map={device_map} cannot be used together.")
        require("accelerate", "tune", f"device_map={device_map}")
        weights = replace(weights, device_map=device_map)
    weights = weights.showing(size)
    if trust_remote_code and (model_type := weights.config().model_type) in FAMILIES:
        if prefix == "on" or chat_template is not None or thinking is not None or template:
            raise BadOption(
                f"hf:{checkpoint} is asked through the code that comes with it, so that prefix=on, "
                "chat_template=, thinking= and template.NAME= are not allowed."
            )
        return CustomCodeModel(weights, model_type)
    chat = ChatTemplate.of(chat_template, thinking, template)
    return VisionLanguageModel(weights, prefix, budget, chat, graphs=graphs == "auto")
