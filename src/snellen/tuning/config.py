"""What a user asks of a tuning, and what of it can be refused before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from snellen.errors import BadOption
from snellen.reports.training import TrainingWatch
from snellen.runs.plan import Filters, Watch
from snellen.storage.store import Store
from snellen.tuning.examples import TrainFormat
from snellen.tuning.recipes import Recipe, check_lora, named_recipe

__all__ = ["TuningConfig"]


@dataclass(kw_only=True)
class TuningConfig:
    """A model, what it is to learn, and how. Run again, it resumes where it was stopped.

    Args:
        model: ``hf:``, ``pico:``: a vision-language model; ``clip:``, ``pico:clip``: a dual encoder.
        data: what it is tested on; its training split, or one of the next three, is learnt from.
        out: the folder of what comes of it.
        train: another data set to learn from; ``train_split``: the split's name (``train``);
            ``hold_out``: the share of ``data`` that is tested, the rest being learnt from.
        recipe: see :data:`snellen.tuning.recipes.RECIPES`; of a dual encoder, all weights learn.
        mix: further data sets to learn from, ``DATA`` or ``DATA@WEIGHT``: so many examples for each of
            the first's.
        retention_data: data sets that it is evaluated on as well, as their authors do: what it must not
            forget.
        train_format: which questions teach a class.
        oversample: ``rare``: classes with few images come more often; ``hard``: images that the model
            gets wrong come three times, and lists of names hold what it takes their class for.
        leaks: what is done about training images that are tested: refuse, drop them, allow.
        settings: options of TRL's SFTConfig; ``lora``: of PEFT's LoraConfig.
        filters: what of ``data`` is tested.
        train_limit: learn from the first so many samples of each class… of the training set in random order.
        merge: also write the model with its adapter merged in.

    Raises:
        UsageError: as its subclasses say, before anything is loaded.
    """

    model: str
    data: str
    out: Path
    train: str | None = None
    train_split: str | None = None
    hold_out: float | None = None
    recipe: str = "lora"
    mix: Sequence[str] = ()
    retention_data: Sequence[str] = ()
    train_format: TrainFormat = "both"
    oversample: Sequence[str] = ()
    leaks: Literal["refuse", "drop", "allow"] = "refuse"
    settings: Mapping[str, Any] = field(default_factory=dict)
    lora: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    filters: Filters = field(default_factory=Filters)
    train_limit: int | None = None
    merge: bool = False
    batch_size: int | None = None
    seed: int = 0
    workspace: Store | Path | str | None = None
    watch: TrainingWatch | None = None
    watch_evaluation: Watch | None = None

    def __post_init__(self) -> None:
        self._refuse_options()

    @property
    def processes(self) -> int:
        """How many processes train together (``accelerate launch``)."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def leads(self) -> bool:
        """Whether this is the first process."""
        return int(os.environ.get("RANK", "0")) == 0

    @property
    def named_recipe(self) -> Recipe:
        """The recipe."""
        return named_recipe(self.recipe)

    def _refuse_options(self) -> None:
        """Refuse what a recipe would not look at, and what is known to be wrong before anything is loaded.

        Raises:
            BadOption: as said.
        """
        recipe = self.named_recipe
        check_lora(self.lora)
        for word in self.oversample:
            if word not in ("rare", "hard"):
                raise BadOption(f"--oversample {word!r} is not allowed; allowed: rare, hard.")
        if "hard" in self.oversample and self.processes > 1:
            raise BadOption(
                "--oversample hard evaluates the model first, which one process does: run it in one."
            )
        if self.lora and not recipe.adapter:
            raise BadOption(f"-L: the recipe {self.recipe} trains no adapters; lora and qlora do.")
        if self.merge and not recipe.adapter:
            raise BadOption(
                f"--merge: the recipe {self.recipe} leaves no adapter to merge; lora and qlora do."
            )
        if self.train_limit is not None and self.train_limit < 1:
            raise BadOption(f"--train-limit {self.train_limit} is not allowed; allowed: 1 or more.")
        if self.recipe == "head":
            self.refuse_with("--recipe head", {"-T or --config": self.settings, **self.instructing})
            if self.processes > 1:
                raise BadOption("--recipe head is fitted in one process; start it without accelerate.")

    @property
    def instructing(self) -> dict[str, Any]:
        """Options that say what a model in words is taught."""
        given = {"--mix": self.mix, "--oversample": self.oversample, "--retention-data": self.retention_data}
        return {**given, "--train-format": self.train_format != "both"}

    @staticmethod
    def refuse_with(what: str, options: Mapping[str, Any]) -> None:
        """Refuse options that make no sense with something.

        Raises:
            BadOption: one of them is set.
        """
        for name, value in options.items():
            if value:
                raise BadOption(
                    f"{name} does not go with {what}, which leaves a classifier of the data's classes."
                )
