"""The progress of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from snellen.engine.recorder import BatchStats

__all__ = ["Progress", "ProgressCallback"]


@dataclass
class Progress:
    """The progress of an evaluation, reported after each block.

    Attributes:
        total: the number of samples.
        tally: the results so far.
        status: the model's own status message.
    """

    total: int
    tally: BatchStats = field(default_factory=BatchStats)
    status: str = ""

    @property
    def done(self) -> int:
        """Samples evaluated so far, now or before."""
        return self.tally.known + self.tally.n

    @property
    def accuracy(self) -> float | None:
        """The accuracy, or the protocol's score, of samples evaluated now; None before the first."""
        return self.tally.right / self.tally.labeled if self.tally.labeled else None

    @property
    def items_per_second(self) -> float | None:
        """Throughput over samples for which the model was called; None if there are none."""
        return self.tally.n_new / self.tally.seconds if self.tally.n_new and self.tally.seconds else None


ProgressCallback = Callable[[Progress], None]
