"""Show a decision: a table of its arms, and a picture or a page of the race."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from snellen._util.files import write_text
from snellen._version import __version__
from snellen.errors import BadOption, require
from snellen.metrics.format import MISSING
from snellen.reports.figures import COLORS, DARK, figure
from snellen.reports.page import environment
from snellen.reports.tables import escape

if TYPE_CHECKING:
    from snellen.decisions.decision import ArmResult, Decision

__all__ = ["check_picture", "decision_table", "draw_race", "race_page", "write_race"]

#: Endings of files with a picture or a page.
ENDINGS = (".html", ".png", ".svg", ".pdf")


def decision_table(decision: Decision) -> Table:
    """Return a table with a row for each arm: the choice first, then those that left, the last first."""
    table = Table(title="The race", title_justify="left")
    for heading in _headings(decision):
        table.add_column(heading, justify="left" if heading in ("model", "") else "right")
    for row in _rows(decision):
        table.add_row(*map(escape, row))
    return table


def _headings(decision: Decision) -> tuple[str, ...]:
    kind = "balanced " if decision.weighing == "balanced" else ""
    to = f"points to {decision.choice or decision.leader}"
    return ("model", f"{kind}{decision.score} %", "images", to, "cost $", "")


def _rows(decision: Decision) -> list[tuple[str, ...]]:
    return [
        (
            arm.name,
            f"{100 * arm.score:.1f}" if arm.images else MISSING,
            f"{arm.images:,}",
            _gap(arm),
            MISSING if arm.cost is None else f"{arm.cost:.2f}",
            _status(decision, arm),
        )
        for arm in decision.arms
    ]


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
    """Refuse a picture or page that could not be written, before anything is asked.

    Raises:
        BadOption: the file's ending is none of these, or its folder does not exist.
        MissingExtra: matplotlib or jinja2 is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise BadOption(f"-o {path}: allowed endings: {', '.join(ENDINGS)}.")
    if not path.parent.is_dir():
        raise BadOption(f"-o {path}: the folder {path.parent} does not exist.")
    for module in ("matplotlib", "jinja2"):
        require(module, "report", "Drawing the race")


def write_race(decision: Decision, path: Path, where: str = "") -> None:
    """Write the race as its ending says: a picture, or a page.

    Args:
        where: the option with the workspace, for commands on the page.

    Raises:
        StoreError: it cannot be written.
    """
    if path.suffix.lower() == ".html":
        write_text(path, race_page(decision, where))
    else:
        draw_race(decision, path)


def race_page(decision: Decision, where: str = "") -> str:
    """Return one self-contained page: the decision, the race as curves, the table, and how to go on."""
    decision = decision.published()
    drawing = io.BytesIO()
    draw_race(decision, drawing, "svg")
    template = environment("Writing a page of the race").get_template("race.html.jinja")
    return str(
        template.render(
            decision=decision,
            drawing=base64.b64encode(drawing.getvalue()).decode(),
            headings=_headings(decision),
            rows=list(zip(_rows(decision), [arm.run for arm in decision.arms], strict=True)),
            reference=decision.choice or decision.leader,
            where=where,
            version=__version__,
            date=datetime.now(UTC).strftime("%d %B %Y"),
        )
    )


def draw_race(decision: Decision, to: Path | io.BytesIO, format: str | None = None) -> None:
    """Draw each arm's difference to the recommended arm against the images, with its confidence sequence.

    Args:
        format: png, svg or pdf; None: by the path's ending.
    """
    with figure((7.2, 4.2), to, "A picture of the race", format=format) as made:
        _draw_race(made.add_subplot(), decision)


def _draw_race(axes: Any, decision: Decision) -> None:
    reference = decision.choice or decision.leader
    axes.axhline(0, color=DARK, linewidth=1.2, label=reference)
    margin = 100 * decision.within
    axes.axhline(margin, color=DARK, linewidth=0.8, linestyle=":", label=f"+{margin:g} points")
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
