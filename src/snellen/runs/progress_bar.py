"""A progress bar for scripts and notebooks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snellen.engine.evaluation import Evaluation
    from snellen.engine.progress import Progress

__all__ = ["ProgressBar"]


class ProgressBar:
    """A bar for each evaluation, in scripts and notebooks (tqdm). Pass it as ``watch`` to a plan."""

    def __init__(self) -> None:
        self._bars: dict[str, Any] = {}

    def __call__(self, evaluation: Evaluation, state: Progress) -> None:
        """Update the bar of an evaluation."""
        from tqdm.auto import tqdm

        if evaluation.run not in self._bars:
            seconds = 0.2 if sys.stderr.isatty() else 10.0  # a log is not filled with bars
            name = f"{evaluation.model.name} {evaluation.protocol.name}"
            self._bars[evaluation.run] = tqdm(
                total=state.total, desc=name, unit="sample", mininterval=seconds, dynamic_ncols=True
            )
        bar = self._bars[evaluation.run]
        parts = [] if state.accuracy is None else [f"score {100 * state.accuracy:.1f}%"]
        parts += [f"{count} {outcome}" for outcome, count in sorted(state.tally.outcomes.items())]
        bar.set_postfix_str(", ".join(parts), refresh=False)
        bar.update(state.done - bar.n)
        if state.done >= state.total:
            bar.close()

    def close(self) -> None:
        """End all bars, also those of interrupted evaluations."""
        for bar in self._bars.values():
            bar.close()
