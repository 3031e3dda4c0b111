"""Is the information in the model's features even if it is not in its answers? Probes on frozen features."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from snellen._util.words import counted
from snellen.datasets.base import DATASETS, Selection
from snellen.diagnosis.analysis import (
    Analysis,
    Finding,
    ResultTable,
    Skipped,
    Subject,
    estimate_of,
    little,
    points,
    undecided,
    with_ci,
)
from snellen.errors import DataError, UsageError, require
from snellen.metrics.stats import Estimate, paired, rate
from snellen.metrics.summary import cluster_of
from snellen.prompts import OPEN_WORLD
from snellen.reports.charts import ChartPoint, curves
from snellen.runs.filters import Filters
from snellen.types import Outcome

if TYPE_CHECKING:
    import numpy as np

#: Regularization strengths for cross-validation, and its folds.
STRENGTHS, FOLDS = (0.01, 0.1, 1.0, 10.0, 100.0), 3
#: Folds if there is no training split.
CROSS = 5
#: The most samples of the training split.
TRAINED_ON = 5000
#: An MLP is fitted only with at least this many samples; with fewer it learns nothing.
ENOUGH = 1000

log = logging.getLogger(__name__)


class Probe(Analysis):
    """Logistic regression and a small MLP on frozen features, tested on the images of the evaluation.

    They are fitted on the training split or, without one, by cross-validation: each image is tested by a
    probe that was fitted on others, where equal images stay together.

    Features are those of the prompt "What type of object is in this photo?": hidden states at the last
    token, their mean over tokens, and the mean outputs of the vision tower and the projector. They are
    written to memory-mapped files as they are computed, so that they need not fit into memory, are
    computed only once, and survive an interruption.

    Source: Zhang et al., arXiv 2405.18415, "probing".
    """

    name, order = "probe", 70

    def run(self, case: Subject) -> Finding:
        """Fit on other images and test against generation."""
        # Long: it measures, and puts the result into words.
        from snellen.models.huggingface.features import stored
        from snellen.models.huggingface.vlm import VisionLanguageModel

        if not isinstance(case.subject, VisionLanguageModel):
            raise Skipped(f"{case.model} does not expose its hidden states")
        said = {row["id"]: row for row in case.closed.outcomes.to_dict("records")}
        tested = [i for i in range(len(case.selection)) if case.selection.id(i) in said]
        train, dropped = self._train(case)
        places = {"test": (case.selection, tested)}
        if train is not None:
            places["train"] = train, _readable(train)
        labels = {name: [s.data.row(s.indices[i]).label for i in kept] for name, (s, kept) in places.items()}
        fitted_on = "test" if train is None else "train"
        few = min(Counter(labels[fitted_on]).values(), default=0)
        if few < 2 or set(labels[fitted_on]) < set(labels["test"]):
            where = "the data set" if train is None else "the training split"
            raise Skipped(f"{where} has classes with fewer than two readable images")
        top = case.store.folder / "features"
        held = {
            name: stored(case.subject, selection, kept, OPEN_WORLD[0], top, case.layers)
            for name, (selection, kept) in places.items()
        }
        ids = [case.selection.id(i) for i in tested]
        generated = [float(said[id]["prediction"] == said[id]["label"]) for id in ids]
        clusters = [cluster_of(said[id]["images"], id) for id in ids]
        sorts = ("linear", "MLP") if len(labels[fitted_on]) >= ENOUGH else ("linear",)
        accuracies: dict[str, Estimate] = {}
        right: dict[str, list[float]] = {}
        for name in held["test"]:
            for sort in sorts if name.endswith("last token") else sorts[:1]:
                title = f"{name}, {sort}"
                right[title] = (
                    cross_fit(held["test"][name], labels["test"], clusters, sort)
                    if train is None
                    else _fit(held["train"][name], labels["train"], held["test"][name], labels["test"], sort)
                )
                accuracies[title] = rate([r == 1 for r in right[title]], clusters)
        # Chosen in advance, as in the study: picking the best of many on the test images would be biased.
        last = max(int(t.split(",")[0].removeprefix("layer ")) for t in accuracies if t.startswith("layer"))
        best = f"layer {last}, last token, linear"
        gap = paired(right[best], generated, clusters)
        # The baseline: always predict the most common class.
        guess = max(Counter(labels["test"]).values()) / len(ids)
        sees = accuracies[best].low > guess
        unread = sum(said[id]["outcome"] != Outcome.OK for id in ids)
        level = little(gap.difference, real=gap.real())
        shows: bool | None = None
        if sees and gap.real() and gap.difference.value > 0:
            shows, what = True, "The information is present but not decoded."
        elif not sees:
            what = "The probe is no better than guessing, so these features, or so few images, show nothing."
        elif level is True or gap.difference.value < 0:
            shows, what = False, "The probe is no better than generation."
        else:
            what = f"Whether the probe beats generation: {undecided(gap)}."
        what += f" {unread} of the {len(ids)} generated answers could not be parsed." if unread else ""
        rare, rare_verdict = self._rare(case, labels["test"], right[best], generated)
        verdict = (
            f"A probe on the last hidden state classifies {with_ci(accuracies[best])} of the images "
            f"correctly, the generated answer {with_ci(estimate_of(case.closed))}: "
            f"{points(gap.difference)}. " + rare_verdict + what
        )
        rows = [("generated (closed set)", with_ci(estimate_of(case.closed)))]
        rows += [
            (title, with_ci(accuracy))
            for title, accuracy in sorted(accuracies.items(), key=lambda item: -item[1].value)
        ]
        table = ResultTable(
            ("classifier", "accuracy (95%)"),
            tuple(rows),
            _how(len(labels[fitted_on]) if train is not None else None, dropped)
            + f", tested on the same {counted(len(ids), 'image')}. Always predicting the most common class "
            "gives "
            f"{100 * guess:.1f}%. The probe is trained on this task and the model is not: it shows what the "
            "features contain, not what the model could say.",
        )
        figures = {
            "accuracy": {title: accuracy.as_dict() for title, accuracy in accuracies.items()},
            "difference": gap.difference.as_dict(),
            "p": gap.p,
            "rare": rare,
            "trained_on": len(labels[fitted_on]),
            "cross_validated": train is None,
            "guessing": guess,
        }
        charts = self._by_depth(accuracies)
        return Finding(
            part=self.name,
            title="Probe",
            verdict=verdict,
            tables=(table,),
            charts=charts,
            figures=figures,
            runs=(case.closed.id,),
            shows=shows,
        )

    def _train(self, case: Subject) -> tuple[Selection | None, int]:
        """Return some samples of each class of the training split, without tested ones, and the number of
        those; None without such a split.
        """
        chart = case.data.startswith("chart:")
        split = case.train or ("train" if chart else None)
        if split is None:
            return None, 0
        each = max(2, min(40, TRAINED_ON // len(case.labels)))
        more = {"n": each * len(case.labels)} if chart else {}
        wanted = Filters(classes=case.labels, per_class=each, shuffle=True, skip_invalid=True)
        try:
            data = DATASETS.make(case.data, {**more, **case.data_options, "split": split})
            selection = wanted.apply(data, case.seed)
        except UsageError as error:
            raise Skipped(f"the split {split!r} cannot be read ({error})") from error
        known = {case.selection.data.digest(i) for i in case.selection.indices}
        kept = [i for i in selection.indices if selection.data.digest(i) not in known]
        dropped = len(selection.indices) - len(kept)
        if not kept:
            raise Skipped(f"all samples of the split {split!r} are also test samples")
        return Selection(
            selection.data, kept, selection.labels, selection.filters, skip_invalid=True
        ), dropped

    def _rare(
        self, case: Subject, truth: list[Any], probe: list[float], generated: list[float]
    ) -> tuple[dict[str, Any], str]:
        """Compare both on the third of classes with the lowest recall in generation."""
        by_class: dict[str, list[float]] = {}
        for label, mark in zip(truth, generated, strict=True):
            by_class.setdefault(str(label), []).append(mark)
        order = sorted(by_class, key=lambda name: (sum(by_class[name]) / len(by_class[name]), name))
        least = set(order[: max(1, len(order) // 3)])
        some = [i for i, label in enumerate(truth) if label in least]
        means = [sum(marks[i] for i in some) / len(some) for marks in (probe, generated)]
        told_ = (
            f"On the third of classes with the lowest recall, the probe reaches {100 * means[0]:.1f}% "
            f"and generation {100 * means[1]:.1f}% (classes are selected by generation, which biases against "
            "it). "
        )
        return {"classes": sorted(least), "probe": means[0], "generated": means[1]}, told_

    def _by_depth(self, accuracies: Mapping[str, Estimate]) -> tuple[dict[str, Any], ...]:
        lines: dict[str, list[ChartPoint]] = {}
        for title, accuracy in accuracies.items():
            if title.startswith("layer") and title.endswith("linear"):
                layer, _, rest = title.removeprefix("layer ").partition(", ")
                lines.setdefault(rest, []).append(
                    ChartPoint(
                        x=int(layer),
                        y=100 * accuracy.value,
                        name="",
                        low=100 * accuracy.low,
                        high=100 * accuracy.high,
                    )
                )
        drawn = curves(lines, x="layer", y="accuracy %")
        return () if drawn is None else ({"kind": "curves", **drawn},)


def _readable(selection: Selection) -> list[int]:
    """Return the indices of samples whose image can be read."""
    places = []
    for i in range(len(selection)):
        try:
            if selection[i].images[0].size:
                places.append(i)
        except (DataError, IndexError):
            log.info("%s: skipped, as its image cannot be read", selection.id(i))
    return places


def _how(count: int | None, dropped: int) -> str:
    """Say what a probe was fitted on; ``count`` is None for cross-validation."""
    if count is None:
        return (
            "There is no training split (--train-split NAME), so each image is tested by a probe that was "
            "fitted on others of them (cross-validation; equal images stay together)"
        )
    return f"Fitted on {counted(count, 'sample')} of the training split" + (
        f" ({counted(dropped, 'test sample')} excluded)" if dropped else ""
    )


def cross_fit(
    features: np.ndarray[Any, Any], truth: list[Any], clusters: list[int], sort: str
) -> list[float]:
    """Return 1 for each sample that a classifier fitted on the other folds gets right, else 0."""
    selection: Any = require("sklearn.model_selection", "diagnose", "A probe")
    folds = max(2, min(CROSS, *Counter(truth).values()))
    right = [0.0] * len(truth)
    splitter = selection.StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for others, tested in splitter.split(features, truth, clusters):
        known, wanted = [truth[i] for i in others], [truth[i] for i in tested]
        if len(set(known)) < 2:
            raise Skipped("too few different images to fit a probe on. Set a split: --train-split NAME")
        for i, mark in zip(
            tested, _fit(features[others], known, features[tested], wanted, sort), strict=True
        ):
            right[i] = mark
    return right


def _fit(
    train: np.ndarray[Any, Any], truth: list[Any], test: np.ndarray[Any, Any], wanted: list[Any], sort: str
) -> list[float]:
    """Return 1 for each test sample that a classifier gets right, else 0."""
    import warnings

    pipeline: Any = require("sklearn.pipeline", "diagnose", "A probe")
    scaling: Any = require("sklearn.preprocessing", "diagnose", "A probe")
    linear: Any = require("sklearn.linear_model", "diagnose", "A probe")
    selection: Any = require("sklearn.model_selection", "diagnose", "A probe")
    network: Any = require("sklearn.neural_network", "diagnose", "A probe")
    if sort == "MLP":
        model = network.MLPClassifier((128,), max_iter=400, early_stopping=True, random_state=0)
    else:
        few = min(Counter(truth).values())
        model = linear.LogisticRegression(max_iter=2000)
        if few > 1:
            model = selection.GridSearchCV(model, {"C": list(STRENGTHS)}, cv=min(FOLDS, few))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # about strengths that do not converge, which cross-validation rejects
        fitted = pipeline.make_pipeline(scaling.StandardScaler(), model).fit(train, truth)
    return [float(said == label) for said, label in zip(fitted.predict(test), wanted, strict=True)]


PART = Probe()
