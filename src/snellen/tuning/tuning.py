"""Fine-tuning, as Python users and the command line call it."""

from __future__ import annotations

from dataclasses import dataclass

from snellen.tuning.config import TuningConfig
from snellen.tuning.manifest import MANIFEST
from snellen.tuning.plan import TuningPlan
from snellen.tuning.runner import TunedModel, TuningRunner

__all__ = ["MANIFEST", "TunedModel", "Tuning"]


@dataclass(kw_only=True)
class Tuning(TuningConfig):
    """A tuning: what :class:`TuningConfig` says, checked when it is made, done when it is run.

    Raises:
        UsageError: as its subclasses say, before anything is loaded.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plan = TuningPlan(self)

    def run(self) -> TunedModel | None:
        """Check, evaluate, train, evaluate again, write down.

        Returns:
            the tuned model; None in all processes but the first of several.

        Raises:
            DataError: tested samples are among those learned from, or an image cannot be read.
            UsageError: the folder holds something else.
            Stopped: memory, or the disk, was too small.
        """
        return TuningRunner(self.plan).run()
