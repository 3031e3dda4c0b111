"""What is trained of a vision-language model, and in which stages."""

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
    """One training.

    Attributes:
        name: of its folder of checkpoints.
        trains: which parts have their weights changed: ``vision tower``, ``projector``, ``decoder``; none
            where adapters are trained.
        learning_rate: by default; for models of under ten million parameters ten times that.
        share: of the steps, where there are several stages.
    """

    name: str
    trains: frozenset[str]
    learning_rate: float
    share: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """What is trained.

    Attributes:
        about: in a sentence.
        adapter: whether low-rank adapters on the decoder are trained, and not its weights.
        quantized: whether the model lies in 4 bits beneath them.
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
            "low-rank adapters on the decoder; all weights stay",
            (Stage("lora", frozenset(), 2e-4),),
            adapter=True,
        ),
        Recipe(
            "qlora",
            "the same over a model in 4 bits (a GPU, and the extra quantization)",
            (Stage("qlora", frozenset(), 2e-4),),
            adapter=True,
            quantized=True,
        ),
        Recipe("projector", "the projector alone: LLaVA's first stage", (PROJECTOR,)),
        Recipe("decoder", "projector and decoder, the vision tower frozen: LLaVA's second stage", (DECODER,)),
        Recipe(
            "two-stage",
            "projector, then projector and decoder: what a model from parts begins with",
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
    # The projector first: some towers hold it (Qwen's merger).
    part: re.compile(r"(?:^|.*\.)(?:" + "|".join(names) + r")(?:_list)?(?:\..*|$)")
    for part, names in (
        ("projector", (*PLACES["projector"], "deepstack_merger", "vision_embed_tokens")),
        ("vision tower", PLACES["vision tower"]),
    )
}


def part_of(path: str) -> str:
    """Which part a parameter or module belongs to, by its path.

    >>> part_of("model.visual.merger.mlp.0.weight"), part_of("model.vision_tower.x"), part_of("lm_head.w")
    ('projector', 'vision tower', 'decoder')
    """
    return next((part for part, pattern in _PARTS.items() if pattern.match(path)), "decoder")


def freeze(model: Any, trains: Iterable[str]) -> int:
    """Let only some parts of a model learn.

    Returns:
        how many numbers may change.

    Raises:
        Unsupported: the model has no such part under a known name.
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
            f"{type(model).__name__} has no projector under a known name, so it cannot be trained alone. "
            "Recipes that do without: lora, full."
        )
    return left


def check_lora(options: Mapping[str, Any]) -> None:
    """Refuse options that LoraConfig does not have, or values that it does not take, before anything is
    loaded.

    Raises:
        BadOption: as said.
        MissingExtra: peft is not installed.
    """
    peft: Any = require("peft", "tune", "Fine-tuning")
    known = [option.name for option in dataclasses.fields(peft.LoraConfig)]
    for key, value in options.items():
        if key not in known:
            raise BadOption(
                f"-L {key}: peft's LoraConfig has no such option.{did_you_mean(key, known)} Often wanted: r, "
                "lora_alpha, lora_dropout, target_modules."
            )
        if key in ("r", "lora_alpha") and not (isinstance(value, int) and value > 0):
            raise BadOption(f"-L {key}={value!r} is not allowed; allowed: a whole number above 0.")
        if key == "lora_dropout" and not (isinstance(value, int | float) and 0 <= value < 1):
            raise BadOption(f"-L {key}={value!r} is not allowed; allowed: from 0 to below 1.")


def adapters(model: Any, options: Mapping[str, Any]) -> Any:
    """The configuration of low-rank adapters on all linear layers of a model's decoder.

    Args:
        options: of peft's LoraConfig: ``r``, ``lora_alpha``, ``lora_dropout``, ``target_modules`` …

    Raises:
        BadOption: peft refuses one.
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
    """A recipe by name.

    Raises:
        BadOption: there is no such recipe.
    """
    if name not in RECIPES:
        raise BadOption(
            f"--recipe {name!r} is not allowed.{did_you_mean(name, RECIPES)} Allowed: {', '.join(RECIPES)}."
        )
    return RECIPES[name]
