"""How far an examination is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from snellen.engine.recorder import BatchStats

__all__ = ["Progress", "ProgressCallback"]


@dataclass
class Progress:
    """How far an examination is; told after each block.

    Attributes:
        total: how many samples there are.
        tally: what came of them so far.
        status: what the model says of how it goes.
    """

    total: int
    tally: BatchStats = field(default_factory=BatchStats)
    status: str = ""

    @property
    def done(self) -> int:
        """Samples that have been examined, now or before."""
        return self.tally.known + self.tally.n

    @property
    def accuracy(self) -> float | None:
        """Or whatever the protocol's score is, of the samples examined now; None before the first."""
        return self.tally.right / self.tally.labelled if self.tally.labelled else None

    @property
    def items_per_second(self) -> float | None:
        """Of samples that asked the model; None where none did."""
        return self.tally.n_new / self.tally.seconds if self.tally.n_new and self.tally.seconds else None


ProgressCallback = Callable[[Progress], None]
