"""The common source of all layouts: a run's samples with their questions and answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snellen._util.paths import without_folders
from snellen.metrics.registry import METRICS
from snellen.runs.run import Run
from snellen.types import Outcome, Response

__all__ = ["Answered", "answered", "scores_of", "task_of"]

#: Half the width of a 95% interval, in standard errors.
NORMAL = 1.959963984540054
#: The most bytes in a task's name, so that file names stay below 255.
LONGEST = 150


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A sample of a run.

    Attributes:
        target: the true class, or the references.
        replies: the model's answers, in the order of the questions.
        metrics: its scores; for classification, ``accuracy``: 1 if correct, else 0.
    """

    position: int
    id: str
    content: Mapping[str, Any]
    target: tuple[str, ...]
    replies: Sequence[Response]
    prediction: str
    outcome: Outcome
    reason: str
    metrics: Mapping[str, float]


def answered(run: Run) -> Iterator[Answered]:
    """Yield a run's samples."""
    classifies = run.classifies
    # Both are in the order of the data set; some samples may have no prediction yet.
    samples = run.samples()
    for row, replies in run.answered():
        content = next(sample["content"] for sample in samples if sample["position"] == row["position"])
        label = row["label"]
        marks = dict(row["metrics"])
        if classifies and label is not None:
            marks = {"accuracy": float(row["prediction"] == label), **marks}
        references = tuple(content.get("references") or ())
        target = (label,) if classifies and label is not None else references or ((label,) if label else ())
        yield Answered(
            position=row["position"],
            id=row["id"],
            content=content,
            target=target,
            replies=replies,
            prediction=row["prediction"] or "",
            outcome=Outcome(row["outcome"]),
            reason=without_folders(row["reason"] or ""),
            metrics=marks,
        )


def scores_of(run: Run) -> dict[str, tuple[float, float]]:
    """Return each figure that has an interval, with its standard error: half the width of the interval
    over 1.96.
    """
    scores = {}
    for name, figure in run.metrics.figures().items():
        if figure.low is not None and figure.high is not None:
            scores[name] = (figure.value, (figure.high - figure.low) / (2 * NORMAL))
    return scores


def task_of(run: Run) -> str:
    """Return a run's task as one word: data set and protocol.

    >>> from types import SimpleNamespace
    >>> task_of(SimpleNamespace(data="folder:./a b", protocol="closed-set?rounds=1"))
    'folder_a_b-closed-set_rounds_1'
    """
    text = f"{run.data}-{run.protocol}"
    words = "".join(c if c.isalnum() or c == "-" else " " for c in text).split()
    name = "_".join(words).replace("_-", "-").replace("-_", "-")
    if len(name.encode()) <= LONGEST:
        return name
    # It becomes a file name.
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name.encode()[: LONGEST - 9].decode(errors='ignore')}-{digest}"


def higher_is_better(name: str) -> bool:
    """Return whether a higher score is better."""
    return METRICS[name].higher_is_better
