"""Recipes: which parts of a vision-language model to train, and in which stages."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snellen.errors import BadOption, Unsupported, did_you_mean, require
from snellen.models.huggingface.features import PLACES

__all__ = ["RECIPES", "Recipe", "Stage", "named_recipe", "part_of"]


@dataclass(frozen=True)
class Stage:
    """One training stage.

    Attributes:
        name: also of its folder of checkpoints.
        trains: the parts to train, or to add adapters to: ``vision tower``, ``projector``, ``decoder``.
        learning_rate: the default; ten times that for models below ten million parameters.
        share: of the steps, if there are several stages.
        rates: learning rates of parts that have another one.
    """

    name: str
    trains: frozenset[str]
    learning_rate: float
    share: float = 1.0
    rates: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """What to train.

    Attributes:
        about: one sentence.
        adapter: whether to train low-rank adapters instead of the weights.
        quantized: whether the base model is loaded in 4 bits.
    """

    name: str
    about: str
    stages: tuple[Stage, ...]
    adapter: bool = False
    quantized: bool = False

    def on(self, parts: Sequence[str]) -> Recipe:
        """Return the recipe for other parts of the model.

        Args:
            parts: of ``vision``, ``projector`` and ``decoder``; ``PART@RATE`` sets a learning rate.

        Raises:
            BadOption: an unknown part, an invalid rate, or a recipe that says itself what it trains.
        """
        if not parts:
            return self
        if self.name not in WITH_PARTS:
            raise BadOption(
                f"--train-parts needs the recipe {', '.join(WITH_PARTS)}; {self.name} trains {self.about}."
            )
        rates: dict[str, float] = {}
        named = []
        for item in parts:
            name, at, text = item.partition("@")
            if name not in PARTS:
                raise BadOption(
                    f"--train-parts {item!r} is not allowed.{did_you_mean(name, PARTS)} Allowed: "
                    f"{', '.join(PARTS)}, each with a learning rate if you like, such as vision@1e-5."
                )
            if PARTS[name] in named:
                raise BadOption(f"--train-parts names {name!r} twice. Give each part once.")
            named.append(PARTS[name])
            if at:
                rates[PARTS[name]] = _rate(item, text)
        (stage,) = self.stages
        what = "low-rank adapters on" if self.adapter else "all weights of"
        return dataclasses.replace(
            self,
            about=f"{what} {' and '.join(sorted(set(named)))}",
            stages=(dataclasses.replace(stage, trains=frozenset(named), rates=rates),),
        )


def _rate(item: str, text: str) -> float:
    """Read a learning rate.

    Raises:
        BadOption: it is not a number above 0.
    """
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1:
        raise BadOption(
            f"--train-parts {item!r} is not allowed; allowed: a learning rate between 0 and 1, such as 1e-5."
        )
    return rate


#: Parts as options name them.
PARTS = {"vision": "vision tower", "projector": "projector", "decoder": "decoder"}
#: Recipes whose parts can be chosen.
WITH_PARTS = ("lora", "qlora", "full")

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
            (Stage("lora", frozenset({"decoder"}), 2e-4),),
            adapter=True,
        ),
        Recipe(
            "qlora",
            "the same on a model in 4 bits (needs a GPU and the extra quantization)",
            (Stage("qlora", frozenset({"decoder"}), 2e-4),),
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


def adapters(model: Any, options: Mapping[str, Any], parts: Iterable[str] = ("decoder",)) -> Any:
    """Return the configuration of low-rank adapters on all linear layers of some parts of a model.

    Args:
        options: of peft's LoraConfig: ``r``, ``lora_alpha``, ``lora_dropout``, ``target_modules`` …

    Raises:
        BadOption: peft rejects one.
        Unsupported: a part has no linear layer with a known name.
    """
    import torch
    from peft import LoraConfig

    paths: dict[str, set[str]] = {}
    for path, module in model.named_modules():
        # The attention of some towers' last layer reads its output weights itself, past an adapter.
        inner = isinstance(model.get_submodule(path.rpartition(".")[0]), torch.nn.MultiheadAttention)
        if isinstance(module, torch.nn.Linear) and "lm_head" not in path and not inner:
            paths.setdefault(part_of(path), set()).add(path.rpartition(".")[2])
    wanted = set(parts)
    if missing := wanted - set(paths):
        raise Unsupported(
            f"{type(model).__name__} has no linear layers with known names in its {' and '.join(missing)}, "
            f"so there can be no adapters. It has some in: {', '.join(sorted(paths))}."
        )
    usual = {
        "r": 16,
        "lora_alpha": 32,
        "target_modules": sorted(set[str]().union(*(paths[part] for part in wanted))),
        "exclude_modules": _except(wanted),
        "task_type": "CAUSAL_LM",
    }
    try:
        return LoraConfig(**{**usual, **options})
    except (TypeError, ValueError) as error:
        raise BadOption(f"An option of LoRA is not allowed: {error}.") from error


def _except(parts: set[str]) -> str:
    """Return a pattern of the modules that get no adapters, though layers of wanted parts are named alike."""
    projector, tower = (pattern.pattern for pattern in _PARTS.values())
    patterns = {
        "projector": projector,
        "vision tower": f"(?!{projector}){tower}",
        "decoder": f"(?!{projector})(?!{tower}).*",
    }
    left = [pattern for part, pattern in patterns.items() if part not in parts]
    return "|".join([*left, r"(?:.*\.)?lm_head(?:\..*)?"])


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
