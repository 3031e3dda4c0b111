"""A training by transformers' or TRL's trainer: resumed, watched, and stopped without loss."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snellen.errors import Interrupted, Stopped, reason_of
from snellen.models.out_of_memory import is_out_of_memory
from snellen.reports.training import TrainingWatch
from snellen.tuning.trainer_settings import in_effect

__all__ = ["TrainingWatch", "by_place", "last_checkpoint", "room", "run_stage"]

#: What the trainer writes last into a checkpoint.
STATE = "trainer_state.json"


def by_place(count: int, batch: Callable[[Sequence[int]], dict[str, Any]]) -> Any:
    """A data set of the datasets library whose columns are made of places when they are asked for."""
    from datasets import Dataset

    places = Dataset.from_dict({"place": list(range(count))})
    return places.with_transform(lambda asked: batch(asked["place"]))


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

    class Reporter(TrainerCallback):  # type: ignore[misc] # of no known type: loaded when needed
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

    return Reporter()


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
