"""Train with transformers' or TRL's trainer: resumable, monitored, and interruptible without loss."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from snellen._util.environment import peak_rss
from snellen.errors import BadOption, Interrupted, Stopped, reason_of
from snellen.models.out_of_memory import is_out_of_memory
from snellen.reports.training import TrainingWatch
from snellen.tuning.recipes import part_of
from snellen.tuning.trainer_settings import examples_in, in_effect

__all__ = ["Pace", "TrainingWatch", "by_place", "last_checkpoint", "room", "run_stage"]

#: The last file that the trainer writes into a checkpoint.
STATE = "trainer_state.json"


def by_place(count: int, batch: Callable[[Sequence[int]], dict[str, Any]]) -> Any:
    """Return a data set of the datasets library whose columns are computed from positions on access."""
    from datasets import Dataset

    places = Dataset.from_dict({"place": list(range(count))})
    return places.with_transform(lambda asked: batch(asked["place"]))


def last_checkpoint(folder: Path) -> Path | None:
    """Return the last complete checkpoint, and delete incomplete ones.

    The trainer writes its state last, so a checkpoint without a complete state is incomplete.
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
    rates: Mapping[str, float] = MappingProxyType({}),
    **how: Any,
) -> Any:
    """Train, resuming from the last complete checkpoint, and return the trainer, whose ``state`` holds the
    log.

    Args:
        trainer_class: transformers' Trainer or a subclass.
        rates: learning rates of parts that have another one.
        how: its arguments.

    Raises:
        Stopped: not enough disk space or memory; existing checkpoints are kept.
        BadOption: the trainer cannot do what an option asks for.
    """
    # Long: what is caught and filtered here belongs to one call.
    from transformers import PrinterCallback, TrainerState

    asked = _Interrupt()
    if watch is not None:
        config = how["args"]
        watch(stage, 0, config.max_steps, in_effect(config, len(how["train_dataset"])))
    start = last_checkpoint(folder)
    try:
        with warnings.catch_warnings(), asked:
            # peft imports an old name from transformers
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            # TRL only means to say that this takes another pass
            warnings.filterwarnings("ignore", "`label_smoothing_factor`", FutureWarning)
            trainer = _careful(trainer_class, folder, rates)(
                callbacks=[*callbacks, _reporter(stage, watch, asked)], **how
            )
            trainer.remove_callback(PrinterCallback)
            done = TrainerState.load_from_json(str(start / STATE)) if start else TrainerState()
            if start and done.global_step >= trainer.args.max_steps:
                # Already finished: resuming would take another step.
                best = folder / Path(done.best_model_checkpoint or start).name
                last = best if trainer.args.load_best_model_at_end else start
                trainer._load_from_checkpoint(str(last))
                trainer.state = done
                return trainer
            trainer.train(resume_from_checkpoint=str(start) if start else None)
    except ImportError as error:
        raise BadOption(
            f"-T: the trainer needs a package that is not installed ({reason_of(error)})."
        ) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in how["args"].report_to:
            raise BadOption(f"-T report_to={type(error).__module__}: {reason_of(error)}") from error
        if not is_out_of_memory(error):
            raise
        raise Stopped(
            f"Out of memory in training ({reason_of(error)}). Try, in this order: "
            "-T per_device_train_batch_size=1 -T gradient_accumulation_steps=8, "
            "-T gradient_checkpointing=true, --recipe lora, --recipe qlora. Checkpoints so far "
            f"are in {folder}."
        ) from error
    state = trainer.state
    if asked.set and state.global_step < state.max_steps:
        raise Interrupted(
            f"Stopped after step {state.global_step} of {state.max_steps}. Rerun the same command to resume "
            "from there."
        )
    return trainer


