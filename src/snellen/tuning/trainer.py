"""A training by transformers' or TRL's trainer: resumed, watched, and stopped without loss."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
import threading
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.errors import BadOption, Interrupted, Stopped, did_you_mean, reason_of, require
from snellen.models.out_of_memory import is_out_of_memory
from snellen.reports.training import TrainingWatch

if TYPE_CHECKING:
    import torch

__all__ = [
    "TrainingWatch",
    "by_place",
    "in_effect",
    "last_checkpoint",
    "read_settings",
    "room",
    "run_stage",
    "settings",
]

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
#: What the trainer writes last into a checkpoint.
STATE = "trainer_state.json"
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


def by_place(count: int, batch: Callable[[Sequence[int]], dict[str, Any]]) -> Any:
    """A data set of the datasets library whose columns are made of places when they are asked for."""
    from datasets import Dataset

    places = Dataset.from_dict({"place": list(range(count))})
    return places.with_transform(lambda asked: batch(asked["place"]))


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


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end; what comes after it is taken away.

    The trainer writes its state last, so a checkpoint without a whole one is a torso.
    """
    numbered = []
    for path in folder.glob("checkpoint-*"):
        number = path.name.rpartition("-")[2]
        if path.is_dir() and number.isdigit():
            numbered.append((int(number), path))
    for _, path in sorted(numbered, reverse=True):
        try:
            json.loads((path / STATE).read_text(encoding="utf-8"))
            return path
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
    return None


def run_stage(
    trainer_class: Any,
    folder: Path,
    stage: str,
    watch: TrainingWatch | None,
    callbacks: Sequence[Any] = (),
    **how: Any,
) -> Any:
    """Train, from the last whole checkpoint on if there is one, and return the trainer, whose ``state`` holds
    what was logged.

    Args:
        trainer_class: transformers' Trainer or a subclass.
        how: what it is made with.

    Raises:
        Stopped: the disk is full, or memory too small; checkpoints that were written stay.
    """
    from transformers import PrinterCallback, TrainerState

    asked = _Interrupt()
    if watch is not None:
        config = how["args"]
        watch(stage, 0, config.max_steps, in_effect(config, len(how["train_dataset"])))
    start = last_checkpoint(folder)
    try:
        with warnings.catch_warnings(), asked:
            # peft asks transformers by an old name
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            trainer = _careful(trainer_class, folder)(
                callbacks=[*callbacks, _reporter(stage, watch, asked)], **how
            )
            trainer.remove_callback(PrinterCallback)
            done = TrainerState.load_from_json(str(start / STATE)) if start else TrainerState()
            if start and done.global_step >= trainer.args.max_steps:
                trainer._load_from_checkpoint(str(start))  # ended before: to go on would be another step
                trainer.state = done
                return trainer
            trainer.train(resume_from_checkpoint=str(start) if start else None)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise Stopped(
            f"Memory is too small for this training ({reason_of(error)}). What helps, in this order: "
            "-T per_device_train_batch_size=1 -T gradient_accumulation_steps=8, "
            "-T gradient_checkpointing=true, --recipe lora, --recipe qlora. Checkpoints that were written "
            f"are kept in {folder}."
        ) from error
    state = trainer.state
    if asked.set and state.global_step < state.max_steps:
        raise Interrupted(
            f"Stopped after step {state.global_step} of {state.max_steps}. The same command goes on "
            "from there."
        )
    return trainer


def _careful(trainer_class: Any, folder: Path) -> Any:
    """The trainer with checkpoints that are read whole, and an error that says what to do where one cannot be
    written.
    """
    from transformers import PreTrainedModel

    # What is loaded when it is needed is of no known type.
    class Careful(trainer_class):  # type: ignore[misc]
        """Says what to do where a checkpoint cannot be written."""

        def _load_from_checkpoint(self, path: str, model: Any = None) -> None:
            network = self.model if model is None else model
            if not isinstance(network, PreTrainedModel):
                super()._load_from_checkpoint(path, model)
                return
            # A checkpoint has the names that are saved, which need not be those of the modules: the trainer
            # would leave out what it does not find, without a word.
            kept = type(network).from_pretrained(path, dtype="auto")
            network.load_state_dict(kept.state_dict())

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            try:
                super()._save_checkpoint(model, trial)
            except Exception as error:
                complete = last_checkpoint(folder)
                kept = f"{complete} is kept" if complete else "there is no earlier one"
                raise Stopped(
                    f"A checkpoint cannot be written to {folder} ({reason_of(error)}); {kept}. Make room on "
                    "this disk and give the same command again: it goes on from there."
                ) from error

    return Careful


def _reporter(stage: str, watch: TrainingWatch | None, asked: _Interrupt) -> Any:
    """A callback that passes on what is logged, and stops after the step in which it was asked to."""
    from transformers import TrainerCallback

    class Told(TrainerCallback):  # type: ignore[misc] # of no known type: loaded when needed
        """Passes on what is logged, and stops after this step where somebody wants it to stop."""

        def on_log(self, _: Any, state: Any, __: Any, logs: Any = None, **___: Any) -> None:
            if watch is not None and state.is_world_process_zero:
                numbers = {k: float(v) for k, v in (logs or {}).items() if isinstance(v, int | float)}
                watch(stage, state.global_step, state.max_steps, numbers)

        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            if watch is not None and state.is_world_process_zero:
                watch(stage, state.global_step, state.max_steps, {})
            if asked.set:
                control.should_save = control.should_training_stop = True

    return Told()


class _Interrupt:
    """Ctrl+C once: to be noticed when it suits; twice: as ever. In a thread of its own, as ever at once."""

    def __init__(self) -> None:
        self.set = False

    def __enter__(self) -> _Interrupt:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: object) -> None:
        self.set = True
        print("Stopping after this step; what is learnt is kept. Ctrl+C again: at once.", file=sys.stderr)
        signal.signal(signal.SIGINT, self._before)


@contextmanager
def room(folder: Path) -> Iterator[None]:
    """Where something is written for good: a full disk becomes a sentence.

    Raises:
        Stopped: it cannot be written.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise Stopped(
            f"{folder}: cannot be written ({reason_of(error)}). Make room on this disk and give the same "
            "command again: what was learnt is kept in its checkpoints."
        ) from error
