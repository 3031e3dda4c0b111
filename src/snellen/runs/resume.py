"""Resume a run: rebuild its plan from its manifest.

Resuming is running again: the same plan finds the same run, and the engine asks what is missing
(:mod:`snellen.engine.pending`).
"""

from __future__ import annotations

from typing import Any

from snellen.engine.pending import is_done
from snellen.errors import UsageError
from snellen.runs.plan import Filters, Plan
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
    row = store.run(run)
    plan, sink = row["manifest"].get("plan"), row["manifest"].get("sink")
    if plan is None:
        raise UsageError(
            f"{run} was started from Python with objects, or by rescoring, so it cannot be resumed by name. "
            "Run the same code again: stored answers are not asked again."
        )
    if sink is not None:
        if limits.get("engine") is None and not is_done(row):
            raise UsageError(
                f"{run} keeps its answers in {sink}, written by several workers. Resume it with: "
                f"snellen resume {run} --engine ray"
            )
        plan = {**plan, "sink": f"parquet:{sink}"}
    return Plan(**{**plan, "filters": Filters.of(plan)}, workspace=store, resumes=run, **limits)
