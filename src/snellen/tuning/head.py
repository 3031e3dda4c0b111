"""A classification head on a vision-language model's frozen features: a baseline with another objective."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from snellen._util.files import write_atomic
from snellen.datasets.base import Selection
from snellen.errors import DataError, require
from snellen.models.head import CONFIG, WEIGHTS
from snellen.prompts import OPEN_WORLD
from snellen.reports.training import TrainingWatch

if TYPE_CHECKING:
    from snellen.models.huggingface.vlm import VisionLanguageModel

__all__ = ["fit_head"]

#: Regularization strengths for cross-validation, and its folds.
STRENGTHS, FOLDS = (0.01, 0.1, 1.0, 10.0, 100.0), 3


def fit_head(
    model: VisionLanguageModel,
    train: Selection,
    without: frozenset[int],
    *,
    out: Path,
    base: str,
    options: Mapping[str, Any],
    top: Path,
    watch: TrainingWatch | None = None,
) -> int:
    """Fit a linear head by cross-entropy on the hidden state of the prompt's last token in the last layer,
    and write it to a folder, usable as ``head:FOLDER``.

    Args:
        without: positions to exclude from training.
        base: the name of the underlying model; ``options``: of that model.
        top: where features are cached, so that an interrupted fit resumes with them.

    Returns:
        the number of trained parameters.

    Raises:
        DataError: a class with fewer than two images.
        MissingExtra: scikit-learn is not installed.

    Source: Zhang et al., arXiv 2405.18415, which compares both objectives.
    """
    # Long for its options alone.
    import numpy as np
    from safetensors.numpy import save_file

    from snellen.models.huggingface.features import stored

    require("sklearn.linear_model", "tune", "A classification head")
    places = [place for place in range(len(train)) if place not in without]
    labels = [train.data.row(train.indices[place]).label for place in places]
    few = min(labels.count(name) for name in train.labels)
    if few < 2:
        raise DataError(f"{train.name}: every class needs at least two training images, and one has {few}.")
    held = stored(
        model,
        train,
        places,
        OPEN_WORLD[0],
        top,
        watch=None if watch is None else lambda step, steps: watch("features", step, steps, {}),
    )
    seen = np.asarray(next(rows for name, rows in held.items() if name.endswith("last token")))
    head = _fit(seen, labels, max(2, min(FOLDS, few)))
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: np.ascontiguousarray(value, np.float32) for key, value in head.arrays.items()}, out / WEIGHTS
    )
    facts = {
        "base": base,
        "revision": model.checkpoint.revision,
        "options": dict(options),
        "prompt": OPEN_WORLD[0],
        "place": "last token",
        "labels": head.labels,
        "strength": head.strength,
    }
    write_atomic(out / CONFIG, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return int(head.arrays["weight"].size + head.arrays["bias"].size)


class _Fitted(NamedTuple):
    """A linear head: its arrays by name, its classes, and the regularization strength chosen by
    cross-validation.
    """

    arrays: dict[str, Any]
    labels: list[str]
    strength: float


def _fit(seen: Any, labels: Sequence[str | None], folds: int) -> _Fitted:
    """Fit a logistic regression on standardized features, [samples, width]."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    mean, scale = seen.mean(0), seen.std(0) + 1e-6
    # Classes count alike, however many images they have.
    linear = LogisticRegression(max_iter=2000, class_weight="balanced")
    search = GridSearchCV(linear, {"C": list(STRENGTHS)}, cv=folds, scoring="balanced_accuracy")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # about strengths that do not converge, which cross-validation rejects
        fitted = search.fit((seen - mean) / scale, labels).best_estimator_
    weight, bias = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # for two classes, scikit-learn keeps only the second
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    arrays = {"weight": weight, "bias": bias, "mean": mean, "scale": scale}
    return _Fitted(arrays, [str(name) for name in fitted.classes_], float(search.best_params_["C"]))
