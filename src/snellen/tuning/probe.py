"""A linear probe before training: are the classes to be had from the model's frozen features?"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.datasets.base import Selection
from snellen.errors import Unsupported, require
from snellen.prompts import OPEN_WORLD
from snellen.reports.training import TrainingWatch
from snellen.tuning.results import ClassSpread

if TYPE_CHECKING:
    from snellen.models.huggingface.vlm import VisionLanguageModel

__all__ = ["FeatureProbe", "probe_features"]

#: The most training images looked at, and the folds of the cross-validation.
LOOKED, FOLDS = 300, 3


@dataclass(frozen=True, kw_only=True)
class FeatureProbe:
    """What linear probes find in frozen features of training images, by cross-validation.

    Attributes:
        samples: the number of images.
        spreads: of the probes' predictions, by features: ``vision tower``, ``last hidden state``.
    """

    samples: int
    spreads: Mapping[str, ClassSpread]

    def as_dict(self) -> dict[str, Any]:
        """As JSON: balanced accuracies, and what guessing reaches."""
        accuracies = {name: spread.balanced_accuracy for name, spread in self.spreads.items()}
        chance = next(iter(self.spreads.values())).chance
        return {"samples": self.samples, "balanced_accuracy": accuracies, "guessing": chance}

    def __str__(self) -> str:
        found = " and ".join(
            f"{100 * spread.balanced_accuracy:.0f}% on the {name}" for name, spread in self.spreads.items()
        )
        spread = next(iter(self.spreads.values()))
        if all(spread.is_guessing for spread in self.spreads.values()):
            advice = (
                "no better than guessing. Tuning may find more, but consider training the vision tower "
                "(--recipe full), larger images, or another model."
            )
        else:
            advice = "The classes can be told apart in the features; tuning may find more, or less."
        return (
            f"Before training, linear probes on the frozen features of {self.samples} training images "
            f"(cross-validated) reach a balanced accuracy of {found}; guessing reaches "
            f"{100 * spread.chance:.0f}%: {advice}"
        )


def probe_features(
    model: VisionLanguageModel,
    train: Selection,
    without: frozenset[int],
    *,
    top: Path,
    seed: int,
    watch: TrainingWatch | None = None,
) -> FeatureProbe | None:
    """Fit linear probes to frozen features of some training images, equally many of each class.

    Args:
        without: positions to leave out.
        top: where features are cached.

    Returns:
        None if fewer than two classes have three images, or the model does not expose its features.

    Raises:
        MissingExtra: scikit-learn is not installed.

    Source: Zhang et al., arXiv 2405.18415, section "probing".
    """
    require("sklearn.linear_model", "tune", "A probe")
    from snellen.models.huggingface.features import stored

    places = _some_of_each(train, without, seed)
    labels = [str(train.data.row(train.indices[place]).label) for place in places]
    if len(set(labels)) < 2:
        return None
    try:
        held = stored(
            model,
            train,
            places,
            OPEN_WORLD[0],
            top,
            watch=None if watch is None else lambda step, steps: watch("probe", step, steps, {}),
        )
    except Unsupported:
        return None
    named = {
        "vision tower" if name == "vision tower" else "last hidden state": rows
        for name, rows in held.items()
        if name == "vision tower" or name.endswith("last token")
    }
    spreads = {name: ClassSpread.of(labels, _predicted(rows, labels)) for name, rows in named.items()}
    known = {name: spread for name, spread in sorted(spreads.items(), reverse=True) if spread is not None}
    return FeatureProbe(samples=len(places), spreads=known) if known else None


def _some_of_each(train: Selection, without: frozenset[int], seed: int) -> list[int]:
    """Return positions of up to 300 images, dealt class by class; none of classes with fewer than three."""
    by_class: dict[str | None, list[int]] = {}
    for place in range(len(train)):
        if place not in without:
            by_class.setdefault(train.data.row(train.indices[place]).label, []).append(place)
    rng = random.Random(f"snellen/probe/{seed}")
    enough = [own for label, own in by_class.items() if label is not None and len(own) >= FOLDS]
    each = max(FOLDS, LOOKED // max(1, len(enough)))
    return sorted(place for own in enough for place in rng.sample(own, min(each, len(own))))


def _predicted(rows: Any, labels: Sequence[str]) -> list[str]:
    """Return the class of each row as predicted by a logistic regression fitted to the other folds."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500, class_weight="balanced"))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence
        predicted = cross_val_predict(linear, np.asarray(rows), np.asarray(labels), cv=folds)
    return [str(label) for label in predicted]
