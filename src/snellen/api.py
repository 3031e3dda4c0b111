"""The functions that Python users call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.datasets.base import Dataset
from snellen.models.base import Model
from snellen.protocols.base import Protocol
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan, Watch
from snellen.runs.progress_bar import ProgressBar
from snellen.runs.run import Run
from snellen.storage.store import Store

if TYPE_CHECKING:
    from snellen.engine.ray.cluster import Engine

__all__ = ["run"]


def run(
    *,
    model: str | Model,
    data: str | Path | Dataset,
    protocol: str | Protocol | None = None,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    protocol_options: Mapping[str, Any] | None = None,
    classes: Sequence[str] = (),
    num_classes: int | None = None,
    per_class: int | None = None,
    shuffle: bool = False,
    limit: int | None = None,
    split: str | None = None,
    skip_invalid: bool = False,
    seed: int = 0,
    batch_size: int | None = None,
    workspace: Store | Path | str | None = None,
    fresh: bool = False,
    max_cost: float | None = None,
    max_concurrency: int | None = None,
    engine: Engine | None = None,
    sink: str | None = None,
    data_name: str | None = None,
    watch: Watch | None = None,
    progress: bool = True,
) -> Run:
    """Evaluate one model on one data set under one protocol.

    Rerunning resumes: only missing samples are evaluated, and a finished run is returned unchanged.
    For several models, data sets or protocols at once, see :class:`snellen.Plan`.

    Args:
        model: a name, such as ``hf:ORG/NAME``, or a model object.
        data: a name, such as ``folder:./photos``, the path of a folder, or a data set object.
        protocol: a name, such as ``closed-set``, or a protocol object; by default the data set's own, or
            the first of ``closed-set`` and ``rank`` that the model supports.
        model_options: of the model, as with ``-M``: ``{"dtype": "bfloat16"}``.
        data_options: of the data set, as with ``-D``: ``{"names": "names.csv"}``.
        protocol_options: of the protocol, as with ``-P``: ``{"rounds": 3}``.
        classes: evaluate these classes only.
        num_classes: evaluate a random subset of so many classes (by ``seed``).
        per_class: evaluate the first so many samples of each class.
        shuffle: shuffle samples (by ``seed``).
        limit: evaluate the first so many samples only.
        split: the split of the data set.
        skip_invalid: skip unreadable samples; ``run.manifest.data.skipped`` lists them.
        seed: for shuffling, class subsets, and protocols that shuffle names.
        batch_size: requests per batch; by default the model's own.
        workspace: a folder or ``postgresql://…``; by default ``$SNELLEN_WORKSPACE``, or
            ``./snellen-workspace``.
        fresh: ignore stored answers and start a new run.
        max_cost: a limit in US dollars for hosted models; they must have prices.
        max_concurrency: the most concurrent requests to a hosted model.
        engine: where model replicas run (Ray); by default in this process.
        sink: ``parquet:URL``: where replicas write predictions and answers, instead of the workspace.
        data_name: the name of the data set in reports, cards and exports.
        watch: called with the evaluation and its progress after each batch, instead of a bar.
        progress: show a progress bar (tqdm).

    Examples:
        >>> run(model="pico:llava", data="chart:shapes", limit=28).metrics["accuracy"]  # doctest: +SKIP
        Figure(value=0.96, low=0.82, high=0.99)

    Raises:
        UsageError: as for :class:`Plan`.
    """
    # Long for its options alone.
    filters = Filters(
        classes=classes,
        num_classes=num_classes,
        per_class=per_class,
        shuffle=shuffle,
        limit=limit,
        split=split,
        skip_invalid=skip_invalid,
    )
    plan = Plan(
        models=[model],
        data=[data],
        protocols=[protocol] if protocol is not None else [],
        model_options=model_options or {},
        data_options=data_options or {},
        protocol_options=protocol_options or {},
        filters=filters,
        seed=seed,
        batch_size=batch_size,
        workspace=workspace,
        fresh=fresh,
        max_cost=max_cost,
        max_concurrency=max_concurrency,
        engine=engine,
        sink=sink,
        data_names=() if data_name is None else (data_name,),
    )
    bar = ProgressBar() if progress and watch is None else None
    try:
        (result,) = plan.run(watch or bar)
    finally:
        if bar is not None:
            bar.close()
    return result
