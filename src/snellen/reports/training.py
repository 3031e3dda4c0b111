"""A training's progress on standard error, a line whenever something is known."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from snellen.reports.progress import INTERVAL

#: Called with the stage, the step, the number of steps, and what is known at this step: ``loss``,
#: ``eval_loss``, ``held_out_accuracy``.
TrainingWatch = Callable[[str, int, int, Mapping[str, float]], None]

__all__ = ["TrainingWatch", "training"]

#: What is told of a training, and how.
TOLD = {
    "loss": "loss {:.3f}",
    "eval_loss": "held-out loss {:.3f}",
    "held_out_accuracy": "held-out accuracy {:.1%}",
    "eval_held_out_accuracy": "held-out accuracy {:.1%}",
}


@contextmanager
def training(*, quiet: bool = False) -> Iterator[TrainingWatch | None]:
    """Give a watcher that tells how a training goes: losses and accuracy as they come, and else how far it
    is.
    """
    if quiet:
        yield None
        return
    began = last = time.monotonic()

    def watch(stage: str, step: int, steps: int, known: Mapping[str, float]) -> None:
        nonlocal last
        if "epochs" in known:
            print(
                f"{stage}: {known['examples']:.0f} examples, {steps} steps of {known['batch']:.0f} = "
                f"{known['epochs']:g} epochs, learning rate {known['learning_rate']:g}",
                file=sys.stderr,
                flush=True,
            )
            return
        parts = [words.format(known[key]) for key, words in TOLD.items() if key in known]
        now = time.monotonic()
        if parts or now - last >= INTERVAL:
            last = now
            line = ", ".join([f"{stage}: step {step}/{steps}", *parts, f"{now - began:.0f} s"])
            print(line, file=sys.stderr, flush=True)

    yield watch
