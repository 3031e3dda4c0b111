"""A tuning from beginning to end: what is learnt, whether it helped, and what is kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from snellen._util.redaction import redact
from snellen._version import __version__
from snellen.datasets.base import Dataset, Selection
from snellen.errors import BadOption, DataError, Unsupported
from snellen.models.base import MODELS, Model
from snellen.registry import parse_name
from snellen.reports.training import TrainingWatch
from snellen.runs.plan import Filters, Plan, SharedResources, Watch
from snellen.runs.run import Run
from snellen.storage.store import Store
from snellen.tuning.card import draw_curves, write_card
from snellen.tuning.examples import TrainFormat
from snellen.tuning.leakage import leaks
from snellen.tuning.manifest import MANIFEST, TuningManifest
from snellen.tuning.recipes import check_lora, named_recipe
from snellen.tuning.results import Result, of_classes, result_of
from snellen.tuning.sft import TrainResult, check_teachable
from snellen.tuning.sources import Source, Subset, TrainingSet, mixed, split_data, validation_split
from snellen.tuning.trainer import room

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MANIFEST", "TunedModel", "Tuning"]

#: Training images on which it is looked for what the model gets wrong, where those are to come more often.
LOOKED = 500
#: Options of the model that hold for what comes of it too.
CARRIED = ("device", "dtype", "attn", "quantization")


@dataclass(frozen=True, kw_only=True)
class TunedModel:
    """What came of a tuning.

    Attributes:
        model: the name to examine or talk to it by.
        results: before and after on the same samples, one for each task.
        weakest: the same for the third of classes that the model found least on images apart from the test.
        notes: what a user should hear.
    """

    model: str
    folder: Path
    results: tuple[Result, ...]
    weakest: Result | None
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {
            "model": self.model,
            "folder": str(self.folder),
            "results": [result.as_dict() for result in self.results],
            "weakest": None if self.weakest is None else self.weakest.as_dict(),
            **self.facts,
            "notes": list(self.notes),
        }


@dataclass(kw_only=True)
class Tuning:
    """A model, what it is to learn, and how. Done twice, it goes on where it was stopped.

    Args:
        model: ``hf:``, ``pico:``: a vision-language model; ``clip:``, ``pico:clip``: a dual encoder.
        data: what it is tested on; its training split, or one of the next three, is learnt from.
        out: the folder of what comes of it.
        train: another data set to learn from; ``train_split``: the split's name (``train``);
            ``split_data``: the share of ``data`` that is tested, the rest being learnt from.
        recipe: see :data:`snellen.tuning.recipes.RECIPES`; of a dual encoder, all weights learn.
        mix: further data sets to learn from, ``DATA`` or ``DATA@WEIGHT``: so many examples for each of
            the first's.
        general: data sets that it is examined on besides, as their authors do: what it must not forget.
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
    split_data: float | None = None
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
        from snellen.models.dual_encoder import DualEncoder
        from snellen.models.huggingface.vlm import VisionLanguageModel

        self._refuse_options()
        for word in self.oversample:
            if word not in ("rare", "hard"):
                raise BadOption(f"--oversample {word!r} is not allowed; allowed: rare, hard.")
        self._recipe = named_recipe(self.recipe)
        self._alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
        self._leads = int(os.environ.get("RANK", "0")) == 0
        if "hard" in self.oversample and not self._alone:
            raise BadOption(
                "--oversample hard examines the model first, which one process does: run it in one."
            )
        self.notes: list[str] = []
        self._subject: Model = MODELS.make(self.model, self.model_options)
        self._dual = isinstance(self._subject, DualEncoder)
        if isinstance(self._subject, VisionLanguageModel):
            check_teachable(self._subject)
        elif not self._dual:
            raise Unsupported(
                f"{self.model} cannot be fine-tuned here. hf: models can, and clip: as a baseline; what is "
                "behind an address is tuned by whoever runs it."
            )
        if self._dual:
            more = {"-L": self.lora, "--merge": self.merge, **self._instructing}
            self._refuse_beside("a dual encoder", more)
        if self._dual and self.recipe not in ("lora", "full"):
            raise BadOption(
                f"--recipe {self.recipe} is for vision-language models; a dual encoder is tuned whole."
            )
        checkpoint = self._subject.checkpoint  # type: ignore[attr-defined] # both sorts that are left have one
        if checkpoint.adapter is not None:
            raise Unsupported(
                f"{self.model} is an adapter on another model already. Merge it first (snellen tune … "
                "--merge) and tune hf:FOLDER/merged."
            )
        #: What an adapter is to say that it belongs to: found from wherever it is used.
        self._base = self.model if self.model.startswith("pico:") else checkpoint.path
        if checkpoint.local and not self.model.startswith("pico:"):
            self._base = str(Path(checkpoint.path).resolve())
        #: The Hub's id of it, if it lies there.
        self._base_on_hub = None if checkpoint.local else checkpoint.path
        learnt, tested = split_data(
            self.data,
            self.data_options,
            train=self.train,
            split=self.train_split,
            share=self.split_data,
            seed=self.seed,
        )
        self._hand = SharedResources()
        #: A part of a data set has no name that it could be made by again.
        self._tested: Dataset | str = tested if isinstance(tested, Subset) else self.data
        #: How the model is examined before; as the data set's authors do, where that is no classification.
        self._protocols: tuple[str, ...] = ()
        if self._dual:
            self._protocols = ("rank",)
        elif tested.labels and tested.protocol in (None, "closed-set"):
            asked = ("closed-set?rounds=1", "open-world")  # a head is set beside the first alone
            self._protocols = asked[:1] if self.recipe == "head" else asked
        self._test_plan = self._plan(self.model, self._tested, self._protocols, examined=self.filters)
        self._test: Selection = next(iter(self._test_plan.selections))
        self._retention = self._retention_names()
        self._retention_plans = [self._retention_plan(self.model, name) for name in self._retention]
        wanted = Filters(shuffle=True, limit=self.train_limit, skip_invalid=self.filters.skip_invalid)
        classes = self._test.labels if set(self._test.labels) < set(learnt.labels) else ()
        wanted = replace(wanted, classes=classes)
        self._learnt = wanted.apply(learnt, self.seed)
        self._learnt.name = learnt.name
        if learnt.labels and self._test.labels:
            unseen = [name for name in self._test.labels if name not in learnt.labels]
            if unseen:
                self.notes.append(
                    f"{len(unseen)} classes that are tested have no training images: {', '.join(unseen[:5])}"
                    f"{' …' if len(unseen) > 5 else ''}."
                )
        if self._classless and (self._dual or self.recipe == "head"):
            raise DataError(f"{learnt.name} has no classes, and a classifier is taught them.")
        self._sources = [
            Source(selection=self._learnt, weight=1.0, train_format=self.train_format, seed=self.seed)
        ]
        skip = self.filters.skip_invalid
        self._sources += [mixed(name, self.train_format, self.seed, skip_invalid=skip) for name in self.mix]

    def _refuse_options(self) -> None:
        """Refuse what a recipe would not look at, and what is known to be wrong before anything is loaded.

        Raises:
            BadOption: as said.
        """
        recipe = named_recipe(self.recipe)
        check_lora(self.lora)
        if self.lora and not recipe.adapter:
            raise BadOption(f"-L: the recipe {self.recipe} trains no adapters; lora and qlora do.")
        if self.merge and not recipe.adapter:
            raise BadOption(
                f"--merge: the recipe {self.recipe} leaves no adapter to merge; lora and qlora do."
            )
        if self.train_limit is not None and self.train_limit < 1:
            raise BadOption(f"--train-limit {self.train_limit} is not allowed; allowed: 1 or more.")
        if self.recipe == "head":
            self._refuse_beside("--recipe head", {"-T or --config": self.settings, **self._instructing})
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                raise BadOption("--recipe head is fitted in one process; start it without accelerate.")

    @property
    def _instructing(self) -> dict[str, Any]:
        """Options that say what a model in words is taught."""
        given = {"--mix": self.mix, "--oversample": self.oversample, "--retention-data": self.retention_data}
        return {**given, "--train-format": self.train_format != "both"}

    @staticmethod
    def _refuse_beside(what: str, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            if value:
                raise BadOption(
                    f"{name} does not go with {what}, which leaves a classifier of the data's classes."
                )

    @property
    def _classless(self) -> bool:
        return not self._learnt.labels

    def _retention_names(self) -> Sequence[str]:
        if self._dual or self.recipe == "head":
            return ()
        if not self.retention_data and self.data.partition("?")[0] == "chart:shapes":
            return ("chart:shapes?ask=color",)
        if not self.retention_data:
            self.notes.append(
                "Whether it forgot anything is not known: name a task that it must keep with "
                "--retention-data DATA, and let it learn from such data too with --mix DATA@0.5."
            )
        return tuple(self.retention_data)

    def _plan(self, model: str, data: Any, protocols: Sequence[str], *, examined: Filters) -> Plan:
        options = self.model_options if model == self.model else self._carried
        return Plan(
            models=[model],
            data=[data],
            protocols=protocols,
            model_options=options,
            data_options=self.data_options if data == self.data else {},
            protocol_options={},
            filters=examined,
            seed=self.seed,
            batch_size=self.batch_size,
            workspace=self.workspace,
            at_hand=self._hand,
        )

    @cached_property
    def _carried(self) -> dict[str, Any]:
        """Options of the model that hold for what comes of it too."""
        allowed = ("device",) if self.recipe == "head" else CARRIED
        allowed = (*allowed, "trust_remote_code") if not self._dual else allowed
        carried = {key: value for key, value in self.model_options.items() if key in allowed}
        _, _, own = parse_name(self.model)
        return {**carried, **{key: value for key, value in own.items() if key in allowed}}

    @property
    def tuned_name(self) -> str:
        """The model that comes of it, by name."""
        scheme = "clip" if self._dual else "head" if self.recipe == "head" else "hf"
        return f"{scheme}:{self.out}"

    # ── from beginning to end ───────────────────────────────────────────────────────────────────────

    def run(self) -> TunedModel | None:
        """Check, examine, train, examine again, write down.

        Returns:
            what came of it; None in all processes but the first of several.

        Raises:
            DataError: what is tested was learnt from, or an image cannot be read.
            UsageError: the folder holds something else.
            Stopped: memory, or the disk, was too small.
        """
        began = time.time()
        leaked: frozenset[int] = frozenset()
        held = self._record.held()
        if held.get("finished"):
            self.notes = list(held["notes"])  # all was looked at then
            leaked = frozenset(held["spoilt"])
        else:
            leaked = self._look_for_leaks()
        kept = frozenset() if self._classless else validation_split(self._sources[0], self.seed)
        kept -= leaked
        if self._leads:
            self._record.begin()
        before: list[Run] = []
        try:
            weak = self._weakest(kept) if self._alone and kept and not self._dual else None
            if self._alone:
                before = self._examine_all(self.model)
            lessons = self._lessons(kept | leaked)
            taught = self._train(lessons, kept, leaked)
            if not self._leads:
                return None
            if not self._alone:
                weak = self._weakest(kept) if kept and not self._dual else None
                before = self._examine_all(self.model)
            self._close()
            after = self._examine_all(self.tuned_name)
        finally:
            self._close()
        results = tuple(result_of(a, b) for a, b in zip(before, after, strict=True))
        weakest = of_classes(before[0], after[0], weak) if weak else None
        facts = self._facts(lessons, taught, kept)
        draw_curves(taught.log, self.out / "curves.png")
        if self.merge:
            self._merge()
        tuned = TunedModel(
            model=self.tuned_name,
            folder=self.out,
            results=results,
            weakest=weakest,
            facts=facts,
            notes=tuple(self.notes),
        )
        self._record.add(
            {
                **facts,
                "finished": True,
                "results": [result.as_dict() for result in results],
                "seconds": round(time.time() - began, 1),
                "notes": self.notes,
            }
        )
        write_card(
            self.out,
            base=self._base_on_hub or self.model,
            on_hub=self._base_on_hub,
            complete=not self.split_data and not self.filters.limit,
            recipe=self._recipe if not self._dual else None,
            results=results,
            weakest=weakest,
            facts=facts,
            notes=self.notes,
            model=self.tuned_name,
        )
        return tuned

    def _look_for_leaks(self) -> frozenset[int]:
        """Refuse, drop or allow what is both learnt from and tested.

        Returns:
            places of the first source that are not to be learnt from.
        """
        tested = [self._test, *(next(iter(plan.selections)) for plan in self._retention_plans)]
        result = leaks([learned.selection for learned in self._sources], tested)
        names = [source.selection.name for source in self._sources]
        if result.identical and self.leaks == "refuse":
            raise DataError(result.refusal(names))
        self.notes += result.notes(names, dropped=self.leaks == "drop")
        dropped = [same if self.leaks == "drop" else set[int]() for same in result.places]
        for number, source in enumerate(self._sources[1:], 1):
            gone = dropped[number] | result.unread[number]
            rest = [i for place, i in enumerate(source.selection.indices) if place not in gone]
            learned = source.selection
            source.selection = Selection(
                learned.data, rest, learned.labels, learned.filters, learned.skip_invalid
            )
        return frozenset(dropped[0] | result.unread[0])

    @cached_property
    def _specification(self) -> str:
        """A hash of all that can change what comes of it."""
        content = {
            "version": 1,
            "model": self._subject.identity(),
            "learnt": [[s.selection.fingerprint(), s.weight] for s in self._sources],
            "tested": self._test.fingerprint(),
            "recipe": self.recipe,
            "train_format": self.train_format,
            "oversample": sorted(self.oversample),
            "leaks": self.leaks,
            "settings": dict(self.settings),
            "lora": dict(self.lora),
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    @cached_property
    def _record(self) -> TuningManifest:
        """The folder's manifest."""
        settings = {k: redact(v) if isinstance(v, str) else v for k, v in self.settings.items()}
        about = {
            "snellen": __version__,
            "model": redact(self.model),
            "base": dict(self._subject.identity()),
            "data": redact(self.data),
            "learnt_from": [redact(source.selection.name) for source in self._sources],
            "recipe": "full" if self._dual else self.recipe,
            "train_format": self.train_format,
            "oversample": list(self.oversample),
            "leaks": self.leaks,
            "settings": settings,
            "lora": dict(self.lora),
            "seed": self.seed,
        }
        return TuningManifest(self.out, self._specification, about)

    def _examine_all(self, model: str) -> list[Run]:
        """The model on what is tested, and on general tasks."""
        if model == self.model:
            plans = [self._test_plan, *self._retention_plans]
        else:
            protocols = ("rank",) if self.recipe == "head" or self._dual else self._protocols
            plans = [self._plan(model, self._tested, protocols, examined=self.filters)]
            plans += [self._retention_plan(model, name) for name in self._retention]
        return [run for plan in plans for run in plan.run(self.watch_evaluation)]

    def _retention_plan(self, model: str, name: str) -> Plan:
        """A model on a general task, as its authors examine."""
        return self._plan(model, name, (), examined=Filters())

    def _closed(self, places: Sequence[int], what: str) -> pd.DataFrame:
        """What the model says of some of the training samples, out of all names."""
        seen = Subset(self._learnt.data, [self._learnt.indices[i] for i in places], what)
        plan = self._plan(self.model, seen, ("closed-set?rounds=1",), examined=Filters())
        (run,) = plan.run(self.watch_evaluation)
        return run.outcomes

    def _weakest(self, kept: frozenset[int]) -> tuple[str, ...]:
        """The third of classes that the model finds least on images that are neither learnt from nor
        tested.
        """
        frame = self._closed(sorted(kept), "kept apart")
        recall = (frame["prediction"] == frame["label"]).groupby(frame["label"]).mean()
        order = sorted(recall.index, key=lambda name: (recall[name], name))
        return tuple(order[: max(1, len(order) // 3)])

    def _lessons(self, without: frozenset[int]) -> TrainingSet:
        first = self._sources[0]
        if "hard" in self.oversample:
            looked = [i for i in range(len(self._learnt)) if i not in without][:LOOKED]
            frame = self._closed(looked, "looked at")
            wrong = frame[frame["prediction"] != frame["label"]]
            names = set(wrong["id"])
            first.wrong = frozenset(i for i in looked if self._learnt.id(i) in names)
            taken = wrong[wrong["prediction"].isin(self._learnt.labels)]
            first.confused = {
                str(label): tuple(rows["prediction"].value_counts().index)
                for label, rows in taken.groupby("label")
            }
        if self._dual or self.recipe == "head":
            return TrainingSet(
                [Source(selection=self._learnt, weight=1.0, train_format="open", seed=self.seed)],
                without=without,
                seed=self.seed,
            )
        return TrainingSet(self._sources, rare="rare" in self.oversample, without=without, seed=self.seed)

    def _train(self, lessons: TrainingSet, kept: frozenset[int], leaked: frozenset[int]) -> TrainResult:
        """The training, unless it is done; what it left is in the manifest."""
        held = self._record.held()
        if "log" in held:
            return TrainResult(held["log"], held["trained"], held["parameters"], held["effective"])
        self._close()
        without = kept | leaked
        seen = Selection(
            self._learnt.data,
            [self._learnt.indices[i] for i in sorted(kept)],
            self._learnt.labels,
        )
        taught = self._teach(lessons, seen if kept else None, without)
        if self._leads:
            log = {stage: [dict(row) for row in rows] for stage, rows in taught.log.items()}
            done = {
                "log": log,
                "trained": taught.trained,
                "parameters": taught.parameters,
                "effective": dict(taught.effective),
            }
            self._record.add({**done, "spoilt": sorted(leaked)})
            shutil.rmtree(self.out / "checkpoints", ignore_errors=True)
        return taught

    def _teach(self, lessons: TrainingSet, seen: Selection | None, without: frozenset[int]) -> TrainResult:
        from snellen.models.dual_encoder import DualEncoder
        from snellen.models.huggingface.vlm import VisionLanguageModel
        from snellen.tuning.dual_encoder import tune_dual_encoder
        from snellen.tuning.head import fit_head
        from snellen.tuning.sft import teach

        subject = self._subject
        if isinstance(subject, DualEncoder):
            learnt = [i for place, i in enumerate(self._learnt.indices) if place not in without]
            part = Selection(self._learnt.data, learnt, self._learnt.labels)
            return tune_dual_encoder(
                subject, part, seen, out=self.out, given=self.settings, seed=self.seed, watch=self.watch
            )
        assert isinstance(subject, VisionLanguageModel)
        if self.recipe == "head":
            try:
                learnt_numbers = fit_head(
                    subject,
                    self._learnt,
                    without,
                    out=self.out,
                    base=self.model,
                    options=self.model_options,
                    top=self._test_plan.folder / "features",
                    watch=self.watch,
                )
                subject.load()  # what it sees may have been known from another time
                return TrainResult({}, learnt_numbers, int(subject.metadata()["parameters"]))
            finally:
                subject.close()
        watched = None
        if seen is not None:
            watched = TrainingSet(
                [Source(selection=seen, weight=1.0, train_format=self.train_format, seed=self.seed)],
                seed=self.seed,
            )
        return teach(
            subject,
            self._recipe,
            lessons,
            watched,
            seen,
            out=self.out,
            given=self.settings,
            lora=self.lora,
            base=self._base,
            seed=self.seed,
            watch=self.watch,
        )

    def _close(self) -> None:
        for model in self._hand.models.values():
            model.close()

    # ── what came of it ─────────────────────────────────────────────────────────────────────────────

    def _facts(self, lessons: TrainingSet, taught: TrainResult, kept: frozenset[int]) -> dict[str, Any]:
        return {
            "examples": dict(zip([s.selection.name for s in lessons.sources], lessons.counts, strict=False)),
            "kept_apart": len(kept),
            "trained": taught.trained,
            "parameters": taught.parameters,
            "effective": dict(taught.effective),
        }

    def _merge(self) -> None:
        """Write the model with its adapter merged into its weights."""
        if (self.out / "merged").is_dir():
            return
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from snellen.models.huggingface.vlm import VisionLanguageModel

        options = {k: v for k, v in self._carried.items() if k in ("device", "trust_remote_code")}
        made = MODELS.make(self.tuned_name, options)
        assert isinstance(made, VisionLanguageModel)
        part = self.out / "merged.part"
        shutil.rmtree(part, ignore_errors=True)
        with room(part):
            made.checkpoint.load(AutoModelForImageTextToText).save_pretrained(part)
            made.checkpoint.load_processor(AutoProcessor).save_pretrained(part)
            part.rename(self.out / "merged")
