"""Assemble a vision-language model: LLaVA's architecture around any encoder and any decoder."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from snellen.errors import BadOption, ModelError, Unsupported, UsageError, reason_of
from snellen.registry import parse_name
from snellen.tuning.layout import for_servers

if TYPE_CHECKING:
    from snellen.models.huggingface.checkpoint import Checkpoint

__all__ = ["BuildResult", "build"]

log = logging.getLogger("snellen")

IMAGE = "<image>"
#: The template for decoders without one: that of LLaVA-1.5's decoder (Vicuna).
PLAIN = (
    "{%- for message in messages -%}{%- if message['role'] == 'system' -%}{{ message['content'] + '\\n' "
    "}}{%- elif message['role'] == 'user' -%}{{ 'USER: ' + message['content'] + '\\n' }}{%- else -%}{{ "
    "'ASSISTANT: ' + message['content'] + eos_token + '\\n' "
    "}}{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}"
)
#: Flattens contents in parts to plain text, for templates that only accept text.
FLATTEN = (
    "{%- set flat = namespace(turns=[]) -%}"
    "{%- for message in messages -%}"
    "{%- set told = namespace(text='') -%}"
    "{%- if message['content'] is string -%}{%- set told.text = message['content'] -%}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- set told.text = told.text + ('<image>\\n' if part['type'] == 'image' else part['text']) -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- set flat.turns = flat.turns + [{'role': message['role'], 'content': told.text}] -%}"
    "{%- endfor -%}"
    "{%- set messages = flat.turns -%}"
)


@dataclass(frozen=True)
class BuildResult:
    """The assembled model.

    Attributes:
        parameters: by part; the projector's are untrained.
        tokens: per image.
        template: ``decoder`` if the chat template is the decoder's own, ``plain`` if it had none.
    """

    folder: Path
    parameters: Mapping[str, int]
    tokens: int
    template: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "folder": str(self.folder),
            "parameters": dict(self.parameters),
            "image_tokens": self.tokens,
            "chat_template": self.template,
        }


def build(
    language: str,
    out: Path,
    *,
    vision: str | None = None,
    layer: int = -2,
    select: Literal["auto", "default", "full"] = "auto",
    image_size: int | None = None,
    patch: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> BuildResult:
    """Join an encoder and a decoder by an untrained projector (two layers, as in LLaVA-1.5) and write them
    in the standard format, with a processor and a chat template that includes images.

    Without an encoder, the raw pixels of patches are projected into the decoder, as in Fuyu. (Fuyu marks
    the ends of rows; here the decoder learns them.)

    Args:
        language, vision: ``hf:ORG/NAME``, ``hf:FOLDER`` or a name without a scheme; of a vision-language
            model or a dual encoder, the matching half is used. ``pico:clip`` and ``pico:llava`` to try it
            out.
        layer: the encoder's hidden state that the projector reads.
        select: ``default`` drops the class token, ``full`` keeps all; auto: default if there is one.
        image_size, patch: pixels a side, without an encoder (224, 16).

    Raises:
        UsageError: the folder is not empty.
        ModelError: a checkpoint is missing or cannot be loaded.
        Unsupported: an encoder without patch outputs, or a model that is not a decoder.

    Source: Liu et al., "Improved Baselines with Visual Instruction Tuning" (arXiv 2310.03744); Bavishi et
    al., "Fuyu-8B" (adept.ai/blog/fuyu-8b, 2023).
    """
    # Long for its options alone.
    side, cell = image_size or 224, patch or 16
    _refuse(out, vision, layer, select, image_size, patch)
    # Resolve both before either is loaded.
    decoder_checkpoint = _checkpoint(language, device)
    vision_checkpoint = None if vision is None else _checkpoint(vision, device)
    import torch
    from transformers import LlavaConfig, set_seed

    set_seed(seed)
    tower, images = _pixels(side, cell) if vision_checkpoint is None else _tower(vision_checkpoint)
    decoder, head, tokenizer, settings = _decoder(decoder_checkpoint)
    if vision_checkpoint is None:
        layer, select = -2, "full"
    size, patch_size = _side(tower.config.image_size), _side(tower.config.patch_size)
    given = _tokens(tower, size)
    patches = (size // patch_size) ** 2
    extra = given - patches
    if extra < 0:
        raise Unsupported(
            f"{vision}: returns {given} vectors for an image of {patches} patches. Use an encoder that "
            "returns one per patch: CLIP, SigLIP, ViT, DINOv2."
        )
    if extra > 1:
        log.warning(
            "%s: next to its class token, it returns %d that are no patches (registers). LLaVA's format can "
            "leave out the class token alone, so the decoder reads the others like patches.",
            vision,
            extra - 1,
        )
    if select == "auto":
        select = "default" if extra else "full"
    depth = tower.config.num_hidden_layers
    if not -depth - 1 <= layer <= depth:
        raise BadOption(f"--layer {layer} is not allowed; {vision} has {depth} layers.")
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
    mark = tokenizer.convert_tokens_to_ids(IMAGE)
    config = LlavaConfig(
        vision_config=tower.config.to_dict(),
        text_config=decoder.config.to_dict(),
        image_token_index=mark,
        vision_feature_layer=layer,
        vision_feature_select_strategy=select,
        image_seq_length=given - (1 if select == "default" else 0),
        tie_word_embeddings=head is None,
    )
    try:
        model = _joined(config, tower, decoder, head)
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise Unsupported(
            f"{language} and {vision or 'no encoder'}: cannot be assembled into a LLaVA "
            f"({reason_of(error)}). Supported: decoders similar to Llama, such as Llama, Qwen, Mistral, "
            "Gemma, SmolLM."
        ) from error
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    # The decoder may end its turns with another token than a text, as Gemma does.
    settings.eos_token_id = _ends(settings.eos_token_id, tokenizer.eos_token_id)
    settings.bos_token_id, settings.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
    model.generation_config = settings
    processor, template = _processor(images, tokenizer, patch_size, select, extra)
    with torch.no_grad():
        model.save_pretrained(out)
    for_servers(out)
    processor.save_pretrained(out)
    parts = {
        "vision tower": model.model.vision_tower,
        "projector": model.model.multi_modal_projector,
        "decoder": model.model.language_model,
    }
    counted = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    return BuildResult(out, counted, config.image_seq_length, template)


def _refuse(
    out: Path, vision: str | None, layer: int, select: str, image_size: int | None, patch: int | None
) -> None:
    """Refuse conflicting options, and a folder that is not empty.

    Raises:
        UsageError: as stated.
    """
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"-o {out}: the folder is not empty. Use a new one.")
    if out.exists() and not out.is_dir():
        raise UsageError(f"-o {out}: this is a file. Use a new folder.")
    if vision is not None and (image_size or patch):
        raise BadOption("--image-size and --patch cannot be used with --vision: the encoder defines them.")
    if vision is None and (layer != -2 or select != "auto"):
        raise BadOption("--layer and --select need --vision.")
    side, cell = image_size or 224, patch or 16
    if vision is None and (cell < 1 or side % cell):
        raise BadOption(f"--patch {cell} must divide --image-size {side}.")


def _joined(config: Any, tower: Any, decoder: Any, head: Any) -> Any:
    """Build a LLaVA from these parts.

    Raises:
        AttributeError, RuntimeError, TypeError, ValueError: they do not fit.
    """
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(decoder.state_dict())
    if head is not None:
        model.lm_head.load_state_dict(head.state_dict())
    else:
        model.tie_weights()
    return model


def _checkpoint(name: str, device: str) -> Checkpoint:
    from snellen.models.huggingface.checkpoint import Checkpoint
    from snellen.models.pico import WEIGHTS

    scheme, rest, options = parse_name(name)
    if options:
        raise BadOption(f"{name}: options are not allowed here.")
    if scheme == "pico" and (WEIGHTS / rest).is_dir():
        return Checkpoint.find(name, str(WEIGHTS / rest), device=device)
    path = rest if scheme in ("hf", "clip", "classifier") and rest else name
    return Checkpoint.find(name, path, device=device)


def _tower(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """Load an encoder, or the vision half of a dual encoder or vision-language model, and its image
    processor.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    config = checkpoint.config()
    own = getattr(config, "vision_config", config)
    for wanted in ("patch_size", "image_size", "num_hidden_layers"):
        if not hasattr(own, wanted):
            raise Unsupported(
                f"{checkpoint.name}: its encoder has no {wanted}. Use one with patches: CLIP, SigLIP, "
                "ViT, DINOv2."
            )
    images = checkpoint.load_processor(AutoImageProcessor)
    if own is config:
        tower = checkpoint.load(AutoModel)
    else:
        # transformers' class for such a configuration reads its weights from the full checkpoint.
        made = type(AutoModel.from_config(AutoConfig.for_model(**own.to_dict())))
        tower = _quietly(checkpoint, made)
    return tower, images


