"""A training by transformers' or TRL's trainer: resumed, watched, and stopped without loss."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.errors import BadOption, Stopped, did_you_mean, reason_of, require

if TYPE_CHECKING:
    import torch

__all__ = ["Watch", "carry_out", "last_checkpoint", "read_settings", "settings"]

#: Told of the stage, the step, the steps in all, and what is known at this step: ``loss``,
#: ``eval_loss``, ``held_out_accuracy``.
Watch = Callable[[str, int, int, Mapping[str, float]], None]

#: Smaller models learn at ten times the rate.
SMALL = 10_000_000
#: Steps that a training takes at least where nothing else is said, and how often it is looked at.
STEPS, LOOKS = 100, 10
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

    found: dict[str, Any] = {}
    if file is not None:
        try:
            read = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise BadOption(f"--config {file}: cannot be read as YAML ({reason_of(error)}).") from error
        if not isinstance(read, dict):
            raise BadOption(f"--config {file}: expected keys and values, such as learning_rate: 1.0e-4.")
        found |= {str(key): _number(value) for key, value in read.items()}
    for key, value in given.items():
        try:
            found[key] = _number(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise BadOption(f"-T {key}={value!r} is not allowed; a value as in YAML is.") from error
    if found:
        trl: Any = require("trl", "tune", "Fine-tuning")
        known = [one.name for one in dataclasses.fields(trl.SFTConfig)]
        for key in found:
            if key in CHECKPOINTING:
                continue
            if key in DECIDED:
                raise BadOption(f"-T {key}= is not allowed: {DECIDED[key]} says it.")
            if key not in known:
                raise BadOption(
                    f"-T {key}: trl's SFTConfig has no such option.{did_you_mean(key, known)} Often wanted: "
                    "learning_rate, num_train_epochs, max_steps, per_device_train_batch_size, "
                    "gradient_accumulation_steps."
                )
    return found


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
        examples: how many there are; of short ones the epochs are so many that it takes 100 steps.
        parameters: of the model.
        share: of all steps that fall to this stage.
        watched: whether there is something to evaluate on.

    Raises:
        BadOption: trl refuses.
    """
    import torch
    from trl.trainer.sft_config import SFTConfig

    on_gpu = device.type == "cuda"
    small = parameters < SMALL
    # transformers calls it so from 5.20 on; a user may call it either way.
    fields = {one.name for one in dataclasses.fields(SFTConfig)}
    saving = "activation_checkpointing" if "activation_checkpointing" in fields else "gradient_checkpointing"
    given = {saving if key in CHECKPOINTING else key: value for key, value in given.items()}
    usual: dict[str, Any] = {
        "per_device_train_batch_size": 32 if small else 8,
        "per_device_eval_batch_size": 32 if small else 8,
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
    usual["per_device_train_batch_size"] = min(usual["per_device_train_batch_size"], examples)
    merged = {**usual, **given}
    rows = merged["per_device_train_batch_size"] * merged.get("gradient_accumulation_steps", 1)
    rows *= int(os.environ.get("WORLD_SIZE", "1"))
    epoch = max(1, -(-examples // max(1, rows)))
    if "max_steps" not in given:
        epochs = given.get("num_train_epochs", max(1, -(-STEPS // epoch)))
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


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end; what comes after it is taken away.

    The trainer writes ``trainer_state.json`` last, so a checkpoint without a whole one is a torso.
    """
    numbered = []
    for path in folder.glob("checkpoint-*"):
        number = path.name.rpartition("-")[2]
        if path.is_dir() and number.isdigit():
            numbered.append((int(number), path))
    for _, path in sorted(numbered, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            return path
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
    return None


def carry_out(
    trainer_class: Any,
    folder: Path,
    stage: str,
    watch: Watch | None,
    callbacks: Sequence[Any] = (),
    **how: Any,
) -> list[dict[str, Any]]:
    """Train, from the last whole checkpoint on if there is one, and return what was logged.

    Args:
        trainer_class: transformers' Trainer or a subclass.
        how: what it is made with.

    Raises:
        Stopped: the disk is full, or memory too small; checkpoints that were written stay.
    """
    from transformers import PrinterCallback, TrainerCallback

    class Careful(trainer_class):  # type: ignore[misc]
        """Says what to do where a checkpoint cannot be written."""

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            try:
                super()._save_checkpoint(model, trial)
            except Exception as error:
                whole = last_checkpoint(folder)
                kept = f"{whole} is kept" if whole else "there is no earlier one"
                raise Stopped(
                    f"A checkpoint cannot be written to {folder} ({reason_of(error)}); {kept}. Make room on "
                    "this disk and give the same command again: it goes on from there."
                ) from error

    class Told(TrainerCallback):  # type: ignore[misc]
        """Passes on what is logged."""

        def on_log(self, _: Any, state: Any, __: Any, logs: Any = None, **___: Any) -> None:
            if watch is not None and state.is_world_process_zero:
                numbers = {k: float(v) for k, v in (logs or {}).items() if isinstance(v, int | float)}
                watch(stage, state.global_step, state.max_steps, numbers)

        def on_step_end(self, _: Any, state: Any, __: Any, **___: Any) -> None:
            if watch is not None and state.is_world_process_zero:
                watch(stage, state.global_step, state.max_steps, {})

    start = last_checkpoint(folder)
    try:
        with warnings.catch_warnings():
            # peft asks transformers by an old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            trainer = Careful(callbacks=[*callbacks, Told()], **how)
            trainer.remove_callback(PrinterCallback)
            trainer.train(resume_from_checkpoint=str(start) if start else None)
    except Exception as error:
        if not _no_memory(error):
            raise
        raise Stopped(
            f"Memory is too small for this training ({reason_of(error)}). What helps, in this order: "
            "-T per_device_train_batch_size=1 -T gradient_accumulation_steps=8, "
            "-T gradient_checkpointing=true, --recipe lora, --recipe qlora. Checkpoints that were written "
            f"are kept in {folder}."
        ) from error
    log: list[dict[str, Any]] = trainer.state.log_history
    return log


def _no_memory(error: BaseException) -> bool:
    import torch

    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
