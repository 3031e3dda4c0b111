"""What a shell completes: models, data sets, protocols, runs."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["complete_data", "complete_model", "complete_protocol", "complete_run"]


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    """Complete the name of a model: a built-in one, or a scheme."""
    from snellen.models.base import MODELS
    from snellen.models.builtin import NAMES

    schemes = [f"{scheme}:" for scheme in MODELS.entries if scheme != "pico"]
    return _starting([*(f"pico:{name}" for name in NAMES), *schemes], incomplete)


def complete_data(incomplete: str) -> list[str]:
    """Complete the name of a data set: a benchmark, a chart, or a scheme."""
    from snellen.datasets.base import DATASETS
    from snellen.eye_test.eye_test import CHARTS

    schemes = [f"{scheme}:" if entry.listed else scheme for scheme, entry in DATASETS.entries.items()]
    return _starting(dict.fromkeys([*schemes, "chart:shapes", *CHARTS]), incomplete)


def complete_protocol(incomplete: str) -> list[str]:
    """Complete the name of a protocol."""
    from snellen.protocols.base import PROTOCOLS

    return _starting(PROTOCOLS.entries, incomplete)


def complete_run(incomplete: str) -> list[str]:
    """Complete the id of a run in the default workspace, newest first."""
    from snellen.errors import SnellenError
    from snellen.storage.store import Store

    try:
        store = Store(create=False)
        ids = [row["id"] for row in reversed(store.list_runs())]
        store.close()
    except SnellenError:
        return []
    return _starting(["@last", *ids], incomplete)
