"""What a trainer is told: what fits the model and the data, and what the user says instead."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.errors import BadOption, did_you_mean, reason_of, require

if TYPE_CHECKING:
    import torch

__all__ = ["in_effect", "read_settings", "settings"]

#: Smaller models learn at ten times the rate.
SMALL = 10_000_000
#: Steps that a training takes at least where nothing else is said, and how often it is looked at.
STEPS, LOOKS = 100, 10
#: Epochs at most, where nothing else is said: of few images the same ones would be learnt by heart.
EPOCHS = 10
#: The least that some options may be.
LEAST = {
    "max_steps": 1,
    "num_train_epochs": 0.001,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "save_steps": 1,
    "learning_rate": 0.0,
}
#: Old and new name of one option.
CHECKPOINTING = ("gradient_checkpointing", "activation_checkpointing")
#: What this package decides, and where a user says it instead.
DECIDED = {
    "output_dir": "-o",
    "push_to_hub": "--push-to-hub",
    "hub_model_id": "--push-to-hub",
    "seed": "--seed",
}


def read_settings(given: Mapping[str, str], file: Path | None = None) -> dict[str, Any]:
    """Options of TRL's ``SFTConfig`` from a YAML file and from ``KEY=VALUE``, which win.

    Raises:
        BadOption: one that SFTConfig does not have, or that is said elsewhere; a file that cannot be read.
        MissingExtra: trl is not installed.
    """
    import yaml

    values: dict[str, Any] = {}
    flags: dict[str, str] = {}
    if file is not None:
        try:
            read = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise BadOption(f"--config {file}: cannot be read as YAML ({reason_of(error)}).") from error
        if not isinstance(read, dict):
            raise BadOption(f"--config {file}: expected keys and values, such as learning_rate: 1.0e-4.")
        values |= {str(key): _number(value) for key, value in read.items()}
        flags = dict.fromkeys(values, f"--config {file}:")
    for key, value in given.items():
        try:
            values[key], flags[key] = _number(yaml.safe_load(value)), "-T"
        except yaml.YAMLError as error:
            raise BadOption(f"-T {key}={value!r} is not allowed; a value as in YAML is.") from error
    if values:
        trl: Any = require("trl", "tune", "Fine-tuning")
        hints = typing.get_type_hints(trl.SFTConfig)
        if values.get("max_steps") == -1:  # as TRL writes "not given"
            del values["max_steps"]
        for key, value in values.items():
            flag = flags[key]
            if key.startswith("hub_"):
                raise BadOption(f"{flag} {key} is not allowed: --push-to-hub says it.")
            if key in DECIDED:
                raise BadOption(f"{flag} {key} is not allowed: {DECIDED[key]} says it.")
            if key not in hints and key not in CHECKPOINTING:
                raise BadOption(
                    f"{flag} {key}: trl's SFTConfig has no such option.{did_you_mean(key, hints)} Often "
                    "wanted: learning_rate, num_train_epochs, max_steps, per_device_train_batch_size, "
                    "gradient_accumulation_steps."
                )
            values[key] = _fitting(f"{flag} {key}", value, hints.get(key))
            least = LEAST.get(key)
            if least is not None and not values[key] >= least:
                raise BadOption(f"{flag} {key}={value!r} is not allowed; allowed: {least} or more.")
    return values


def _fitting(where: str, value: Any, hint: Any) -> Any:
    """A value as its plain type says; where the type is not plain, as it stands.

    Raises:
        BadOption: it does not fit.
    """
    kinds = [kind for kind in (typing.get_args(hint) or (hint,)) if kind is not type(None)]
    if value is None or not kinds or any(kind not in (bool, int, float, str) for kind in kinds):
        return value
    if float in kinds and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if int not in kinds else value
    if int in kinds and isinstance(value, float) and value.is_integer() and float not in kinds:
        return int(value)
    if type(value) in kinds:
        return value
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    raise BadOption(
        f"{where}={value!r} is not allowed; allowed: {' or '.join(words[kind] for kind in kinds)}."
    )


def _number(value: Any) -> Any:
    """YAML reads 1e-4 as text: it is a number here."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def settings(
    given: Mapping[str, Any],
    *,
    folder: Path,
    examples: int,
    parameters: int,
    learning_rate: float,
    share: float,
    seed: int,
    device: torch.device,
    watched: bool,
) -> Any:
    """TRL's ``SFTConfig`` for a stage: what a user gives, over what suits the model and the machine.

    Args:
        examples: how many there are; of few, the epochs are so many that it takes 100 steps, but ten at most.
        parameters: of the model.
        share: of all steps that fall to this stage.
        watched: whether there is something to evaluate on.

    Raises:
        BadOption: trl refuses.
    """
    from trl.trainer.sft_config import SFTConfig

    small = parameters < SMALL
    # transformers calls it so from 5.20 on; a user may call it either way.
    fields = {option.name for option in dataclasses.fields(SFTConfig)}
    saving = "activation_checkpointing" if "activation_checkpointing" in fields else "gradient_checkpointing"
    given = {saving if key in CHECKPOINTING else key: value for key, value in given.items()}
    usual = _usual(examples, small, learning_rate, saving, device)
    merged = {**usual, **given}
    rows = merged["per_device_train_batch_size"] * merged.get("gradient_accumulation_steps", 1)
    rows *= int(os.environ.get("WORLD_SIZE", "1"))
    epoch = max(1, -(-examples // max(1, rows)))
    if "max_steps" not in given:
        epochs = given.get("num_train_epochs", min(EPOCHS, max(1, -(-STEPS // epoch))))
        merged["max_steps"] = max(1, round(epochs * epoch))
    merged["max_steps"] = max(1, round(share * merged["max_steps"]))
    merged.pop("num_train_epochs", None)
    every = max(1, merged["max_steps"] // LOOKS)
    timed: dict[str, Any] = {
        "logging_steps": max(1, every // 2),
        "save_strategy": "steps",
        "save_steps": every,
        "warmup_steps": max(1, round(0.03 * merged["max_steps"])),
    }
    if watched:
        timed |= {"eval_strategy": "steps", "eval_steps": every, "eval_on_start": True}
    try:
        return SFTConfig(output_dir=str(folder), seed=seed, **{**timed, **merged})
    except (TypeError, ValueError, OSError) as error:
        raise BadOption(f"-T: trl refuses this configuration ({reason_of(error)}).") from error


def _usual(
    examples: int, small: bool, learning_rate: float, saving: str, device: torch.device
) -> dict[str, Any]:
    """What suits the model and the machine, where a user says nothing."""
    import torch

    on_gpu = device.type == "cuda"
    rows = 32 if small else 8
    return {
        "per_device_train_batch_size": min(rows, examples),
        "per_device_eval_batch_size": rows,
        "learning_rate": learning_rate * (10 if small else 1),
        "lr_scheduler_type": "cosine",
        "bf16": on_gpu and torch.cuda.is_bf16_supported(),
        saving: on_gpu and not small,
        "max_length": None,
        "report_to": "none",
        "disable_tqdm": True,
        "save_total_limit": 2,
        "remove_unused_columns": False,
        "use_cpu": device.type == "cpu",
        "logging_nan_inf_filter": False,
    }


def in_effect(config: Any, examples: int) -> dict[str, float]:
    """What a stage's training is, in numbers."""
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps
    rows *= int(os.environ.get("WORLD_SIZE", "1"))
    return {
        "examples": examples,
        "steps": config.max_steps,
        "batch": rows,
        "epochs": round(config.max_steps * rows / examples, 2),
        "learning_rate": config.learning_rate,
        "bf16": float(config.bf16),
    }
