"""The entry point of fine-tuning for Python users and the command line."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from snellen.errors import BadOption, did_you_mean
from snellen.tuning.config import TuningConfig
from snellen.tuning.manifest import MANIFEST
from snellen.tuning.plan import TuningPlan
from snellen.tuning.results import SeedSpread, TunedModel
from snellen.tuning.runner import TuningRunner

__all__ = ["MANIFEST", "TunedModel", "Tuning", "tune"]


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
        tuned = TuningRunner(self.plan).run()
        if self.seeds == 1:
            return tuned
        others = [self._with_seed(self.seed + k).run() for k in range(1, self.seeds)]
        if tuned is None:  # not the first of several processes
            return None
        rounds = [tuned, *(other for other in others if other is not None)]
        spreads = [
            SeedSpread(task=task.task, scores=tuple(each.results[place].after for each in rounds))
            for place, task in enumerate(tuned.results)
        ]
        return replace(tuned, seeds=tuple(spreads))

    def _with_seed(self, seed: int) -> Tuning:
        """The same training with another seed, on the same split, in a folder next to this one."""
        return replace(
            self,
            seed=seed,
            split_seed=self.seed if self.split_seed is None else self.split_seed,
            out=self.out.with_name(f"{self.out.name}-seed-{seed}"),
            seeds=1,
            probe=False,
        )


def tune(*, model: str, data: str | Path, out: Path | str, **options: Any) -> TunedModel | None:
    """Fine-tune a model on your images and evaluate it on the same samples before and after.

    Rerunning resumes from the last checkpoint.

    Args:
        model: ``hf:``, ``pico:``: a vision-language model; ``clip:``, ``pico:clip``: a dual encoder.
        data: the data set to evaluate on; by default, its training split is used for training.
        out: the output folder.
        options: as for :class:`snellen.tuning.config.TuningConfig`: ``train``, ``train_split`` or
            ``hold_out`` (what to train on), ``recipe`` (lora, qlora, full, head …), ``settings`` (of TRL's
            SFTConfig), ``lora`` (of PEFT's LoraConfig), ``mix``, ``retention_data``, ``train_format``,
            ``oversample``, ``leaks``, ``train_limit``, ``merge``, ``export``, ``model_options``,
            ``data_options``, ``filters``, ``batch_size``, ``seed``, ``seeds``, ``workspace``.

    Returns:
        the tuned model with its results; None in all processes except the first.

    Raises:
        UsageError: as its subclasses say, before anything is loaded.
        Stopped: not enough memory or disk space.
    """
    known = {option.name for option in fields(TuningConfig)}
    for name in options:
        if name not in known:
            raise BadOption(
                f"tune() has no option {name!r}.{did_you_mean(name, known)} "
                f"Its options: {', '.join(sorted(known))}."
            )
    named = f"folder:{data}" if isinstance(data, Path) else data
    return Tuning(model=model, data=named, out=Path(out), **options).run()
