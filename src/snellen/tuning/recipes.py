"""Recipes: which parts of a vision-language model to train, and in which stages."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from snellen.errors import BadOption, Unsupported, did_you_mean, require
from snellen.models.huggingface.features import PLACES

__all__ = ["RECIPES", "Recipe", "Stage", "named_recipe", "part_of"]


@dataclass(frozen=True)
class Stage:
    """One training stage.

    Attributes:
        name: also of its folder of checkpoints.
        trains: the parts to train: ``vision tower``, ``projector``, ``decoder``; empty for adapters.
        learning_rate: the default; ten times that for models below ten million parameters.
        share: of the steps, if there are several stages.
    """

    name: str
    trains: frozenset[str]
    learning_rate: float
    share: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """What to train.

    Attributes:
        about: one sentence.
        adapter: whether to train low-rank adapters on the decoder instead of its weights.
        quantized: whether the base model is loaded in 4 bits.
    """

    name: str
    about: str
    stages: tuple[Stage, ...]
    adapter: bool = False
    quantized: bool = False


PROJECTOR = Stage("projector", frozenset({"projector"}), 1e-3)
DECODER = Stage("decoder", frozenset({"projector", "decoder"}), 2e-5)

#: LoRA: Hu et al., arXiv 2106.09685; QLoRA: Dettmers et al., arXiv 2305.14314; the two stages and their
#: learning rates: Liu et al., "Visual Instruction Tuning" (arXiv 2304.08485), appendix C.
RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "lora",
            "low-rank adapters on the decoder, base weights unchanged",
            (Stage("lora", frozenset(), 2e-4),),
            adapter=True,
        ),
        Recipe(
            "qlora",
            "the same on a model in 4 bits (needs a GPU and the extra quantization)",
            (Stage("qlora", frozenset(), 2e-4),),
            adapter=True,
            quantized=True,
        ),
        Recipe("projector", "only the projector: LLaVA's first stage", (PROJECTOR,)),
        Recipe("decoder", "projector and decoder, the vision tower frozen: LLaVA's second stage", (DECODER,)),
        Recipe(
            "two-stage",
            "projector, then projector and decoder: the start for an assembled model",
            (
                Stage(PROJECTOR.name, PROJECTOR.trains, PROJECTOR.learning_rate, 0.3),
                Stage(DECODER.name, DECODER.trains, DECODER.learning_rate, 0.7),
            ),
        ),
        Recipe(
            "full",
            "all weights",
            (Stage("full", frozenset({"vision tower", "projector", "decoder"}), 1e-5),),
        ),
        Recipe("head", "a classification head on the model's frozen features: a baseline", ()),
    )
}

_PARTS = {
    # The projector first: some towers contain it (Qwen's merger).
    part: re.compile(r"(?:^|.*\.)(?:" + "|".join(names) + r")(?:_list)?(?:\..*|$)")
    for part, names in (
        ("projector", (*PLACES["projector"], "deepstack_merger", "vision_embed_tokens")),
        ("vision tower", PLACES["vision tower"]),
    )
}


def part_of(path: str) -> str:
    """Return the part that a parameter or module belongs to, by its path.

    >>> part_of("model.visual.merger.mlp.0.weight"), part_of("model.vision_tower.x"), part_of("lm_head.w")
    ('projector', 'vision tower', 'decoder')
    """
    return next((part for part, pattern in _PARTS.items() if pattern.match(path)), "decoder")


def freeze(model: Any, trains: Iterable[str]) -> int:
    """Freeze all but some parts of a model.

    Returns:
        the number of trainable parameters.

    Raises:
        Unsupported: the model has no part with a known name of this kind.
    """
    wanted, left = set(trains), 0
    names = set()
    for path, parameter in model.named_parameters():
        part = part_of(path)
        names.add(part)
        parameter.requires_grad_(part in wanted)
        left += parameter.numel() if part in wanted else 0
    if "projector" in wanted - names:
        raise Unsupported(
            f"{type(model).__name__} has no projector with a known name, so it cannot be trained separately. "
            "Recipes without it: lora, full."
        )
    return left


def check_lora(options: Mapping[str, Any]) -> None:
    """Refuse options that LoraConfig does not have, or invalid values, before anything is loaded.

    Raises:
        BadOption: as stated.
        MissingExtra: peft is not installed.
    """
    peft: Any = require("peft", "tune", "Fine-tuning")
    known = [option.name for option in dataclasses.fields(peft.LoraConfig)]
    for key, value in options.items():
        if key not in known:
            raise BadOption(
                f"-L {key}: peft's LoraConfig has no such option.{did_you_mean(key, known)} Common "
                "options: r, "
                "lora_alpha, lora_dropout, target_modules."
            )
        if key in ("r", "lora_alpha") and not (isinstance(value, int) and value > 0):
            raise BadOption(f"-L {key}={value!r} is not allowed; allowed: a whole number above 0.")
        if key == "lora_dropout" and not (isinstance(value, int | float) and 0 <= value < 1):
            raise BadOption(f"-L {key}={value!r} is not allowed; allowed: from 0 to below 1.")


def adapters(model: Any, options: Mapping[str, Any]) -> Any:
    """Return the configuration of low-rank adapters on all linear layers of a model's decoder.

    Args:
        options: of peft's LoraConfig: ``r``, ``lora_alpha``, ``lora_dropout``, ``target_modules`` …

    Raises:
        BadOption: peft rejects one.
    """
    import torch
    from peft import LoraConfig

    ends = {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and part_of(path) == "decoder" and "lm_head" not in path
    }
    names = "|".join([*PLACES["vision tower"], *PLACES["projector"], "lm_head"])
    usual = {
        "r": 16,
        "lora_alpha": 32,
        "target_modules": sorted(ends),
        "exclude_modules": rf"(?:.*\.)?(?:{names})(?:\..*)?",
        "task_type": "CAUSAL_LM",
    }
    try:
        return LoraConfig(**{**usual, **options})
    except (TypeError, ValueError) as error:
        raise BadOption(f"An option of LoRA is not allowed: {error}.") from error


def named_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        BadOption: there is no such recipe.
    """
    if name not in RECIPES:
        raise BadOption(
            f"--recipe {name!r} is not allowed.{did_you_mean(name, RECIPES)} Allowed: {', '.join(RECIPES)}."
        )
    return RECIPES[name]
