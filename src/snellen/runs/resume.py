"""Resume a run: rebuild its plan from its manifest.

Resuming means running again: the same plan finds the same run, and the engine evaluates what is missing
(:mod:`snellen.engine.pending`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from snellen.engine.pending import is_done
from snellen.errors import DataError, ModelError, UnknownName, UsageError
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
        UsageError: the run was started from Python with objects, or parses the answers of another; or it
            needs an engine.
    """
    manifest = Run(store, run).manifest
    plan, sink = manifest.plan, manifest.sink
    if manifest.rescored is not None:
        raise UsageError(
            f"{run} parses the answers of {manifest.rescored} again and asks nothing. Resume that run: "
            f"{Run(store, manifest.rescored).resuming}"
        )
    if plan is None:
        raise UsageError(
            f"{run} was started from Python with objects, so it cannot be resumed by name. "
            "Run the same code again: stored answers are reused."
        )
    if sink is not None and limits.get("engine") is None and not is_done(store.run(run)):
        raise UsageError(
            f"{run} keeps its answers in {sink}, written by several workers. Resume it with: "
            f"snellen resume {run} --engine ray"
        )
    place = partial(_placed, folder=plan.folder)
    try:
        return Plan(
            models=[place(name) for name in plan.models],
            data=[place(name) for name in plan.data],
            protocols=plan.protocols,
            model_options={key: place(value) for key, value in plan.model_options.items()},
            data_options={key: place(value) for key, value in plan.data_options.items()},
            protocol_options=plan.protocol_options,
            filters=Filters.of(plan.filters),
            seed=plan.seed,
            batch_size=plan.batch_size,
            workspace=store,
            sink=None if sink is None else f"parquet:{sink}",
            resumes=run,
            base=plan.folder,
            **limits,
        )
    except (DataError, ModelError, UnknownName) as error:
        if plan.folder is None or Path(plan.folder) == Path.cwd():
            raise
        raise UsageError(f"{error} {run} began in {plan.folder}; resume it from there.") from error


def _placed(value: Any, *, folder: str | None) -> Any:
    """Return a name or an option whose relative paths begin at a folder, if they lead to something there.

    Nothing changes in that folder itself, so that the run keeps the names that the user typed.
    """
    if not isinstance(value, str) or folder is None or Path(folder) == Path.cwd():
        return value
    name, question, options = value.partition("?")
    scheme, colon, rest = name.partition(":")
    if colon and scheme != "hub":
        name = f"{scheme}:{_absolute(rest, folder)}"
    elif not colon:
        name = _absolute(name, folder)
    pairs = [pair.partition("=") for pair in options.split("&")] if question else []
    options = "&".join(f"{key}{equals}{_absolute(text, folder)}" for key, equals, text in pairs)
    return f"{name}{question}{options}"


def _absolute(text: str, folder: str) -> str:
    mark, path = ("@", text[1:]) if text.startswith("@") else ("", text)
    there = Path(folder, path)
    return f"{mark}{there}" if path and there.exists() else text
