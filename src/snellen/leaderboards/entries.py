"""The entries of a leaderboard: runs with facts about their models, and published figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from snellen.leaderboards.model_info import ModelInfo, ModelInfoIndex
from snellen.runs.run import Run

__all__ = ["Entry", "entry_of"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of a leaderboard: a run, or a published figure.

    Attributes:
        id: of the run; empty for a published figure.
        value, low, high: the primary score; None if there is none.
        n, classes: the number of samples and of candidate class names.
        scores: all scores by name, with their intervals.
        speed: items per second. memory: the peak in bytes, of the GPU or else of the process; None for hosted
            models.
        published: the source of a published figure; empty for a run.
    """

    id: str
    model: str
    data: str
    protocol: str
    primary: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    classes: int = 0
    fingerprint: str = ""
    status: str = "finished"
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    speed: float | None = None
    memory: float | None = None
    cost: float | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    skipped: int = 0
    date: str = ""
    info: ModelInfo = field(default_factory=ModelInfo)
    suites: tuple[str, ...] = ()
    published: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return flat values, for CSV and JSON."""
        info = {f.name: getattr(self.info, f.name) for f in fields(ModelInfo)}
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("info", "scores")}
        return {**kept, "outcomes": dict(self.outcomes), "suites": list(self.suites), **info}


def entry_of(run: Run, book: ModelInfoIndex, suites: tuple[str, ...] = ()) -> Entry:
    """Build the entry of a run. ``suites`` are the suites that include it."""
    figures, manifest = run.metrics, run.manifest
    head = run.headline
    return Entry(
        id=run.id,
        model=run.model,
        data=run.data,
        protocol=run.protocol,
        primary=run.primary,
        value=head.value if head else None,
        low=head.low if head else None,
        high=head.high if head else None,
        n=figures.n,
        classes=manifest.protocol.options.get("candidates") or len(manifest.data.labels),
        fingerprint=manifest.data.fingerprint,
        status=run.status,
        scores={name: figure.as_dict() for name in figures.scores if (figure := figures.figure(name))},
        speed=figures.items_per_second,
        # The client's memory is not that of a hosted model.
        memory=figures.peak_gpu_bytes
        or (None if "address" in manifest.model.metadata else figures.peak_rss_bytes),
        cost=figures.cost,
        outcomes=figures.outcomes,
        skipped=figures.skipped,
        date=str(manifest.finished or manifest.started),
        info=book.of(run.model, manifest.model.identity, figures.parameters),
        suites=suites,
    )
