"""Snellen: an eye test for vision-language models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from snellen._version import __version__

if TYPE_CHECKING:
    from snellen.api import run
    from snellen.datasets.base import DATASETS, Dataset
    from snellen.decisions.entry import choose
    from snellen.diagnosis.entry import diagnose
    from snellen.errors import SnellenError, Stopped, UsageError
    from snellen.exchange.dispatch import export
    from snellen.images import Image
    from snellen.leaderboards.frame import leaderboard
    from snellen.models.base import MODELS, LocalModel, Model
    from snellen.protocols.base import PROTOCOLS, Protocol
    from snellen.reports.report import report
    from snellen.runs.compare import compare
    from snellen.runs.filters import Filters
    from snellen.runs.plan import Plan
    from snellen.runs.run import Run, list_runs, open_run
    from snellen.tuning.tuning import tune
    from snellen.types import (
        Decoding,
        Examination,
        Kind,
        Message,
        Outcome,
        Prediction,
        Request,
        Response,
        Sample,
        Score,
        ask,
    )

__all__ = [
    "DATASETS",
    "MODELS",
    "PROTOCOLS",
    "Dataset",
    "Decoding",
    "Examination",
    "Filters",
    "Image",
    "Kind",
    "LocalModel",
    "Message",
    "Model",
    "Outcome",
    "Plan",
    "Prediction",
    "Protocol",
    "Request",
    "Response",
    "Run",
    "Sample",
    "Score",
    "SnellenError",
    "Stopped",
    "UsageError",
    "__version__",
    "ask",
    "choose",
    "compare",
    "diagnose",
    "export",
    "leaderboard",
    "list_runs",
    "open_run",
    "report",
    "run",
    "tune",
]

HOMES = {
    "snellen.api": ("run",),
    "snellen.decisions.entry": ("choose",),
    "snellen.diagnosis.entry": ("diagnose",),
    "snellen.exchange.dispatch": ("export",),
    "snellen.leaderboards.frame": ("leaderboard",),
    "snellen.reports.report": ("report",),
    "snellen.runs.compare": ("compare",),
    "snellen.runs.filters": ("Filters",),
    "snellen.runs.plan": ("Plan",),
    "snellen.runs.run": ("Run", "list_runs", "open_run"),
    "snellen.datasets.base": ("DATASETS", "Dataset"),
    "snellen.errors": ("SnellenError", "Stopped", "UsageError"),
    "snellen.images": ("Image",),
    "snellen.models.base": ("MODELS", "LocalModel", "Model"),
    "snellen.protocols.base": ("PROTOCOLS", "Protocol"),
    "snellen.tuning.tuning": ("tune",),
    "snellen.types": (
        "Decoding",
        "Examination",
        "Kind",
        "Message",
        "Outcome",
        "Prediction",
        "Request",
        "Response",
        "Sample",
        "Score",
        "ask",
    ),
}


def __getattr__(name: str) -> Any:
    """Load public names on first use, so that importing snellen costs nothing."""
    for home, names in HOMES.items():
        if name in names:
            value = getattr(import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'snellen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
