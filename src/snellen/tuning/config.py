"""The configuration of a fine-tuning run, and checks that need nothing loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from snellen.errors import BadOption, one_of
from snellen.registry import parse_name
from snellen.reports.training import TrainingWatch
from snellen.runs.filters import Filters
from snellen.runs.plan import Watch
from snellen.storage.store import Store
from snellen.tuning.augmentation import check_augmentation
from snellen.tuning.deployment import check_formats
from snellen.tuning.examples import TrainFormat
from snellen.tuning.recipes import Recipe, check_lora, named_recipe
from snellen.tuning.trainer_settings import checked

__all__ = ["TuningConfig"]


@dataclass(kw_only=True)
class TuningConfig:
    """A model, its training data, and how to train. Rerunning resumes.

    Args:
        model: ``hf:``, ``pico:``: a vision-language model; ``clip:``, ``pico:clip``: a dual encoder.
        data: the data set to evaluate on; its training split, or one of the next three, is used for training.
        out: the output folder.
        train: another data set to train on; ``train_split``: the split's name (``train``); ``hold_out``:
            the share of ``data`` to evaluate on, training on the rest.
        recipe: see :data:`snellen.tuning.recipes.RECIPES`; for a dual encoder, all weights are trained.
        mix: further training data sets, ``DATA`` or ``DATA@WEIGHT``: WEIGHT examples per example of the
            first.
        retention_data: data sets to evaluate forgetting on, under their own protocols.
        train_format: which questions to train a class on.
        group: with ``hold_out``, what stays on one side of the split: ``folder``, or a column.
        oversample: ``rare``: classes with few images are repeated until all are as frequent; ``hard``: images
            that the model gets wrong come three times, and lists of names include the confused classes;
            ``none``: neither. None: ``rare`` if the largest class has 1.5 times the images of the smallest.
        leaks: what to do about test images, and near-duplicates, in the training data: refuse (identical
            ones), drop both, allow.
        settings: options of TRL's SFTConfig; ``lora``: of PEFT's LoraConfig.
        filters: which part of ``data`` to evaluate on.
        seeds: train so often, with this and the following seeds on the same split, to see how results vary.
        split_seed: of the split by ``hold_out``; None: ``seed``.
        probe: whether to fit a linear probe to the model's features before training.
        train_parts: the parts that ``lora``, ``qlora`` and ``full`` train: ``vision``, ``projector``,
            ``decoder``, each with a learning rate if need be (``vision@1e-5``).
        augment: random changes of training images of classes (see
            :data:`snellen.tuning.augmentation.CHANGES`).
        min_per_class: leave out classes with fewer training images.
        train_limit: train on this many samples, drawn at random.
        merge: also write the model with its adapter merged.
        export: write what these servers need, too: see :data:`snellen.tuning.deployment.FORMATS`. It implies
            ``merge``.

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
    group: str | None = None
    oversample: Sequence[str] | None = None
    leaks: Literal["refuse", "drop", "allow"] = "refuse"
    settings: Mapping[str, Any] = field(default_factory=dict)
    lora: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    filters: Filters = field(default_factory=Filters)
    train_parts: Sequence[str] = ()
    augment: Sequence[str] = ()
    min_per_class: int | None = None
    train_limit: int | None = None
    merge: bool = False
    export: Sequence[str] = ()
    batch_size: int | None = None
    seed: int = 0
    seeds: int = 1
    split_seed: int | None = None
    probe: bool = True
    workspace: Store | Path | str | None = None
    watch: TrainingWatch | None = None
    watch_evaluation: Watch | None = None

    def __post_init__(self) -> None:
        self._refuse_options()

    @property
    def processes(self) -> int:
        """The number of processes that train together (``accelerate launch``)."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def sharded(self) -> bool:
        """Whether processes share the model's weights among them (FSDP, DeepSpeed)."""
        return any(
            os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("FSDP", "DEEPSPEED")
        )

    @property
    def leads(self) -> bool:
        """Whether this is the first process."""
        return int(os.environ.get("RANK", "0")) == 0

    @property
    def named_recipe(self) -> Recipe:
        """The recipe."""
        return named_recipe(self.recipe).on(self.train_parts)

    def _refuse_options(self) -> None:
        """Refuse options that the recipe would ignore, and values that are known to be invalid.

        Raises:
            BadOption: as stated.
        """
        recipe = self.named_recipe
        one_of("leaks", self.leaks, ("refuse", "drop", "allow"))
        one_of("train_format", self.train_format, get_args(TrainFormat))
        if self.settings:
            self.settings = checked(self.settings)
        check_lora(self.lora)
        for word in self.oversample or ():
            if word not in ("rare", "hard", "none"):
                raise BadOption(f"--oversample {word!r} is not allowed; allowed: rare, hard, none.")
        if "hard" in (self.oversample or ()) and self.processes > 1:
            raise BadOption(
                "--oversample hard evaluates the model first, in a single process. Start it without "
                "accelerate."
            )
        if self.lora and not recipe.adapter:
            raise BadOption(f"-L needs a recipe with adapters (lora, qlora), not {self.recipe}.")
        if self.merge and not recipe.adapter:
            raise BadOption(f"--merge needs a recipe with adapters (lora, qlora), not {self.recipe}.")
        try:
            options = parse_name(f"hf:{self.out}")[2]
        except BadOption:
            options = {"": ""}
        if options:
            raise BadOption(
                f"-o {self.out}: a folder's name may not contain ?NAME=VALUE, which sets options of models."
            )
        if self.seeds < 1:
            raise BadOption(f"--seeds {self.seeds} is not allowed; allowed: 1 or more.")
        if self.train_limit is not None and self.train_limit < 1:
            raise BadOption(f"--train-limit {self.train_limit} is not allowed; allowed: 1 or more.")
        if self.min_per_class is not None and self.min_per_class < 1:
            raise BadOption(f"--min-per-class {self.min_per_class} is not allowed; allowed: 1 or more.")
        check_augmentation(self.augment)
        check_formats(self.export)
        if self.recipe == "head" and "rare" in (self.oversample or ()):
            raise BadOption(
                "--oversample rare has no effect with --recipe head, which weights classes alike."
            )
        if self.recipe == "head":
            without = {"-T or --config": self.settings, "--augment": self.augment, "--export": self.export}
            self.refuse_with("--recipe head", {**without, **self.instructing})
            if self.processes > 1:
                raise BadOption("--recipe head runs in a single process. Start it without accelerate.")

    @property
    def balances(self) -> bool | None:
        """Whether rare classes are repeated; None: if classes are unequal."""
        if self.oversample is None or list(self.oversample) == ["hard"]:
            return None
        return "rare" in self.oversample

    @property
    def instructing(self) -> dict[str, Any]:
        """The options that only apply to generative models."""
        oversample = "hard" in (self.oversample or ())
        given = {"--mix": self.mix, "--oversample hard": oversample, "--retention-data": self.retention_data}
        return {**given, "--train-format": self.train_format != "both"}

    @staticmethod
    def refuse_with(what: str, options: Mapping[str, Any]) -> None:
        """Refuse options that are meaningless in a combination.

        Raises:
            BadOption: one of them is set.
        """
        for name, value in options.items():
            if value:
                raise BadOption(
                    f"{name} cannot be used with {what}, which produces a classifier of the data's classes."
                )
