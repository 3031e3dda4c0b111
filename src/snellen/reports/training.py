"""Training progress on standard error, one line per update."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from snellen._util.words import counted
from snellen.reports.progress import INTERVAL

#: Called with the stage, the step, the number of steps, and the values at this step: ``loss``,
#: ``eval_loss``, ``held_out_accuracy``.
TrainingWatch = Callable[[str, int, int, Mapping[str, float]], None]

__all__ = ["TrainingWatch", "training"]

#: The reported values and their formats.
TOLD = {
    "loss": "loss {:.3f}",
    "eval_loss": "held-out loss {:.3f}",
    "held_out_accuracy": "held-out accuracy {:.1%}",
    "eval_held_out_accuracy": "held-out accuracy {:.1%}",
    "held_out_balanced_accuracy": "balanced {:.1%}",
    "eval_held_out_balanced_accuracy": "balanced {:.1%}",
}


@contextmanager
def training(*, quiet: bool = False) -> Iterator[TrainingWatch | None]:
    """Return a watcher that reports losses and accuracy as they arrive, and otherwise the step."""
    if quiet:
        yield None
        return
    began = last = time.monotonic()

    def watch(stage: str, step: int, steps: int, known: Mapping[str, float]) -> None:
        nonlocal last
        if "epochs" in known:
            print(
                f"{stage}: {counted(round(known['examples']), 'example')}, {counted(steps, 'step')} of "
                f"{known['batch']:.0f} = "
                f"{known['epochs']:g} {'epoch' if known['epochs'] == 1 else 'epochs'}, learning rate "
                f"{known['learning_rate']:g}",
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
