"""Publish predictions of runs as a data set that others can load."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from snellen.errors import BadOption
from snellen.exchange import tables
from snellen.exchange.export import write_rows, write_text
from snellen.exchange.publish import check_address, publish
from snellen.metrics.format import UNREAD_NOTE
from snellen.runs.run import Run

__all__ = ["push", "write"]


def write(runs: Sequence[Run], folder: Path) -> None:
    """Write a data set: a parquet file and a results JSON per run, and a card with their figures.

    Images are not included, only their hashes.

    Raises:
        StoreError: it cannot be written.
        MissingExtra: pyarrow is not installed.
    """
    import yaml

    for run in runs:
        write_rows(run.predictions, "parquet", folder / "data" / f"{run.id}.parquet")
        results = {**run.as_dict(), "manifest": run.published_manifest()}
        write_text(
            folder / "results" / f"{run.id}.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n"
        )
    front = {
        "tags": ["snellen", "vision-language-models", "evaluation"],
        "configs": [{"config_name": run.id, "data_files": f"data/{run.id}.parquet"} for run in runs],
    }
    card = [
        "---",
        yaml.safe_dump(front, sort_keys=False).rstrip(),
        "---",
        "",
        "# Predictions",
        "",
        "Model answers, sample by sample: prediction, outcome and every response with its "
        "prompt. Images are identified by the",
        "SHA-256 hash of their file and are not included.",
        "",
        tables.markdown(runs),
        "Written by Snellen. Shares are in percent with 95% intervals; unread answers yield no prediction. "
        f"{UNREAD_NOTE}",
        "",
    ]
    write_text(folder / "README.md", "\n".join(card))


def push(runs: Sequence[Run], target: str, *, public: bool = False) -> str:
    """Push predictions to ``hub:ORG/DATASET``, private unless ``public``; return its URL.

    Raises:
        BadOption: another target, or an invalid name.
        UsageError, Stopped: as for :func:`~snellen.exchange.publish.publish`.
    """
    scheme, _, name = target.partition(":")
    if scheme != "hub" or not name:
        raise BadOption(f"--to {target} is not allowed; allowed: hub:ORG/DATASET.")
    check_address(name)
    with tempfile.TemporaryDirectory() as folder:
        write(runs, Path(folder))
        return publish(
            Path(folder), name, public=public, kind="dataset", further="The runs stay in the workspace."
        )
