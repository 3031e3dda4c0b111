"""Carry out a plan, and say how to go on when it was interrupted."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import typer

from snellen.errors import Stopped

if TYPE_CHECKING:
    from snellen.runs.plan import Plan

__all__ = ["carry_out_plan", "tell_how_to_go_on", "tell_what_is_left_out"]


def carry_out_plan(plan: Plan, *, quiet: bool) -> Stopped | None:
    """Run a plan; return what stopped it, if anything."""
    from snellen.reports.progress import progress

    if not quiet:
        tell_what_is_left_out(plan)
    try:
        # Ray reports dead replicas on standard output.
        with redirect_stdout(sys.stderr), progress(quiet=quiet) as watch:
            plan.run(watch)
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. Answers so far are saved.", err=True)
        tell_how_to_go_on(plan)
        raise typer.Exit(130) from None
    except Stopped as error:
        return error
    return None


def tell_what_is_left_out(plan: Plan) -> None:
    """Print notes and skipped pairs before the evaluation starts."""
    for line in [*plan.notes, *(f"skipped: {reason}" for reason in plan.skipped)]:
        typer.echo(line, err=True)


def tell_how_to_go_on(plan: Plan) -> None:
    """Print the command that resumes what was interrupted."""
    # With --fresh, finished runs would be evaluated again.
    same = "" if plan.fresh else "Rerun the same command to resume all runs. "
    if plan.current is not None:
        options = {
            "--max-cost": plan.max_cost,
            "--max-concurrency": plan.max_concurrency,
            "--engine": plan.engine and plan.engine.name,
            "--replicas": plan.engine and plan.engine.replicas,
            "--gpus-per-replica": plan.engine and plan.engine.gpus,
        }
        given = "".join(f" {name} {shlex.quote(str(v))}" for name, v in options.items() if v is not None)
        same += f"Resume this run with: snellen resume {plan.current}{plan.store.option}{given}"
    if same:
        typer.echo(same, err=True)
