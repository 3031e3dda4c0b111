"""One run of a suite, and its figures by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snellen.runs.run import Run
from snellen.suites.suite import Part

__all__ = ["CompletedRun", "value_of"]

#: Before the names of figures that a benchmark's authors print.
OFFICIAL = "official."


@dataclass(frozen=True)
class CompletedRun:
    """One run of a suite: its part, and the value of the varied option."""

    part: Part
    setting: Mapping[str, Any]
    run: Run


def value_of(run: Run, metric: str) -> float | None:
    """Return a run's figure by name, including its protocol's own, and the benchmark's as ``official.NAME``;
    None if missing.
    """
    figures = run.metrics
    if metric == "gpu_gb":
        peak = figures.peak_gpu_bytes
        return None if peak is None else peak / 1e9
    if metric == "per_hour":
        speed = figures.items_per_second
        return None if speed is None else 3600 * speed
    if metric.startswith(OFFICIAL):
        named = {figure.name: figure.value for figure in figures.official}
        return named.get(metric.removeprefix(OFFICIAL))
    if (figure := figures.figure(metric)) is not None:
        return figure.value
    value = getattr(figures, metric, figures.protocol.get(metric))
    return float(value) if isinstance(value, int | float) else None
