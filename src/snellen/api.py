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
) -> Run:
    """Evaluate one model on one data set under one protocol (by default, the data set's own).

    Rerunning resumes: only missing samples are evaluated, and a finished run is returned unchanged.

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
    (result,) = plan.run(watch)
    return result
