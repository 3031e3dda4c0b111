"""Is the information there, although it is not said? Classifiers on the model's own features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.datasets.base import Selection
from snellen.diagnose.part import Case, Finding, LeftOut, Part, Table, estimate_of, points, told
from snellen.errors import DataError, UsageError, require
from snellen.metrics.summary import cluster_of
from snellen.prompts import OPEN_WORLD
from snellen.protocols.base import ask
from snellen.registry import DATASETS
from snellen.report.charts import Point, curves
from snellen.stats import Estimate, paired, rate

if TYPE_CHECKING:
    import numpy as np

#: Strengths of regularisation that cross-validation chooses among, and its folds.
STRENGTHS, FOLDS = (0.01, 0.1, 1.0, 10.0, 100.0), 3
#: Samples of the training split, at most.
TRAINED_ON = 5000


class Probe(Part):
    """Logistic regression and a small MLP on frozen features, tested on the images that the model was asked
    about.

    Features are those of the prompt "What type of object is in this photo?": hidden states at the last token
    and their mean over tokens, and the means of the vision tower's and the projector's outputs. They are
    written to memory-mapped files as they come, so that they need not fit into memory, and are not computed
    twice.

    Source: Zhang et al., arXiv 2405.18415, "probing".
    """

    name, order = "probe", 70
    about = "a classifier on hidden states, beside the generated answer"

    def examine(self, case: Case) -> Finding:
        """Fit on the training split, test beside generation."""
        from snellen.models.huggingface.vlm import VisionLanguageModel

        if not isinstance(case.subject, VisionLanguageModel):
            raise LeftOut(f"{case.model} does not show its hidden states")
        train = self._train(case)
        sets = {"train": train, "test": case.selection}
        held = {name: _features(case, selection, case.layers) for name, selection in sets.items()}
        labels = {
            name: [selection[i].label for i in range(len(selection))] for name, selection in sets.items()
        }
        said = {row["id"]: row for row in case.closed.outcomes.to_dict("records")}
        ids = [case.selection.id(i) for i in range(len(case.selection))]
        generated = [float(said[id]["prediction"] == said[id]["label"]) for id in ids]
        clusters = [cluster_of(said[id]["images"], id) for id in ids]
        found: dict[str, Estimate] = {}
        right: dict[str, list[float]] = {}
        for name in held["train"]:
            for sort in ("linear", "MLP") if name.endswith("last token") else ("linear",):
                title = f"{name}, {sort}"
                right[title] = _fit(
                    held["train"][name], labels["train"], held["test"][name], labels["test"], sort
                )
                found[title] = rate([r == 1 for r in right[title]], clusters)
        # Named beforehand, as the study does: the best of many on these very images would flatter it.
        last = max(int(t.split(",")[0].removeprefix("layer ")) for t in found if t.startswith("layer"))
        best = f"layer {last}, last token, linear"
        gap = paired(right[best], generated, clusters)
        real = gap.p < 0.05 and gap.difference.value > 0
        rare, rare_verdict = self._rare(case, labels["test"], right[best], generated)
        verdict = (
            f"A probe on the last hidden state is right about {told(found[best])} of the images, the answer "
            f"that it generates about {told(estimate_of(case.closed))}: {points(gap.difference)}. "
            + rare_verdict
            + (
                "The information is there and is not decoded."
                if real
                else "The probe finds no more than is said."
            )
        )
        rows = [("generated (closed set)", told(estimate_of(case.closed)))]
        rows += [(title, told(one)) for title, one in sorted(found.items(), key=lambda item: -item[1].value)]
        table = Table(
            ("decided by", "accuracy (95 %)"),
            tuple(rows),
            f"Fitted on {len(train)} samples of the training split, tested on the same {len(ids)} images. A "
            "probe is fitted on this task, the model is not: it shows what its features hold, not what it "
            "could say.",
        )
        figures = {
            "accuracy": {title: one.as_dict() for title, one in found.items()},
            "difference": gap.difference.as_dict(),
            "p": gap.p,
            "rare": rare,
            "trained_on": len(train),
        }
        charts = self._by_depth(found)
        return Finding(self.name, "Probe", verdict, "", (table,), charts, figures, (case.closed.id,), real)

    def _train(self, case: Case) -> Selection:
        split = case.train or ("train" if case.data.partition("?")[0].startswith("chart:") else None)
        if split is None:
            raise LeftOut("there is no training split to fit it on. Name one: --train-split NAME")
        more = {"n": min(TRAINED_ON, 40 * len(case.labels))} if case.data.startswith("chart:") else {}
        try:
            data = DATASETS.make(case.data, {**more, **case.data_options, "split": split})
        except UsageError as error:
            raise LeftOut(f"the split {split!r} cannot be read ({error})") from error
        wanted = replace(
            case.filters, limit=None, split=None, classes=case.labels, num_classes=None, shuffle=True
        )
        found = wanted.apply(data, case.seed)
        found = Selection(found.data, found.indices[:TRAINED_ON], found.labels, found.filters, found.skip_bad)
        known = {case.selection.data.digest(i) for i in case.selection.indices}
        both = sum(found.data.digest(i) in known for i in found.indices)
        if both:
            raise DataError(
                f"{both} of {len(found)} samples of the split {split!r} are among those that are tested: the "
                "probe would be tested on what it was fitted on. Name another --train-split."
            )
        if len({found.data.row(i).label for i in found.indices}) < len(case.labels):
            raise LeftOut(f"the split {split!r} does not hold all {len(case.labels)} classes")
        return found

    def _rare(
        self, case: Case, truth: list[Any], probe: list[float], generated: list[float]
    ) -> tuple[dict[str, Any], str]:
        """Both on the third of classes that generation finds least."""
        by_class: dict[str, list[float]] = {}
        for label, mark in zip(truth, generated, strict=True):
            by_class.setdefault(str(label), []).append(mark)
        order = sorted(by_class, key=lambda name: (sum(by_class[name]) / len(by_class[name]), name))
        least = set(order[: max(1, len(order) // 3)])
        some = [i for i, label in enumerate(truth) if label in least]
        means = [sum(marks[i] for i in some) / len(some) for marks in (probe, generated)]
        told_ = (
            f"On the third of classes that it finds least, the probe is right about {100 * means[0]:.1f} % "
            f"and generation about {100 * means[1]:.1f} % (chosen by generation, so it looks worse than it "
            "is). "
        )
        return {"classes": sorted(least), "probe": means[0], "generated": means[1]}, told_

    def _by_depth(self, found: Mapping[str, Estimate]) -> tuple[dict[str, Any], ...]:
        lines: dict[str, list[Point]] = {}
        for title, one in found.items():
            if title.startswith("layer") and title.endswith("linear"):
                layer, _, rest = title.removeprefix("layer ").partition(", ")
                ends = (100 * one.low, 100 * one.high)
                lines.setdefault(rest, []).append(Point(int(layer), 100 * one.value, "", *ends))
        drawn = curves(lines, x="layer", y="accuracy %")
        return () if drawn is None else ({"kind": "curves", **drawn},)


def _features(case: Case, selection: Selection, layers: str) -> dict[str, np.ndarray[Any, Any]]:
    """Features of all samples by name, [samples, width] each, memory-mapped; computed where missing."""
    import numpy as np

    from snellen.models.huggingface.features import features
    from snellen.models.huggingface.vlm import VisionLanguageModel

    assert isinstance(case.subject, VisionLanguageModel)
    key = json.dumps(
        [dict(case.subject.identity()), selection.fingerprint(), OPEN_WORLD[0], layers], sort_keys=True
    )
    folder = case.store.folder / "features" / hashlib.sha256(key.encode()).hexdigest()[:24]
    index = folder / "index.json"
    if not index.exists():
        folder.mkdir(parents=True, exist_ok=True)
        files: dict[str, Any] = {}
        requests = (ask(sample.images, OPEN_WORLD[0]) for sample in selection)
        for place, request in enumerate(requests):
            (found,) = features(case.subject, [request], layers)
            for number, (name, value) in enumerate(found.items()):
                if name not in files:
                    files[name] = np.lib.format.open_memmap(
                        folder / f"{number}.npy", "w+", np.float32, (len(selection), len(value))
                    )
                files[name][place] = value.numpy()
        for one in files.values():
            one.flush()
        part = index.with_suffix(".part")
        part.write_text(json.dumps(list(files)))
        part.replace(index)  # from now on they are whole
    names = json.loads(index.read_text())
    return {name: np.load(Path(folder / f"{i}.npy"), mmap_mode="r") for i, name in enumerate(names)}


def _fit(
    train: np.ndarray[Any, Any], truth: list[Any], test: np.ndarray[Any, Any], wanted: list[Any], sort: str
) -> list[float]:
    """1 for each test sample that a classifier gets right, else 0."""
    import warnings

    pipeline: Any = require("sklearn.pipeline", "diagnose", "A probe")
    scaling: Any = require("sklearn.preprocessing", "diagnose", "A probe")
    linear: Any = require("sklearn.linear_model", "diagnose", "A probe")
    selection: Any = require("sklearn.model_selection", "diagnose", "A probe")
    network: Any = require("sklearn.neural_network", "diagnose", "A probe")
    if sort == "MLP":
        model = network.MLPClassifier((128,), max_iter=400, early_stopping=True, random_state=0)
    else:
        few = min(truth.count(label) for label in set(truth))
        model = selection.GridSearchCV(
            linear.LogisticRegression(max_iter=2000), {"C": list(STRENGTHS)}, cv=max(2, min(FOLDS, few))
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a strength did not converge, which cross-validation sees
        fitted = pipeline.make_pipeline(scaling.StandardScaler(), model).fit(train, truth)
    return [float(said == label) for said, label in zip(fitted.predict(test), wanted, strict=True)]


PART = Probe()
