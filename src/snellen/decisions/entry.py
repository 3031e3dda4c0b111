"""Choose the best of several models, for Python users."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snellen.datasets.base import Dataset
from snellen.decisions.choosing import Choosing
from snellen.decisions.decision import Decision
from snellen.decisions.field import Weighing
from snellen.decisions.standing import Look, Preference
from snellen.models.base import Model
from snellen.protocols.base import Protocol
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan, SharedResources, Watch
from snellen.storage.store import Store

__all__ = ["choose"]


def choose(
    *,
    models: Sequence[str | Model],
    data: str | Path | Dataset,
    protocols: Sequence[str | Protocol] = (),
    within: float = 0.01,
    confidence: float = 0.95,
    prefer: Preference | None = None,
    score: Weighing | None = None,
    population: bool = False,
    filters: Filters | None = None,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    protocol_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    max_cost: float | None = None,
    max_concurrency: int | None = None,
    workspace: Store | Path | str | None = None,
    watch: Callable[[Look], None] | None = None,
    watch_evaluation: Watch | None = None,
) -> Decision:
    """Find the best of several models on some images, and stop asking models that are beaten.

    All models answer the same images, in an order drawn by ``seed``. After each round, models that another
    one beats leave; the race ends when one is known to be at most ``within`` worse than the best. Every
    answer is stored in an ordinary run; rerunning resumes, and ends with the same decision.

    Args:
        models: names or objects, at least two together with ``protocols``.
        data: a name, such as ``folder:./photos``, the path of a folder, or a data set object.
        protocols: by default the data set's own, or closed-set or rank.
        within: the margin, as a share: 0.01 for one point.
        confidence: of the statement, 0.95 for 95%.
        prefer: among models that are as good: the cheapest, fastest or smallest.
        score: ``plain``: images count alike; ``balanced``: classes do. By default balanced if classes are
            unequal.
        population: ask about exactly these images, not about images like these.
        filters: which part of the data to use.
        max_cost: a limit in US dollars for all hosted models together.
        watch: called after each look; ``watch_evaluation``: as by :class:`snellen.Plan`.

    Examples:
        >>> choose(models=["pico:llava", "pico:llava-skewed"], data="chart:shapes").choice  # doctest: +SKIP
        'pico:llava'

    Raises:
        UsageError: as for :class:`snellen.Plan`; a score that single samples do not have.
        Stopped: every model gave up.

    Source: evidence as in :mod:`snellen.decisions.evidence`; see docs/choose.md.
    """
    # Long for its options alone.
    choosing = Choosing(
        Plan(
            models=models,
            data=[data],
            protocols=protocols,
            model_options=model_options or {},
            data_options=data_options or {},
            protocol_options=protocol_options or {},
            filters=filters or Filters(),
            seed=seed,
            batch_size=batch_size,
            workspace=workspace,
            max_cost=max_cost,
            max_concurrency=max_concurrency,
            resources=SharedResources(),
        ),
        within=within,
        confidence=confidence,
        prefer=prefer,
        score=score,
        population=population,
    )
    try:
        return choosing.run(watch, watch_evaluation)
    finally:
        choosing.close()
