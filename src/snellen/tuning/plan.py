"""The plan of a fine-tuning: model, training and test data, checked before any training."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from snellen._util.redaction import redact
from snellen._version import __version__
from snellen.datasets.base import Dataset, Selection, choose_classes
from snellen.errors import BadOption, DataError, Unsupported
from snellen.models.base import MODELS, Model
from snellen.models.huggingface.chat import ChatRenderer
from snellen.models.huggingface.checkpoint import Checkpoint
from snellen.registry import parse_name
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan, SharedResources
from snellen.tuning.config import TuningConfig
from snellen.tuning.manifest import TuningManifest
from snellen.tuning.sft import check_teachable
from snellen.tuning.sources import REPEATED, Source, Subset, TrainingSet, mixed, split_data

__all__ = ["FORGETTING", "TuningPlan"]

#: Options of the model that also apply to the tuned one.
CARRIED = ("device", "dtype", "attn", "quantization")
#: A note where no task is retained.
FORGETTING = (
    "Forgetting is not measured. Set a task to retain with --retention-data DATA, and mix such data into the "
    "training with --mix DATA@0.5."
)


class TuningPlan:
    """The inputs of a fine-tuning.

    Attributes:
        subject: the model, not loaded; ``dual``: whether it is a dual encoder.
        train_set: the training samples; ``sources``: the data set and what is mixed in.
        test: the samples to evaluate on before and after.
        notes: for the user.

    Raises:
        UsageError: as its subclasses say, before anything is loaded.
    """

    def __init__(self, config: TuningConfig) -> None:
        self.config = config
        self.notes: list[str] = []
        self._take_model()
        training, tested = split_data(
            config.data,
            config.data_options,
            train=config.train,
            split=config.train_split,
            share=config.hold_out,
            seed=config.seed if config.split_seed is None else config.split_seed,
            group=config.group,
            tell=self.notes.append,
            classes=config.filters.classes,
            least=config.min_per_class,
        )
        self._choose_classes(training, tested)
        self._plan_evaluations(tested)
        self._take_training(training)

    def _take_model(self) -> None:
        """Build the model, and refuse one that cannot be tuned as requested."""
        from snellen.models.dual_encoder import DualEncoder
        from snellen.models.huggingface.vlm import VisionLanguageModel

        self.subject: Model = MODELS.make(self.config.model, self.config.model_options)
        self.dual = isinstance(self.subject, DualEncoder)
        if isinstance(self.subject, VisionLanguageModel):
            check_teachable(self.subject)
        elif not self.dual:
            raise Unsupported(
                f"{self.config.model} cannot be fine-tuned here. hf: models can, and clip: as a "
                "baseline. Hosted models can only be tuned by their provider."
            )
        if self.dual:
            more = {"-L": self.config.lora, "--merge": self.config.merge, **self.config.instructing}
            more |= {"--train-parts": self.config.train_parts, "--export": self.config.export}
            self.config.refuse_with("a dual encoder", more)
            if self.config.sharded:
                raise Unsupported(
                    "A dual encoder is trained in parallel only: start it without FSDP and DeepSpeed."
                )
        if self.dual and self.config.recipe not in ("lora", "full"):
            raise BadOption(
                f"--recipe {self.config.recipe} is for vision-language models. Of a dual encoder, all "
                "weights are trained."
            )
        #: Of the model.
        self.checkpoint: Checkpoint = self.subject.checkpoint  # type: ignore[attr-defined] # both sorts have one
        checkpoint = self.checkpoint
        if checkpoint.adapter is not None:
            raise Unsupported(
                f"{self.config.model} is already an adapter on another model. Merge it first (snellen tune … "
                "--merge) and tune hf:FOLDER/merged."
            )
        #: The base model recorded in an adapter, resolvable from anywhere.
        self.base = self.config.model if self.config.model.startswith("pico:") else checkpoint.path
        if checkpoint.local and not self.config.model.startswith("pico:"):
            self.base = str(Path(checkpoint.path).resolve())
        #: Its id on the Hub, if it is there.
        self.base_on_hub = None if checkpoint.local else checkpoint.path

    def _choose_classes(self, training: Dataset, tested: Dataset) -> None:
        """Leave out classes with too few training images."""
        #: Which part of the data to evaluate on.
        self.filters = self.config.filters
        least = self.config.min_per_class
        if least is None:
            return
        if not training.labels:
            raise BadOption(f"--min-per-class needs classes, and {training.name} has none.")
        wanted = choose_classes(tested, self.filters.classes)
        counts: Counter[str | None] = Counter(dict.fromkeys(wanted, 0))
        counts.update(label for i in range(len(training)) if (label := training.row(i).label) in counts)
        enough = [name for name in wanted if counts[name] >= least]
        if len(enough) < 2:
            raise BadOption(
                f"--min-per-class {least} leaves fewer than two classes of {training.name}, and two are "
                f"needed. The largest have {' and '.join(str(n) for _, n in counts.most_common(2))} images."
            )
        left = [name for name in wanted if counts[name] < least]
        if left:
            some = ", ".join(left[:5]) + (" …" if len(left) > 5 else "")
            self.notes.append(f"Left out for fewer than {least} training images: {some}.")
            self.filters = replace(self.filters, classes=tuple(enough))

    def _plan_evaluations(self, tested: Dataset) -> None:
        """Plan the evaluations before and after."""
        self.shared = SharedResources()
        #: A part of a data set has no name to rebuild it from.
        self.tested: Dataset | str = tested if isinstance(tested, Subset) else self.config.data
        #: The protocols before training: the data set's own, unless it is for classification.
        self.protocols: tuple[str, ...] = ()
        if self.dual:
            self.protocols = ("rank",)
        elif tested.labels and tested.protocol in (None, "closed-set"):
            asked = ("closed-set?rounds=1", "open-world")  # a head is compared with the first only
            self.protocols = asked[:1] if self.config.recipe == "head" else asked
        self.test_plan = self.evaluation_plan(
            self.config.model, self.tested, self.protocols, examined=self.filters
        )
        self.test: Selection = next(iter(self.test_plan.selections))
        self.retention = self._retention_names()
        self.retention_plans = [self.retention_plan(self.config.model, name) for name in self.retention]

    def _take_training(self, training: Dataset) -> None:
        """Select the training data, and what is mixed in."""
        wanted = Filters(
            shuffle=True, limit=self.config.train_limit, skip_invalid=self.config.filters.skip_invalid
        )
        classes = self.test.labels if set(self.test.labels) < set(training.labels) else ()
        wanted = replace(wanted, classes=classes)
        self.train_set = wanted.apply(training, self.config.seed)
        self.train_set.name = training.name
        if training.labels and self.test.labels:
            unseen = [name for name in self.test.labels if name not in training.labels]
            if unseen:
                self.notes.append(
                    f"{len(unseen)} test classes have no training images: {', '.join(unseen[:5])}"
                    f"{' …' if len(unseen) > 5 else ''}."
                )
        if self.classless and (self.dual or self.config.recipe == "head"):
            raise DataError(f"{training.name} has no classes, which a classifier needs.")
        classifies = training.labels and training.protocol in (None, "closed-set")
        if self.config.augment and not classifies:
            raise BadOption(
                f"--augment is for classes, and {training.name} has questions, whose answers may depend on "
                "what a change would cut off, turn or color."
            )
        self.sources = [
            Source(
                selection=self.train_set,
                weight=1.0,
                train_format=self.config.train_format,
                seed=self.config.seed,
            )
        ]
        skip = self.config.filters.skip_invalid
        self.sources += [
            mixed(name, self.config.train_format, self.config.seed, skip_invalid=skip)
            for name in self.config.mix
        ]
        self._read_conversations()
        if self.config.mix:
            self._draw_mixed()

    def _read_conversations(self) -> None:
        """Make a conversation one example, where the model's template keeps earlier answers as they were."""
        from snellen.models.huggingface.vlm import VisionLanguageModel

        conversing = [source for source in self.sources if not source.selection.labels and source.converses]
        if conversing and isinstance(self.subject, VisionLanguageModel):
            from transformers import AutoProcessor

            processor = self.checkpoint.load_processor(AutoProcessor)
            keeps = ChatRenderer(processor).keeps_turns
            for source in conversing:
                source.whole = keeps

    def _draw_mixed(self) -> None:
        """Draw what is mixed in before anything of it is read: at most as many samples as there are examples
        to mix in.
        """
        first = TrainingSet(self.sources[:1], rare=self.config.balances)
        most = len(first) * (REPEATED if "hard" in (self.config.oversample or ()) else 1)
        for source in self.sources[1:]:
            source.draw(max(1, math.ceil(source.weight * most)), self.config.seed)

    @property
    def classless(self) -> bool:
        return not self.train_set.labels

    def _retention_names(self) -> Sequence[str]:
        if self.dual or self.config.recipe == "head":
            return ()
        if not self.config.retention_data and self.config.data.partition("?")[0] == "chart:shapes":
            return ("chart:shapes?ask=color",)
        if not self.config.retention_data:
            self.notes.append(FORGETTING)
        return tuple(self.config.retention_data)

    def evaluation_plan(self, model: str, data: Any, protocols: Sequence[str], *, examined: Filters) -> Plan:
        options = self.config.model_options if model == self.config.model else self.carried
        return Plan(
            models=[model],
            data=[data],
            protocols=protocols,
            model_options=options,
            data_options=self.config.data_options if data == self.config.data else {},
            protocol_options={},
            filters=examined,
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            workspace=self.config.workspace,
            resources=self.shared,
        )

    @cached_property
    def carried(self) -> dict[str, Any]:
        """The options of the model that also apply to the tuned one."""
        allowed = ("device",) if self.config.recipe == "head" else CARRIED
        allowed = (*allowed, "trust_remote_code") if not self.dual else allowed
        carried = {key: value for key, value in self.config.model_options.items() if key in allowed}
        _, _, own = parse_name(self.config.model)
        return {**carried, **{key: value for key, value in own.items() if key in allowed}}

    @property
    def tuned_name(self) -> str:
        """Return the name of the tuned model."""
        scheme = "clip" if self.dual else "head" if self.config.recipe == "head" else "hf"
        return f"{scheme}:{self.config.out}"

    def retention_plan(self, model: str, name: str) -> Plan:
        """Plan the evaluation of a model on a retention task, under its own protocol."""
        return self.evaluation_plan(model, name, (), examined=Filters(limit=self.config.filters.limit))

    @property
    def _oversample(self) -> list[str]:
        return ["rare if unequal"] if self.config.oversample is None else sorted(self.config.oversample)

    @cached_property
    def specification(self) -> str:
        """Hash everything that can change the result."""
        content = {
            "version": 1,
            "model": self.subject.identity(),
            "learned": [[s.selection.fingerprint(), s.weight] for s in self.sources],
            "tested": self.test.fingerprint(),
            "recipe": self.config.recipe,
            "train_format": self.config.train_format,
            "oversample": self._oversample,
            "leaks": self.config.leaks,
            "settings": dict(self.config.settings),
            "lora": dict(self.config.lora),
            "train_parts": sorted(self.config.train_parts),
            "augment": sorted(self.config.augment),
            "seed": self.config.seed,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def options(self) -> dict[str, Any]:
        """How to train, as the user said, without secrets."""
        settings = {k: redact(v) if isinstance(v, str) else v for k, v in self.config.settings.items()}
        return {
            "settings": settings,
            "lora": dict(self.config.lora),
            "train_parts": list(self.config.train_parts),
            "augment": sorted(self.config.augment),
            "seed": self.config.seed,
            "split_seed": self.config.seed if self.config.split_seed is None else self.config.split_seed,
        }

    @cached_property
    def manifest(self) -> TuningManifest:
        """The folder's manifest."""
        about = {
            "snellen": __version__,
            "model": redact(self.config.model),
            "base": dict(self.subject.identity()),
            "data": redact(self.config.data),
            "learned_from": [redact(source.selection.name) for source in self.sources],
            "image_size": self.checkpoint.image_size.identity(),
            "recipe": "full" if self.dual else self.config.recipe,
            "train_format": self.config.train_format,
            "oversample": self._oversample,
            "split": {"hold_out": self.config.hold_out, "group": self.config.group},
            "leaks": self.config.leaks,
            **self.options,
        }
        return TuningManifest(self.config.out, self.specification, about)
