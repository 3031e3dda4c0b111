"""Results in the Hugging Face Hub's formats: ``.eval_results/*.yaml``, and a card's ``model-index``."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from snellen.errors import BadOption, require
from snellen.exchange.export import write_text
from snellen.metrics.registry import METRICS
from snellen.runs.run import Run

__all__ = ["HubMetric", "figure_of", "model_index", "on_hub", "write", "write_entries"]


class HubMetric(NamedTuple):
    """A result: the data set, the protocol, and the figure, in percent if it is a share."""

    data: str
    protocol: str
    score: str
    value: float


def figure_of(run: Run) -> HubMetric | None:
    """Return a run's primary figure; None if it has none."""
    headline = run.headline
    if headline is None:
        return None
    return HubMetric(
        run.data, run.protocol, run.primary, round(METRICS[run.primary].scale * headline.value, 2)
    )


def on_hub(data: str) -> str | None:
    """Return the Hub's id of a data set, if it is on the Hub.

    >>> on_hub("hub:org/name@test?image=x"), on_hub("chart:shapes")
    ('org/name', None)
    """
    name = data.partition("?")[0].partition(" (")[0]
    return name.removeprefix("hub:").partition("@")[0] if name.startswith("hub:") else None


def model_index(figures: Sequence[HubMetric]) -> list[Any]:
    """Convert figures to huggingface_hub's ``EvalResult``, for a card's metadata.

    It accepts one type, configuration and split per data set, so these are part of the name.
    """
    from huggingface_hub import EvalResult

    results = []
    for figure in figures:
        name, _, options = figure.data.partition("?")
        id_, split = on_hub(figure.data), name.partition("@")[2]
        results.append(
            EvalResult(
                task_type="image-classification"
                if figure.score == "accuracy"
                else "visual-question-answering",
                dataset_type=id_ or figure.data,
                dataset_name=figure.data,
                dataset_config=(options or None) if id_ else None,
                dataset_split=(split or None) if id_ else None,
                metric_type=figure.score,
                metric_name=f"{figure.score}, {figure.protocol}",
                metric_value=figure.value,
            )
        )
    return results


def write_entries(folder: Path, figures: Sequence[HubMetric]) -> list[Path]:
    """Write ``.eval_results/ORG_NAME.yaml`` for data sets on the Hub; it accepts no others.

    Source: https://huggingface.co/docs/hub/eval-results.

    Raises:
        StoreError: they cannot be written.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    by_data: dict[str, list[Any]] = {}
    for figure in figures:
        name = on_hub(figure.data)
        if name is not None:
            notes = f"{figure.score}, {figure.protocol}"
            by_data.setdefault(name, []).append(
                EvalResultEntry(name, "default", figure.value, date=today, notes=notes)
            )
    paths = []
    for name, entries in by_data.items():
        path = folder / ".eval_results" / f"{name.replace('/', '_')}.yaml"
        rows = eval_result_entries_to_yaml(entries)
        write_text(path, yaml.safe_dump(rows, sort_keys=False, allow_unicode=True))
        paths.append(path)
    return paths


def write(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write files for a model's repository: ``.eval_results/``, and ``model-index.yaml`` to be added to its
    card.

    Raises:
        BadOption: the runs are of several models.
        StoreError: they cannot be written.
        MissingExtra: huggingface_hub is not installed.
    """
    require("huggingface_hub", "local", "--format hub")
    from huggingface_hub import ModelCardData

    if len(models := dict.fromkeys(run.model for run in runs)) > 1:
        raise BadOption(f"--format hub takes runs of one model; these are of {', '.join(models)}.")
    pairs = [(figure, run) for run in runs if (figure := figure_of(run)) is not None]
    name = runs[0].model.rpartition("/")[2].rpartition(":")[2]
    data = ModelCardData(model_name=name, eval_results=model_index([figure for figure, _ in pairs]))
    path = folder / "model-index.yaml"
    write_text(path, data.to_yaml() + "\n")
    return [path, *write_entries(folder, [figure for figure, run in pairs if _whole(run)])]


def _whole(run: Run) -> bool:
    """Return whether a run covers all samples of its data."""
    data = run.manifest.data
    return run.status == "finished" and not data.filters and not run.metrics.skipped
