"""A run's predictions to all of its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snellen.metrics.classification import headline
from snellen.store import COLUMNS
from snellen.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

    from snellen.protocols.base import Protocol

__all__ = ["clusters_of", "summarise"]


def clusters_of(frame: pd.DataFrame) -> list[object]:
    """What samples were drawn with: their images, or themselves where they have none."""
    rows = zip(frame["images"], frame.index, strict=True)
    return [tuple(images) or index for images, index in rows]


def summarise(frame: pd.DataFrame, protocol: Protocol) -> dict[str, Any]:
    """Figures of a run (see :meth:`snellen.store.Store.frame` for the frame's columns).

    ``accuracy_bounds`` are the accuracy if the samples without the outcome ok were all wrong, and if
    they were all right.
    """
    import numpy as np

    n = len(frame)
    counts = frame["outcome"].value_counts()
    outcomes = {str(outcome): int(counts.get(outcome, 0)) for outcome in Outcome}
    figures: dict[str, Any] = {"n": n}
    labelled = frame[frame["label"].notna()]
    if len(labelled):
        truth, predicted = labelled["label"].tolist(), labelled["prediction"].tolist()
        right = sum(t == p for t, p in zip(truth, predicted, strict=True))
        lost = int((labelled["outcome"] != Outcome.OK).sum())
        clusters = clusters_of(labelled)
        figures |= headline(truth, predicted, labelled["ranking"].tolist(), clusters)
        figures["clusters"] = len(set(clusters))
        figures["accuracy_bounds"] = {
            "low": right / len(labelled),
            "high": (right + lost) / len(labelled),
        }
    latencies = np.array([seconds for row in frame["latencies"] for seconds in row])
    # Names of details become columns; samples that lack one hold NaN there.
    details = [
        {str(k): v for k, v in row.items() if not (isinstance(v, float) and np.isnan(v))}
        for row in frame.drop(columns=list(COLUMNS), errors="ignore").to_dict("records")
    ]
    return figures | {
        "outcomes": outcomes,
        "questions": int(frame["questions"].sum()),
        "latency_median": float(np.median(latencies)) if len(latencies) else None,
        "latency_p95": float(np.quantile(latencies, 0.95)) if len(latencies) else None,
        "prompt_tokens": int(frame["prompt_tokens"].sum()),
        "completion_tokens": int(frame["completion_tokens"].sum()),
        "protocol": protocol.summary(details),
    }
