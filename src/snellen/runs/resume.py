"""Resume a run: rebuild its plan from its manifest.

Resuming means running again: the same plan finds the same run, and the engine evaluates what is missing
(:mod:`snellen.engine.pending`).
"""

from __future__ import annotations

from typing import Any

from snellen.engine.pending import is_done
from snellen.errors import UsageError
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan
from snellen.runs.run import Run
from snellen.storage.store import Store

__all__ = ["plan_of"]


def plan_of(store: Store, run: str, **limits: Any) -> Plan:
    """Rebuild the plan of a run.

    Args:
        run: its full id.
        limits: ``max_cost``, ``max_concurrency``, ``engine``.

    Raises:
        UsageError: the run was started from Python with objects, or by rescoring; or it needs an engine.
    """
    manifest = Run(store, run).manifest
    plan, sink = manifest.plan, manifest.sink
    if plan is None:
        raise UsageError(
            f"{run} was started from Python with objects, or by rescoring, so it cannot be resumed by name. "
            "Run the same code again: stored answers are reused."
        )
    if sink is not None and limits.get("engine") is None and not is_done(store.run(run)):
        raise UsageError(
            f"{run} keeps its answers in {sink}, written by several workers. Resume it with: "
            f"snellen resume {run} --engine ray"
        )
    return Plan(
        models=plan.models,
        data=plan.data,
        protocols=plan.protocols,
        model_options=plan.model_options,
        data_options=plan.data_options,
        protocol_options=plan.protocol_options,
        filters=Filters.of(plan.filters),
        seed=plan.seed,
        batch_size=plan.batch_size,
        workspace=store,
        sink=None if sink is None else f"parquet:{sink}",
        resumes=run,
        **limits,
    )
