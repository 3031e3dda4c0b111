"""Log metrics to experiment trackers: Weights & Biases, MLflow, Trackio, each through its own client, which
manages URLs and keys. Each run has one entry there, which is updated when sent again.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from typing import Any

from snellen.errors import BadOption, MissingExtra, SnellenError, reason_of, require
from snellen.runs.run import Run

__all__ = ["TRACKERS", "figures", "settings", "track", "tracker"]

#: The default project or experiment, if the client's own variable sets none.
PROJECT = "snellen"


def figures(run: Run) -> dict[str, float]:
    """Return all numeric figures of a run by name; intervals as ``NAME_low`` and ``NAME_high``."""

    def flat(values: Mapping[str, Any], above: str) -> Iterator[tuple[str, float]]:
        for key, value in values.items():
            name = above + (f"_{key}" if above and key != "value" else key if not above else "")
            if isinstance(value, Mapping):
                yield from flat(value, name)
            elif isinstance(value, int | float):
                yield name, float(value)

    return dict(flat(run.metrics.as_dict(), ""))


def settings(run: Run) -> dict[str, Any]:
    """Return a run's settings, flat: model, data set, protocol and its options, seed, versions."""
    manifest = run.manifest
    facts = manifest.model.metadata
    return {
        **{name: getattr(run, name) for name in ("id", "model", "data", "protocol", "status")},
        **{f"protocol_{key}": value for key, value in manifest.protocol.options.items()},
        **{key: getattr(manifest, key) for key in ("seed", "batch_size", "snellen", "git")},
        **{key: facts.get(key) for key in ("parameters", "architecture", "dtype", "device", "replicas")},
        "fingerprint": manifest.data.fingerprint,
    }


def _wandb(run: Run) -> None:
    import wandb

    quiet = wandb.Settings(silent=True, console="off")
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    about = settings(run)
    with wandb.init(
        project=project, id=run.id, name=run.id, resume="allow", config=about, settings=quiet
    ) as sent:
        sent.summary.update(figures(run))


def _mlflow(run: Run) -> None:
    import mlflow

    mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
    earlier = mlflow.search_runs(filter_string=f"tags.snellen = '{run.id}'", output_format="list")
    known = earlier[0].info.run_id if earlier else None
    about = settings(run)
    tags = {"snellen": run.id, "status": about.pop("status")}
    with mlflow.start_run(run_id=known, run_name=run.id, tags=tags, log_system_metrics=False):
        # A logged parameter cannot be changed there.
        said = earlier[0].data.params if earlier else {}
        mlflow.log_params({k: v for k, v in about.items() if k not in said and v is not None})
        # A category's name may contain characters that it refuses.
        mlflow.log_metrics({re.sub(r"[^\w\-. /]", "_", key): value for key, value in figures(run).items()})
        mlflow.log_dict(run.published_manifest(), "manifest.json")


def _trackio(run: Run) -> None:
    import trackio

    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    trackio.init(project, run.id, config=settings(run), resume="allow", embed=False)
    try:
        trackio.log(figures(run))
    finally:
        trackio.finish()


TRACKERS: dict[str, Callable[[Run], None]] = {"wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}


def tracker(name: str) -> Callable[[Run], None]:
    """Return the tracker with this name.

    Raises:
        BadOption: there is none.
        MissingExtra: its client is not installed.
    """
    if name not in TRACKERS:
        raise BadOption(f"--track {name!r} is not allowed; allowed: {', '.join(TRACKERS)}.")
    try:
        require(name, name, "--track")
    except MissingExtra as error:
        raise MissingExtra(
            f"--track {name} needs its client, which is not installed. Install it with: pip install {name}"
        ) from error
    return TRACKERS[name]


def track(name: str, run: Run) -> None:
    """Send a run's figures to a tracker.

    Raises:
        BadOption, MissingExtra: as for :func:`tracker`.
        SnellenError: its client failed.
    """
    send = tracker(name)
    try:
        with redirect_stdout(sys.stderr):  # a client's output is not a result
            send(run)
    except Exception as error:
        raise SnellenError(
            f"--track {name}: the figures of {run.id} could not be sent ({reason_of(error)}). They are "
            "saved. "
            f"Retry with: snellen resume {run.id} --track {name}"
        ) from error
