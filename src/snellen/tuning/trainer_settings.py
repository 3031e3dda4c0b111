"""The trainer's settings: defaults for the model and data, overridden by the user."""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from snellen.errors import BadOption, did_you_mean, reason_of, require

if TYPE_CHECKING:
    import torch

__all__ = ["checked", "examples_in", "in_effect", "read_settings", "settings"]

#: Smaller models use ten times the learning rate.
SMALL = 10_000_000
#: The default minimum number of steps, and the number of evaluations.
STEPS, LOOKS = 100, 10
#: The default maximum number of epochs: more would overfit a few images.
EPOCHS = 10
#: The minimum of some options.
LEAST = {
    "max_length": 1,
    "pad_to_multiple_of": 1,
    "max_steps": 1,
    "num_train_epochs": 0.001,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "save_steps": 1,
    "learning_rate": 0.0,
}
#: The old and new name of an option.
CHECKPOINTING = ("gradient_checkpointing", "activation_checkpointing")
#: Options that would have no effect here, and why.
WITHOUT_EFFECT = {
    "assistant_only_loss": "the loss covers the assistant's answers alone anyway",
    "packing": "examples with images cannot be packed",
    "eval_packing": "examples with images cannot be packed",
    "packing_strategy": "examples with images cannot be packed",
    "padding_free": "examples with images cannot be flattened",
    "chat_template_path": "the model's own template is used, as in an evaluation",
    "dataset_text_field": "examples are built from the data set by --train-format",
    "dataset_kwargs": "examples are built from the data set by --train-format",
    "dataset_num_proc": "examples are built on access",
    "eos_token": "an answer ends as the model's chat template ends it",
    "pad_token": "the processor's own is used",
    "model_init_kwargs": "use -M for options of the model",
    "shuffle_dataset": "the trainer shuffles examples anyway",
    "remove_unused_columns": "the collator needs all columns",
}
#: By which the best checkpoint is chosen.
BEST = "held_out_balanced_accuracy"
#: Options set by this package, and where the user sets them instead.
DECIDED = {
    "output_dir": "-o",
    "push_to_hub": "--push-to-hub",
    "hub_model_id": "--push-to-hub",
    "seed": "--seed",
}


def read_settings(given: Mapping[str, str], file: Path | None = None) -> dict[str, Any]:
    """Read options of TRL's ``SFTConfig`` from a YAML file and from ``KEY=VALUE``, which take precedence.

    Raises:
        BadOption: an option that SFTConfig does not have, or that is set elsewhere; an unreadable file.
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
            raise BadOption(f"-T {key}={value!r} is not allowed; write the value as in YAML.") from error
    return checked(values, flags)


def checked(given: Mapping[str, Any], flags: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Return options of ``SFTConfig`` with values of their types, without those that mean "not set".

    Args:
        flags: where each was set, for messages; by default, in ``settings``.

    Raises:
        BadOption: an option that SFTConfig does not have, that is set elsewhere, or that has no effect here;
            a value of another type.
        MissingExtra: trl is not installed.
    """
    values = {key: _number(value) for key, value in given.items()}
    if not values:
        return values
    trl: Any = require("trl", "tune", "Fine-tuning")
    hints = typing.get_type_hints(trl.SFTConfig)
    if values.get("max_steps") == -1:  # as TRL writes "not set"
        del values["max_steps"]
    for key, value in values.items():
        where = f"{flags.get(key, 'settings:')} {key}"
        if key.startswith("hub_"):
            raise BadOption(f"{where} is not allowed; use --push-to-hub.")
        if key in DECIDED:
            raise BadOption(f"{where} is not allowed; use {DECIDED[key]}.")
        if key in WITHOUT_EFFECT:
            raise BadOption(f"{where} has no effect here: {WITHOUT_EFFECT[key]}. Omit it.")
        if key not in hints and key not in CHECKPOINTING:
            raise BadOption(
                f"{where}: trl's SFTConfig has no such option.{did_you_mean(key, hints)} Common "
                "options: learning_rate, num_train_epochs, max_steps, per_device_train_batch_size, "
                "gradient_accumulation_steps."
            )
        values[key] = _fitting(where, value, hints.get(key))
        least = LEAST.get(key)
        if least is not None and values[key] is not None and not values[key] >= least:
            raise BadOption(f"{where}={value!r} is not allowed; allowed: {least} or more.")
    return values


def _fitting(where: str, value: Any, hint: Any) -> Any:
    """Convert a value to its declared type; return it unchanged if the type is not a simple one.

    Raises:
        BadOption: it does not fit.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise BadOption(f"{where}={value!r} is not allowed; allowed: finite numbers.")
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
    """Convert numbers that YAML reads as text, such as 1e-4."""
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
    """Build TRL's ``SFTConfig`` for a stage: the user's options over defaults for the model and machine.

    Args:
        examples: their number; with few, as many epochs as 100 steps need, but at most ten.
        parameters: of the model.
        share: of all steps, for this stage.
        watched: whether there is anything to evaluate on; then the checkpoint with the best balanced
            accuracy on it is kept, unless ``load_best_model_at_end`` is off, or checkpoints are not written
            when it is measured.

    Raises:
        BadOption: trl rejects it.
    """
    # Long for its options alone.
    from trl.trainer.sft_config import SFTConfig

    small = parameters < SMALL
    # The name in transformers 5.20 and later; users may use either.
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
        timed |= {"metric_for_best_model": BEST, "greater_is_better": True}
        together = {**timed, **merged}
        timed["load_best_model_at_end"] = (
            together["save_strategy"] == together["eval_strategy"] == "steps"
            and together["save_steps"] % together["eval_steps"] == 0
        )
    try:
        return SFTConfig(output_dir=str(folder), seed=seed, **{**timed, **merged})
    except (TypeError, ValueError, OSError, ImportError) as error:
        raise BadOption(f"-T: trl rejects this configuration ({reason_of(error)}).") from error


def _usual(
    examples: int, small: bool, learning_rate: float, saving: str, device: torch.device
) -> dict[str, Any]:
    """Return defaults for the model and machine."""
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
    """Return the effective numbers of a stage's training."""
    return {
        "examples": examples,
        "steps": config.max_steps,
        "batch": _batch(config),
        "epochs": round(config.max_steps / _steps_of_epoch(config, examples), 2),
        "learning_rate": config.learning_rate,
        "bf16": float(config.bf16),
    }


def examples_in(config: Any, examples: int, begin: int, end: int) -> int:
    """Return how many examples the steps from one to another read; the last step of an epoch reads fewer."""

    def until(step: int) -> int:
        epochs, more = divmod(step, _steps_of_epoch(config, examples))
        return epochs * examples + min(examples, more * _batch(config))

    return until(end) - until(begin)


def _batch(config: Any) -> int:
    """Return the examples of a full step."""
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps
    return int(rows * int(os.environ.get("WORLD_SIZE", "1")))


def _steps_of_epoch(config: Any, examples: int) -> int:
    batch = _batch(config)
    return max(1, examples // batch if config.dataloader_drop_last else -(-examples // batch))
