"""Run a fine-tuning from start to finish: check, evaluate, train, evaluate again, record."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from snellen._util.files import write_atomic
from snellen.datasets.base import Selection
from snellen.errors import DataError
from snellen.models.base import MODELS
from snellen.runs.filters import Filters
from snellen.runs.run import Run
from snellen.tuning.augmentation import Augmentation
from snellen.tuning.card import draw_curves, write_card
from snellen.tuning.deployment import deploy
from snellen.tuning.layout import for_servers
from snellen.tuning.leakage import leaks
from snellen.tuning.manifest import MANIFEST
from snellen.tuning.plan import FORGETTING, TuningPlan
from snellen.tuning.probe import FeatureProbe, probe_features
from snellen.tuning.results import TunedModel, corrected, of_classes, result_of, still_falling
from snellen.tuning.sft import TrainResult
from snellen.tuning.sources import Source, Subset, TrainingSet, validation_split
from snellen.tuning.trainer import room

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TuningRunner"]

#: Training images evaluated to find the model's errors, in order to oversample them.
LOOKED = 500


class TuningRunner:
    """Executes a plan; rerunning resumes."""

    def __init__(self, plan: TuningPlan) -> None:
        self.plan, self.config = plan, plan.config
        self.alone = plan.config.processes == 1

    def run(self) -> TunedModel | None:
        """Check, evaluate, train, evaluate again, record.

        Returns:
            the result; None in all processes except the first.

        Raises:
            DataError: test samples are in the training data, or an image cannot be read.
            UsageError: the folder contains something else.
            Stopped: not enough memory or disk space.
        """
        # Long: one algorithm, whose steps share nearly all of its state.
        began = time.time()
        leaked: frozenset[int] = frozenset()
        held = self.plan.manifest.held()
        if held.get("finished"):
            self._take_notes(held)
            leaked = frozenset(held["leaked"])
        else:
            leaked = self.find_leaks()
        kept = (
            frozenset() if self.plan.classless else validation_split(self.plan.sources[0], self.config.seed)
        )
        kept -= leaked
        if self.config.leads:
            self.plan.manifest.begin()
        before: list[Run] = []
        try:
            weak = self._weakest(kept) if self.alone and kept and not self.plan.dual else None
            if self.alone:
                before = self._examine_all(self.config.model)
            lessons = self._lessons(kept | leaked)
            probed = self._probe(leaked) if self.alone and not held.get("finished") else None
            taught = self._train(lessons, kept, leaked)
            if not self.config.leads:
                return None
            if not self.alone:
                weak = self._weakest(kept) if kept and not self.plan.dual else None
                before = self._examine_all(self.config.model)
            self._close()
            after = self._examine_all(self.plan.tuned_name)
        finally:
            self._close()
        compared = [result_of(a, b) for a, b in zip(before, after, strict=True)]
        of_weak = of_classes(before[0], after[0], weak) if weak else None
        rows = corrected([*compared, *([of_weak] if of_weak else [])])
        results = tuple(rows[: len(compared)])
        weakest = rows[-1] if of_weak else None
        facts = self._facts(lessons, taught, kept)
        if not held.get("finished"):
            self.plan.notes += still_falling(taught.log)
        facts["probe"] = held.get("probe") if probed is None else probed.as_dict()
        draw_curves(taught.log, self.config.out / "curves.png")
        tuned = TunedModel(
            model=self.plan.tuned_name,
            folder=self.config.out,
            results=results,
            weakest=weakest,
            facts=facts,
            notes=tuple(self.plan.notes),
        )
        self.plan.manifest.add(
            {
                **facts,
                "finished": True,
                "results": [result.as_dict() for result in results],
                "seconds": held["seconds"] if held.get("finished") else round(time.time() - began, 1),
                "notes": self.plan.notes,
                "retained": list(self.plan.retention),
            }
        )
        self._write_card(tuned)
        # Last, since a full disk or another tool's converter may refuse it.
        weights = self.config.out
        if self.config.named_recipe.adapter and (self.config.merge or self.config.export):
            weights = self._merge()
        if self.config.export:
            deployments = tuple(deploy(name, weights, self.config.out) for name in self.config.export)
            tuned = replace(tuned, deployments=deployments)
            self._write_card(tuned)
        return tuned

    def _write_card(self, tuned: TunedModel) -> None:
        whole = not (self.config.hold_out or self.plan.filters.limit or self.plan.filters.classes)
        write_card(
            self.config.out,
            base=self.plan.base_on_hub or self.config.model,
            on_hub=self.plan.base_on_hub,
            complete=whole,
            recipe=self.config.named_recipe if not self.plan.dual else None,
            results=tuned.results,
            weakest=tuned.weakest,
            facts=tuned.facts,
            notes=tuned.notes,
            model=tuned.model,
            deployments=tuned.deployments,
        )

    def find_leaks(self) -> frozenset[int]:
        """Refuse, drop or allow test samples in the training data.

        Returns:
            positions of the first source to exclude from training.
        """
        tested = [self.plan.test, *(next(iter(plan.selections)) for plan in self.plan.retention_plans)]
        result = leaks([source.selection for source in self.plan.sources], tested, self.config.watch)
        names = [source.selection.name for source in self.plan.sources]
        if result.identical and self.config.leaks == "refuse":
            raise DataError(result.refusal(names))
        self.plan.notes += result.notes(names, dropped=self.config.leaks == "drop")
        dropped = [
            same | near if self.config.leaks == "drop" else set[int]()
            for same, near in zip(result.places, result.near_places, strict=True)
        ]
        for number, source in enumerate(self.plan.sources[1:], 1):
            gone = dropped[number] | result.unread[number]
            rest = [i for place, i in enumerate(source.selection.indices) if place not in gone]
            source.selection = source.selection.part(rest)
        return frozenset(dropped[0] | result.unread[0])

    def _take_notes(self, held: Mapping[str, Any]) -> None:
        """Take the notes of a finished training, in which all was checked but tasks to retain that are new.

        Raises:
            DataError: it was trained on images of one of these.
        """
        others = [note for note in self.plan.notes if note == FORGETTING]
        self.plan.notes = [note for note in held["notes"] if note != FORGETTING] + others
        known = held.get("retained", ())
        new = [
            next(iter(plan.selections))
            for name, plan in zip(self.plan.retention, self.plan.retention_plans, strict=True)
            if name not in known
        ]
        if not new:
            return
        selections = [source.selection for source in self.plan.sources]
        names = [selection.name for selection in selections]
        result = leaks(selections, new, self.config.watch)
        if result.identical and self.config.leaks != "allow":
            raise DataError(
                f"{result.refusal(names)}. This training is finished; to train without them, use another -o"
            )
        self.plan.notes += result.notes(names, dropped=False)

    def _examine_all(self, model: str) -> list[Run]:
        """Evaluate the model on the test data and on retention tasks."""
        if model == self.config.model:
            plans = [self.plan.test_plan, *self.plan.retention_plans]
        else:
            protocols = ("rank",) if self.config.recipe == "head" or self.plan.dual else self.plan.protocols
            plans = [
                self.plan.evaluation_plan(model, self.plan.tested, protocols, examined=self.plan.filters)
            ]
            plans += [self.plan.retention_plan(model, name) for name in self.plan.retention]
        return [run for plan in plans for run in plan.run(self.config.watch_evaluation)]

    def _closed(self, places: Sequence[int], what: str) -> pd.DataFrame:
        """Return the model's closed-set answers to some training samples."""
        seen = Subset(self.plan.train_set.data, [self.plan.train_set.indices[i] for i in places], what)
        plan = self.plan.evaluation_plan(
            self.config.model, seen, ("closed-set?rounds=1",), examined=Filters()
        )
        (run,) = plan.run(self.config.watch_evaluation)
        return run.outcomes

    def _weakest(self, kept: frozenset[int]) -> tuple[str, ...]:
        """Return the third of classes with the lowest recall on images outside training and test data."""
        frame = self._closed(sorted(kept), "kept apart")
        recall = (frame["prediction"] == frame["label"]).groupby(frame["label"]).mean()
        order = sorted(recall.index, key=lambda name: (recall[name], name))
        return tuple(order[: max(1, len(order) // 3)])

    def _lessons(self, without: frozenset[int]) -> TrainingSet:
        first = self.plan.sources[0]
        if "hard" in (self.config.oversample or ()):
            looked = [i for i in range(len(self.plan.train_set)) if i not in without][:LOOKED]
            frame = self._closed(looked, "looked at")
            wrong = frame[frame["prediction"] != frame["label"]]
            names = set(wrong["id"])
            first.wrong = frozenset(i for i in looked if self.plan.train_set.id(i) in names)
            taken = wrong[wrong["prediction"].isin(self.plan.train_set.labels)]
            first.confused = {
                str(label): tuple(rows["prediction"].value_counts().index)
                for label, rows in taken.groupby("label")
            }
        if self.plan.dual or self.config.recipe == "head":
            return TrainingSet(
                [
                    Source(
                        selection=self.plan.train_set, weight=1.0, train_format="open", seed=self.config.seed
                    )
                ],
                # A head weights classes alike instead.
                rare=self.config.balances if self.plan.dual else False,
                without=without,
                seed=self.config.seed,
            )
        return TrainingSet(
            self.plan.sources, rare=self.config.balances, without=without, seed=self.config.seed
        )

    def _probe(self, leaked: frozenset[int]) -> FeatureProbe | None:
        """Fit linear probes to the frozen features, and tell the user."""
        from snellen.models.huggingface.vlm import VisionLanguageModel

        subject = self.plan.subject
        if not self.config.probe or self.plan.classless or self.config.recipe == "head":
            return None
        if not isinstance(subject, VisionLanguageModel):
            return None
        try:
            found = probe_features(
                subject,
                self.plan.train_set,
                leaked,
                top=self.plan.test_plan.folder / "features",
                seed=self.config.seed,
                watch=self.config.watch,
            )
        finally:
            subject.close()
        if found is not None:
            self.plan.notes.append(f"{found}")
        return found

    def _train(self, lessons: TrainingSet, kept: frozenset[int], leaked: frozenset[int]) -> TrainResult:
        """Train, unless it is done; the manifest records the outcome."""
        held = self.plan.manifest.held()
        if "log" in held:
            return TrainResult(held["log"], held["trained"], held["parameters"], held["effective"])
        self._close()
        without = kept | leaked
        seen = self.plan.train_set.part([self.plan.train_set.indices[i] for i in sorted(kept)])
        taught = self._teach(lessons, seen if kept else None, without)
        if self.config.leads:
            log = {stage: [dict(row) for row in rows] for stage, rows in taught.log.items()}
            done = {
                "log": log,
                "trained": taught.trained,
                "parameters": taught.parameters,
                "effective": dict(taught.effective),
            }
            self.plan.manifest.add({**done, "leaked": sorted(leaked)})
            shutil.rmtree(self.config.out / "checkpoints", ignore_errors=True)
        return taught

    def _teach(self, lessons: TrainingSet, seen: Selection | None, without: frozenset[int]) -> TrainResult:
        from snellen.models.dual_encoder import DualEncoder
        from snellen.models.huggingface.vlm import VisionLanguageModel
        from snellen.tuning.dual_encoder import tune_dual_encoder
        from snellen.tuning.head import fit_head
        from snellen.tuning.sft import teach

        # Long: three ways to train, each a call with many arguments.
        subject = self.plan.subject
        augmentation = None
        if self.config.augment:
            augmentation = Augmentation(self.config.augment, lessons.counts[0], self.config.seed)
        if isinstance(subject, DualEncoder):
            learned = [self.plan.train_set.indices[place] for place in lessons.places]
            part = self.plan.train_set.part(learned)
            return tune_dual_encoder(
                subject,
                part,
                seen,
                out=self.config.out,
                given=self.config.settings,
                seed=self.config.seed,
                augmentation=augmentation,
                watch=self.config.watch,
            )
        assert isinstance(subject, VisionLanguageModel)
        if self.config.recipe == "head":
            try:
                learned_numbers = fit_head(
                    subject,
                    self.plan.train_set,
                    without,
                    out=self.config.out,
                    base=self.config.model,
                    options=self.config.model_options,
                    top=self.plan.test_plan.folder / "features",
                    watch=self.config.watch,
                )
                subject.load()  # the features may have been cached by an earlier run
                return TrainResult({}, learned_numbers, int(subject.metadata()["parameters"]))
            finally:
                subject.close()
        watched = None
        if seen is not None:
            source = Source(selection=seen, train_format=self.config.train_format, seed=self.config.seed)
            watched = TrainingSet([source], seed=self.config.seed)
        return teach(
            subject,
            self.config.named_recipe,
            lessons,
            watched,
            seen,
            out=self.config.out,
            given=self.config.settings,
            lora=self.config.lora,
            base=self.plan.base,
            seed=self.config.seed,
            augmentation=augmentation,
            watch=self.config.watch,
        )

    def _close(self) -> None:
        for model in self.plan.shared.models.values():
            model.close()

    # ── what came of it ─────────────────────────────────────────────────────────────────────────────

    def _facts(self, lessons: TrainingSet, taught: TrainResult, kept: frozenset[int]) -> dict[str, Any]:
        return {
            "examples": lessons.summary(),
            "validation": len(kept),
            "trained": taught.trained,
            "parameters": taught.parameters,
            "effective": dict(taught.effective),
            "balanced": lessons.balanced,
            "options": self.plan.options,
        }

    def _merge(self) -> Path:
        """Write the model with its adapter merged into its weights; return the folder."""
        merged = self.config.out / "merged"
        if merged.is_dir():
            return merged
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from snellen.models.huggingface.vlm import VisionLanguageModel

        options = {k: v for k, v in self.plan.carried.items() if k in ("device", "trust_remote_code")}
        made = MODELS.make(self.plan.tuned_name, options)
        assert isinstance(made, VisionLanguageModel)
        part = self.config.out / "merged.part"
        shutil.rmtree(part, ignore_errors=True)
        with room(part):
            network = made.checkpoint.load(AutoModelForImageTextToText)
            processor = made.checkpoint.load_processor(AutoProcessor)
            made.checkpoint.image_size.apply(processor, network)
            network.save_pretrained(part)
            for_servers(part)
            processor.save_pretrained(part)
            limits = {"image_size": made.checkpoint.image_size.identity()}
            write_atomic(part / MANIFEST, yaml.safe_dump(limits))
            part.rename(merged)
        return merged
