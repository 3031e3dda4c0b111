"""A report on runs: one self-contained HTML page, or Markdown."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from snellen._util.words import counted
from snellen._version import __version__
from snellen.errors import UsageError, require
from snellen.leaderboards.conclusion import conclusions
from snellen.leaderboards.ranking import PairedTests, rank_runs
from snellen.metrics.classification import RATES, Confusion, per_class
from snellen.metrics.format import (
    UNREAD_NOTE,
    dollars,
    figure_text,
    heading_of,
    mark,
    number,
    percent,
    score_cells,
    with_interval,
)
from snellen.metrics.registry import METRICS
from snellen.reports.charts import ChartPoint, scatter
from snellen.reports.official import official_cells, official_note
from snellen.reports.tables import pairs, plainly
from snellen.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

    from snellen.runs.run import Run
    from snellen.storage.manifest import Figure

__all__ = ["boxes_of", "environment", "html", "markdown", "markdown_table", "matrix_of"]

#: With more classes a confusion matrix is too large to read; the most confused pairs remain.
MATRIX = 40
#: The classes with the lowest F1 that are shown; the others are folded, and Markdown leaves them out.
CLASSES = 20
#: Samples shown per group.
SHOWN = 6


def html(
    runs: Sequence[Run], title: str | None = None, tables: Sequence[Mapping[str, Any]] = (), intro: str = ""
) -> str:
    """Render one page: leaderboard, speed against accuracy, and for each run its classes, confusions, a
    gallery of right, wrong and failed samples, and the manifest. Model output is escaped, and the page's
    security policy prevents it from loading anything.

    Args:
        intro: a text below the title.
        tables: placed before everything else, each with title, headings, rows and note.

    Raises:
        MissingExtra: jinja2 is not installed.
        UsageError: a run that is not finished, or has no reference answers.
    """
    template = environment("Writing a report").get_template("report.html.jinja")
    content = _content(runs)
    pictures = {run.id: _gallery(run, run.predictions) for run in runs}
    if title is not None:
        content["title"] = title
    return str(template.render(**content, galleries=pictures, tables=tables, intro=intro))


def environment(purpose: str, *packages: str) -> Any:
    """Return the template environment of reports and other packages, which escapes all values.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    jinja2: Any = require("jinja2", "report", purpose)
    loaders = [jinja2.PackageLoader(package) for package in ("snellen.reports", *packages)]
    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["counted"] = counted
    return made


def _content(runs: Sequence[Run]) -> dict[str, Any]:
    for run in runs:
        if run.headline is None:
            what = "has no reference answers to report on"
            if not run.metrics.n:
                what = f"has no results yet ({run.status}). Resume it with: {run.resuming}"
            raise UsageError(f"{run.id} {what}.")
    tests = PairedTests()
    places = rank_runs(runs, tests)
    names = dict.fromkeys(run.data for run in runs)
    groups = dict.fromkeys((run.data, run.primary) for run in runs)
    return {
        "title": f"Report: {', '.join(names)}",
        "version": __version__,
        "date": datetime.now(UTC).strftime("%d %B %Y"),
        "conclusions": conclusions(runs, tests),
        "boards": [_board([r for r in runs if (r.data, r.primary) == group], places) for group in groups],
        "runs": [_section(run) for run in runs],
        "shown_classes": CLASSES,
    }


def _figure(run: Run) -> Figure:
    """Return the score that a run is ranked by; a report needs it."""
    assert run.headline is not None
    return run.headline


def _others(runs: Sequence[Run]) -> list[str]:
    """Return two more scores for a leaderboard's columns."""
    names = dict.fromkeys(name for run in runs for name in run.metrics.scores)
    wanted = [name for name in names if name not in (runs[0].primary, "balanced_accuracy")]
    return wanted[: 1 if runs[0].classifies else 4]


def _board(runs: Sequence[Run], places: Mapping[str, int]) -> dict[str, Any]:
    ordered = sorted(runs, key=lambda run: (-_figure(run).value, run.id))
    others = _others(ordered)
    rows = [
        {
            "id": run.id,
            "rank": places.get(run.id, "–"),
            "model": run.model,
            "protocol": run.protocol,
            "score": _figure(run),
            "interval": score_cells(run.primary, _figure(run))[1],
            "mark": mark(run.metrics.outcomes),
            "others": [plainly(name, run.metrics) for name in others],
            "speed": number(run.metrics.items_per_second),
            "cost": dollars(run.metrics.cost),
            "counts": run.metrics.outcomes,
            "outcomes": _outcomes(run),
        }
        for run in ordered
    ]
    ranked = any(run.id in places for run in runs)
    priced = any(run.metrics.cost is not None for run in runs)
    return {
        "data": ordered[0].data,
        "primary": ordered[0].primary,
        "heading": heading_of(ordered[0].primary),
        "top": METRICS[ordered[0].primary].high,
        "others": [heading_of(name) for name in others],
        "rows": rows,
        "ranked": ranked,
        "priced": priced,
        "unread_note": UNREAD_NOTE if any(row["mark"] for row in rows) else "",
        "speeds": _speeds(ordered),
    }


