"""Show a decision: a table of its arms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from snellen.metrics.format import MISSING
from snellen.reports.tables import escape

if TYPE_CHECKING:
    from snellen.decisions.decision import ArmResult, Decision

__all__ = ["decision_table"]


def decision_table(decision: Decision) -> Table:
    """Return a table with a row for each arm: the choice first, then those that left, the last first."""
    reference = decision.choice or decision.leader
    kind = "balanced " if decision.weighing == "balanced" else ""
    table = Table(title="The race", title_justify="left")
    for heading in ("model", f"{kind}{decision.score} %", "images", f"points to {reference}", "cost $", ""):
        table.add_column(heading, justify="left" if heading in ("model", "") else "right")
    for arm in decision.arms:
        table.add_row(
            escape(arm.name),
            f"{100 * arm.score:.1f}" if arm.images else MISSING,
            f"{arm.images:,}",
            _gap(arm),
            MISSING if arm.cost is None else f"{arm.cost:.2f}",
            escape(_status(decision, arm)),
        )
    return table


def _gap(arm: ArmResult) -> str:
    if arm.gap is None:
        return MISSING
    gap = arm.gap
    return f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"


def _status(decision: Decision, arm: ArmResult) -> str:
    if arm.name == decision.choice:
        return "the choice"
    return "as good" if arm.name in decision.tied else arm.status
