"""Show a decision: a table of its arms, and a picture of the race."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from snellen.errors import BadOption, require
from snellen.metrics.format import MISSING
from snellen.reports.tables import escape

if TYPE_CHECKING:
    from snellen.decisions.decision import ArmResult, Decision

__all__ = ["check_picture", "decision_table", "draw_race"]

#: Endings of picture files; and how many arms get a color, those that stayed longest.
ENDINGS = (".png", ".svg", ".pdf")
COLORS = ("#0b62a4", "#c8553d", "#2a7f62", "#8a5fbf", "#b8860b", "#5b6770")


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


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be drawn, before anything is asked.

    Raises:
        BadOption: the file's ending is not that of a picture, or its folder does not exist.
        MissingExtra: matplotlib is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise BadOption(f"-o {path}: allowed endings: {', '.join(ENDINGS)}.")
    if not path.parent.is_dir():
        raise BadOption(f"-o {path}: the folder {path.parent} does not exist.")
    require("matplotlib", "report", "Drawing the race")


def draw_race(decision: Decision, path: Path) -> None:
    """Draw each arm's difference to the recommended arm against the images, with its confidence sequence."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    reference = decision.choice or decision.leader
    axes.axhline(0, color="#333333", linewidth=1.2, label=reference)
    margin = 100 * decision.within
    axes.axhline(margin, color="#333333", linewidth=0.8, linestyle=":", label=f"+{margin:g} points")
    arms = [arm.name for arm in decision.arms if arm.name != reference and arm.images]
    for color, name in zip(COLORS, arms, strict=False):
        points = [(n, gaps[name]) for n, gaps in decision.history if name in gaps]
        images = [n for n, _ in points]
        axes.plot(images, [100 * gap.value for _, gap in points], color=color, linewidth=1.5, label=name)
        low, high = ([100 * getattr(gap, end) for _, gap in points] for end in ("low", "high"))
        axes.fill_between(images, low, high, color=color, alpha=0.13, linewidth=0)
    axes.set_xlabel("images")
    axes.set_ylabel(f"points to {reference} ({100 * decision.confidence:g}% at every look)")
    axes.grid(alpha=0.25)
    axes.set_xlim(left=0)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)
