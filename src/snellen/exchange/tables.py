"""Tables of runs with intervals, for a paper or a page: LaTeX, Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from snellen.metrics.format import MISSING, mark, score_cells
from snellen.runs.run import Run

__all__ = ["latex", "markdown"]

HEADINGS = ("model", "data", "protocol", "score", "value", "95%", "samples", "unread")
#: LaTeX's special characters.
ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
}


def _rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for run in runs:
        figure = run.headline
        outcomes = run.metrics.outcomes
        unread = sum(count for name, count in outcomes.items() if name != "ok")
        value, interval = score_cells(run.primary, figure)
        rows.append(
            (
                run.model,
                run.data,
                run.protocol,
                run.primary,
                value + mark(outcomes),
                interval or MISSING,
                str(run.metrics.n),
                str(unread),
            )
        )
    return rows


def markdown(runs: Sequence[Run]) -> str:
    """Build a table of runs in Markdown. Shares are in percent; "unread" counts every outcome other than
    ok.
    """
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *_rows(runs)]
    cells = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def latex(runs: Sequence[Run]) -> str:
    """Build a table of runs in LaTeX, for the package booktabs."""

    def row(cells: Sequence[str]) -> str:
        return " & ".join("".join(ESCAPES.get(c, c) for c in cell) for cell in cells) + r" \\"

    lines = [r"\begin{tabular}{llllrlrr}", r"\toprule", row(HEADINGS), r"\midrule"]
    lines += [row(cells) for cells in _rows(runs)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