def _careful(trainer_class: Any, folder: Path, rates: Mapping[str, float]) -> Any:
    """Return a trainer class that loads checkpoints completely, explains failures to write them, and trains
    parts at separate learning rates.
    """
    from transformers import PreTrainedModel

    # Lazily imported classes have no static type.
    class Careful(trainer_class):  # type: ignore[misc]
        """Explains failures to write a checkpoint."""

        def create_optimizer(self, model: Any = None) -> Any:
            made = self.optimizer
            optimizer = super().create_optimizer(model)
            if made is None and rates:
                names = {id(p): part_of(name) for name, p in (model or self.model).named_parameters()}
                optimizer.param_groups = list(_by_part(optimizer.param_groups, names, rates))
            return optimizer

        def _load_from_checkpoint(self, path: str, model: Any = None) -> None:
            network = self.model if model is None else model
            if not isinstance(network, PreTrainedModel):
                super()._load_from_checkpoint(path, model)
                return
            # A checkpoint's parameter names may differ from those of the modules, and the trainer
            # would silently skip names that it does not find.
            kept = type(network).from_pretrained(path, dtype="auto")
            network.load_state_dict(kept.state_dict())

        def _load_best_model(self) -> None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled or not self.state.best_model_checkpoint:
                super()._load_best_model()
                return
            self._load_from_checkpoint(str(folder / Path(self.state.best_model_checkpoint).name))

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            try:
                super()._save_checkpoint(model, trial)
            except Exception as error:
                complete = last_checkpoint(folder)
                kept = f"{complete} is kept" if complete else "there is no earlier one"
                raise Stopped(
                    f"A checkpoint cannot be written to {folder} ({reason_of(error)}); {kept}. Free some "
                    "space on "
                    "this disk and rerun the same command to resume."
                ) from error

    return Careful


def _by_part(
    groups: Iterable[Mapping[str, Any]], names: Mapping[int, str], rates: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Divide an optimizer's groups of parameters by the part of the model, to give some another rate."""
    for group in groups:
        parts: dict[str, list[Any]] = {}
        for parameter in group["params"]:
            parts.setdefault(names[id(parameter)], []).append(parameter)
        for part, parameters in parts.items():
            yield {**group, "params": parameters, "lr": rates.get(part, group["lr"])}


def _reporter(stage: str, watch: TrainingWatch | None, asked: _Interrupt) -> Any:
    """Return a callback that forwards log entries, and stops after the current step on request."""
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):  # type: ignore[misc] # of no known type: loaded when needed
        """Forwards log entries, and stops after the current step on request."""

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


class Pace:
    """Measures a stage: examples per second, without evaluations and checkpoints, and peak memory."""

    def __init__(self) -> None:
        self._seconds, self._steps, self._mark = 0.0, 0, 0.0

    def effective(self, trainer: Any, examples: int) -> dict[str, float]:
        """Return the effective numbers of a stage that has ended: steps, epochs …, the step whose checkpoint
        was kept, and what was measured, if it took a step here.
        """
        import torch

        numbers = in_effect(trainer.args, examples)
        if self._steps:
            peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_rss()
            done = trainer.state.global_step
            speed = examples_in(trainer.args, examples, done - self._steps, done) / self._seconds
            numbers |= {"examples_per_second": round(speed, 3), "peak_memory_bytes": float(peak)}
        if trainer.args.load_best_model_at_end and trainer.state.best_global_step:
            numbers["kept_step"] = trainer.state.best_global_step
        return numbers

    def callback(self) -> Any:
        """Return a callback of the trainer that measures."""
        import torch
        from transformers import TrainerCallback

        pace = self

        class Clock(TrainerCallback):  # type: ignore[misc] # of no known type: loaded when needed
            """Measures the time of steps."""

            def on_train_begin(self, *_: Any, **__: Any) -> None:
                if torch.cuda.is_available():
                    torch.cuda.reset_peak_memory_stats()
                pace._mark = time.monotonic()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                now = time.monotonic()
                pace._seconds, pace._steps, pace._mark = (
                    pace._seconds + now - pace._mark,
                    pace._steps + 1,
                    now,
                )

            def on_evaluate(self, *_: Any, **__: Any) -> None:
                pace._mark = time.monotonic()

            def on_save(self, *_: Any, **__: Any) -> None:
                pace._mark = time.monotonic()

        return Clock()


class _Interrupt:
    """Handles Ctrl+C: the first one requests a stop after the current step; the second acts as usual. In
    another thread, the first one acts as usual too.
    """

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
        print(
            "Stopping after this step and saving a checkpoint. Press Ctrl+C again to stop at once.",
            file=sys.stderr,
        )
        signal.signal(signal.SIGINT, self._before)


@contextmanager
def room(folder: Path) -> Iterator[None]:
    """A context for writing results: a full disk becomes a clear error.

    Raises:
        Stopped: writing failed.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise Stopped(
            f"{folder}: cannot be written ({reason_of(error)}). Free some space on this disk and rerun the "
            "same "
            "command to resume from its checkpoints."
        ) from error
