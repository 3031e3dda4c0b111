"""The figures of a benchmark's authors, from the answers that a run has stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from snellen.metrics.official import OfficialFigure, ScoredRow, official_values
from snellen.storage.store import Store
from snellen.types import Outcome

__all__ = ["official_figures"]


def official_figures(
    store: Store, run: str, figures: Mapping[str, OfficialFigure], primary: str
) -> list[dict[str, Any]]:
    """Compute the declared figures of a run, in the form of its metrics.

    Args:
        primary: the score that figures are computed from.
    """
    if not figures:
        return []
    scores: dict[str, tuple[dict[str, float], float]] = {}
    for row in store.findings(run):
        if row["metrics"]:
            first = {"": row["metrics"][primary]} if primary in row["metrics"] else {}
            options = row["details"].get("options") or 0
            unread = row["outcome"] != Outcome.OK and options
            scores[row["id"]] = {**row["metrics"], **first}, 1 / options if unread else 0.0

    def rows() -> Iterator[ScoredRow]:
        for row in store.sample_rows(run):
            if (known := scores.get(row["id"])) is not None:
                meta = row["content"].get("meta", {})
                # A role such as category stands in the place of a column of that name.
                yield ScoredRow(known[0], {**meta, **meta.get("columns", {})}, known[1])

    return [value._asdict() for value in official_values(figures, rows())]
