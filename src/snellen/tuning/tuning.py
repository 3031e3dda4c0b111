"""The entry point of fine-tuning for Python users and the command line."""

from __future__ import annotations

from dataclasses import dataclass

from snellen.tuning.config import TuningConfig
from snellen.tuning.manifest import MANIFEST
from snellen.tuning.plan import TuningPlan
from snellen.tuning.runner import TunedModel, TuningRunner

__all__ = ["MANIFEST", "TunedModel", "Tuning"]


@dataclass(kw_only=True)
class Tuning(TuningConfig):
    """A fine-tuning as described by :class:`TuningConfig`: checked when it is created, executed by
    :meth:`run`.

    Raises:
        UsageError: as its subclasses say, before anything is loaded.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plan = TuningPlan(self)

    def run(self) -> TunedModel | None:
        """Check, evaluate, train, evaluate again, record.

        Returns:
            the tuned model; None in all processes except the first.

        Raises:
            DataError: test samples are in the training data, or an image cannot be read.
            UsageError: the folder contains something else.
            Stopped: not enough memory or disk space.
        """
        return TuningRunner(self.plan).run()