def _quietly(checkpoint: Checkpoint, made: Any) -> Any:
    """Load a part of a checkpoint without warnings about the unused rest."""
    theirs = logging.getLogger("transformers.modeling_utils")
    level = theirs.level
    theirs.setLevel(logging.CRITICAL)
    try:
        return checkpoint.load(made)
    finally:
        theirs.setLevel(level)


def _ends(known: int | list[int] | None, text: int | None) -> int | list[int] | None:
    """Return the tokens that end an answer: the decoder's, and its tokenizer's.

    >>> _ends([1, 106], 1), _ends(None, 2), _ends(2, 2), _ends(2, None)
    ([1, 106], 2, 2, 2)
    """
    listed = known if isinstance(known, list) else [] if known is None else [known]
    ends = list(dict.fromkeys([*listed, *([] if text is None else [text])]))
    return ends[0] if len(ends) == 1 else ends or None


def _decoder(checkpoint: Checkpoint) -> tuple[Any, Any, Any, Any]:
    """Load a decoder without its head, the head (None if it is tied to the embeddings), the tokenizer, and
    how it generates.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    config = checkpoint.config()
    text = config.get_text_config(decoder=True)
    multimodal = text is not config
    try:
        model = checkpoint.load(AutoModelForImageTextToText if multimodal else AutoModelForCausalLM)
    except ModelError as error:
        raise ModelError(f"{checkpoint.name}: not a decoder that generates text ({error})") from error
    decoder = model.model.language_model if multimodal else model.base_model
    head = model.get_output_embeddings()
    tied = head is None or head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    tokenizer = checkpoint.load_processor(AutoTokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return decoder, None if tied else head, tokenizer, copy.deepcopy(model.generation_config)


def _pixels(size: int, patch: int) -> tuple[Any, Any]:
    """Build a tower that passes on the pixels of each patch, and its image processor.

    transformers returns no hidden states for a tower without layers, so this one has a single layer,
    whose input is used instead of its output.
    """
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    width = 3 * patch * patch
    config = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=1,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=size,
        patch_size=patch,
        vision_use_head=False,
    )
    tower: Any = SiglipVisionModel(config)
    with torch.no_grad():
        for path, parameter in tower.named_parameters():
            if "patch_embedding.weight" in path:
                parameter.copy_(torch.eye(width).reshape(width, 3, patch, patch))
            elif "embedding" in path:
                parameter.zero_()
    square = {"height": size, "width": size}
    return tower, SiglipImageProcessorPil(size=square, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def _side(value: Any) -> int:
    return int(value[0] if isinstance(value, list | tuple) else value)


def _tokens(tower: Any, size: int) -> int:
    """Return the number of vectors that a tower returns for an image."""
    import torch

    with torch.inference_mode():
        seen = tower(
            torch.zeros(1, 3, size, size, device=tower.device, dtype=tower.dtype), output_hidden_states=True
        )
    return int(seen.hidden_states[-1].shape[1])


def _processor(images: Any, tokenizer: Any, patch: int, select: str, extra: int) -> tuple[Any, str]:
    """Build the processor with its chat template, and say whose template it is."""
    from transformers import LlavaProcessor

    own = tokenizer.chat_template
    tokenizer.image_token, tokenizer.padding_side = IMAGE, "left"
    tokenizer.init_kwargs["image_token"] = IMAGE
    template = FLATTEN + (own or PLAIN)
    if own and IMAGE in own:  # a vision-language model's template, which already supports images
        template = own
    tokenizer.chat_template = None
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy=select,
        num_additional_image_tokens=extra,
        chat_template=template,
        image_token=IMAGE,
    )
    return processor, "decoder" if own else "plain"