def _speeds(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Plot scores against speeds."""
    points = [
        ChartPoint(
            x=run.metrics.items_per_second, y=100 * _figure(run).value, name=f"{run.model} {run.protocol}"
        )
        for run in runs
        if run.metrics.items_per_second
    ]
    primary = runs[0].primary
    return scatter(points, x="items per second", y=heading_of(primary), top=100 * METRICS[primary].high)


def _outcomes(run: Run) -> str:
    counts = {**run.metrics.outcomes, "skipped": run.metrics.skipped or 0}
    text = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "ok")
    unfinished = f", {run.status} at {run.metrics.n} of {run.manifest.data.n}"
    return text if run.status == "finished" else f"{text}{unfinished}"


def _section(run: Run) -> dict[str, Any]:
    truth, predicted = pairs(run.outcomes) if run.classifies else ([], [])
    shown = [name for name in run.metrics.scores if run.metrics.figure(name)]
    figures = run.metrics.protocol
    if run.classifies:  # averages over classes stand in the leaderboard, what classes predict below
        shown = [name for name in shown if name not in RATES]
        figures = {name: value for name, value in figures.items() if name.startswith("repeats")}
    return {
        "classifies": run.classifies,
        "scores": [(heading_of(name), plainly(name, run.metrics)) for name in shown],
        "figures": _protocol_figures(figures),
        "id": run.id,
        "model": run.model,
        "protocol": run.protocol,
        "data": run.data,
        "n": run.metrics.n,
        "bounds": run.metrics.accuracy_bounds,
        "heading": heading_of(run.primary),
        "categories": sorted(
            (figure.value, name, figure.n) for name, figure in run.metrics.by_category.items()
        ),
        "official": official_cells(run),
        "official_note": official_note(run),
        "outcomes": _outcomes(run),
        "classes": sorted(per_class(truth, predicted), key=lambda row: (row["f1"], row["class"])),
        "matrix": matrix_of(truth, predicted) if truth else None,
        "manifest": json.dumps(run.published_manifest(), indent=2, ensure_ascii=False),
    }


def matrix_of(truth: list[str], predicted: list[str]) -> dict[str, Any] | None:
    """Return a confusion matrix as rows of counts and of row shares; None if it is too large to read."""
    table = Confusion.of(truth, predicted)
    if len(table.labels) > MATRIX:
        return None
    columns = [*table.labels, *(["(nothing)"] if "" in predicted else [])]
    counts = {
        (int(t), int(p)): int(n) for t, p, n in zip(table.truth, table.predicted, table.counts, strict=True)
    }
    rows = []
    for t, name in enumerate(table.labels):
        across = [counts.get((t, p if p < len(table.labels) else -1), 0) for p in range(len(columns))]
        total = sum(across) or 1
        names = [*table.labels, *[""] * (len(columns) - len(table.labels))]
        cells = [
            {"count": n, "share": round(n / total, 2), "name": name}
            for n, name in zip(across, names, strict=True)
        ]
        rows.append({"name": name, "cells": cells})
    return {"columns": columns, "rows": rows}


def _protocol_figures(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a protocol's own figures in words."""
    return [(name.replace("_", " "), figure_text(value)) for name, value in figures.items()]


def _gallery(run: Run, frame: pd.DataFrame) -> list[dict[str, Any]]:
    import pandas as pd

    rows = frame.to_dict("records")
    scores = [score if (score := run.score_of(row)) is not None else math.nan for row in rows]
    frame = frame.assign(score=scores, right=pd.Series(map(run.verdict, rows), dtype=object))
    ok = frame["outcome"] == Outcome.OK
    right, wrong = frame["right"].map(lambda r: r is True), frame["right"].map(lambda r: r is False)
    known = ok & frame["score"].notna()
    between = frame[known & ~right & ~wrong].sort_values("score", kind="stable")
    within = "" if METRICS[run.primary].graded else " of those in between"
    groups = {
        "wrong": frame[ok & wrong],
        f"the lowest{within}": between.head(SHOWN),
        **{o.value: frame[frame["outcome"] == o] for o in Outcome if o is not Outcome.OK},
        f"the highest{within}": between.iloc[::-1].head(min(SHOWN, max(0, len(between) - SHOWN))),
        "right": frame[ok & right],
    }
    return [
        {
            "name": name,
            "total": len(some),
            "cards": [_card(run, row) for row in some.head(SHOWN).to_dict("records")],
        }
        for name, some in groups.items()
        if len(some)
    ]


def _card(run: Run, row: Mapping[Any, Any]) -> dict[str, Any]:
    image = None
    if row["images"] and (path := run.preview(row["images"][0])).exists():
        image = base64.b64encode(path.read_bytes()).decode()
    exchanges = [
        {
            "prompt": reply.prompt or "(no prompt)",
            "answer": reply.text if not reply.scores else _best(row),
        }
        for reply in run.replies(row["id"])[:5]
    ]
    return {
        **{key: row[key] for key in ("id", "label", "prediction", "reason")},
        "right": row["right"],
        "marks": []
        if run.classifies
        else [f"{k.replace('_', ' ')} {v:.3g}" for k, v in row["metrics"].items()],
        "image": image,
        "boxes": boxes_of(row),
        "exchanges": exchanges,
    }


def boxes_of(row: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Return true and predicted boxes, in percent of the picture; empty if there was nothing to locate."""
    drawn = row.get("drawn")
    if not isinstance(drawn, dict):
        return []
    return [
        {"kind": kind, "x": 100 * x0, "y": 100 * y0, "w": 100 * (x1 - x0), "h": 100 * (y1 - y0)}
        for kind in ("true", "predicted")
        for x0, y0, x1, y1 in drawn.get(kind, [])
    ]


def _best(row: Mapping[Any, Any]) -> str:
    scores = row.get("scores")
    if not isinstance(scores, dict):
        return ", ".join(row["ranking"][:5])
    return ", ".join(f"{name} {value:.3f}" for name, value in list(scores.items())[:5])


def markdown(runs: Sequence[Run]) -> str:
    """Render the leaderboard, and for each run its classes and the most confused pairs.

    Raises:
        UsageError: as for :func:`html`.
    """
    content = _content(runs)
    lines = [f"# {_plain(content['title'])}", ""]
    for text in content["conclusions"]:
        lines += [_plain(text), ""]
    for board in content["boards"]:
        lines += [f"## {_plain(board['data'])}", ""]
        lines += markdown_table(
            [
                "#",
                "model",
                "protocol",
                *[board["heading"], *board["others"]],
                *["items/s", "cost $", "outcomes"],
            ],
            [
                [
                    str(row["rank"]),
                    row["model"],
                    row["protocol"],
                    with_interval(board["primary"], row["score"], row["counts"]),
                    *row["others"],
                    row["speed"],
                    row["cost"],
                    row["outcomes"],
                ]
                for row in board["rows"]
            ],
        )
        if board["unread_note"]:
            lines += [board["unread_note"], ""]
    for run, section in zip(runs, content["runs"], strict=True):
        lines += [f"## {_plain(section['model'])}, {_plain(section['protocol'])}", "", f"`{run.id}`", ""]
        if figures := section["scores"] + section["figures"]:
            lines += markdown_table(["figure", "value"], [list(pair) for pair in figures])
        if not run.classifies:
            continue
        rows = [
            [row["class"], *(percent(row[k]) for k in ("f1", "precision", "recall")), str(row["support"])]
            for row in section["classes"][:CLASSES]
        ]
        lines += markdown_table(["class", "F1 %", "precision %", "recall %", "samples"], rows)
        if len(section["classes"]) > CLASSES:
            lines += [f"The {CLASSES} lowest of {len(section['classes'])} classes.", ""]
        confused = Confusion.of(*pairs(run.outcomes)).confused()
        if confused:
            cells = [[t, p or "(nothing)", str(n)] for t, p, n in confused]
            lines += markdown_table(["truth", "taken for", "times"], cells)
    return "\n".join(lines)


def markdown_table(headings: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table, with text escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return [*(f"| {' | '.join(map(_plain, cells))} |" for cells in lines), ""]


def _plain(text: str) -> str:
    """Escape text so that Markdown shows it literally: no table cells, tags or links."""
    for char in "\\|<>[]`*_#":
        text = text.replace(char, f"\\{char}") if text != "---" else text
    return text.replace("\n", " ")
