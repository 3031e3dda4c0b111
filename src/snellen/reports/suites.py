"""Results of a suite, on the terminal and as a page: published against measured figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from snellen.metrics.format import (
    MISSING,
    UNREAD_NOTE,
    counts,
    heading_of,
    mark,
    percent,
    scored,
    with_interval,
)
from snellen.reports import page
from snellen.reports.tables import escape
from snellen.storage.manifest import Figure
from snellen.suites.result import UNSCALED, SuiteResult, TableRow
from snellen.suites.suite import Suite

__all__ = ["outcome_tables", "suite_page", "suite_tables"]


class TextTable(NamedTuple):
    """A table in plain text."""

    title: str
    headings: list[str]
    rows: list[list[str]]
    note: str = ""


def _cell(name: str, row: TableRow, *, published: bool) -> str:
    """Format ``published | measured``, rates in percent, with the interval and mark of the measured one."""
    was, now = row.figures[name]
    if name in UNSCALED:
        cells = [MISSING if value is None else f"{value:.1f}" for value in (was, now)]
    else:
        measured, figures = scored(name, now), row.run.metrics if row.run is not None else None
        if figures is not None and now is not None:
            measured = with_interval(name, figures.figure(name) or Figure(value=now), figures.outcomes)
        cells = [scored(name, was), measured]
    return " | ".join(cells) if published else cells[1]


def _rows(title: str, rows: Sequence[TableRow], varies: str, note: str, *, published: bool) -> TextTable:
    names = list(rows[0].figures) if rows else []
    tasks = any(row.task for row in rows)
    headings = ["model", *(["data, protocol"] if tasks else []), *([varies] if varies else [])]
    headings += [_heading(name) for name in names]
    measured = any(row.run for row in rows)
    headings += ["samples", "outcomes"] if measured else []
    if any(row.run and mark(row.run.metrics.outcomes) for row in rows):
        note = f"{note} {UNREAD_NOTE}".strip()
    lines = [
        [row.model, *([row.task] if tasks else []), *([str(row.setting)] if varies else [])]
        + [_cell(name, row, published=published) for name in row.figures]
        + (_counts(row) if measured else [])
        for row in rows
    ]
    return TextTable(title, headings, lines, note)


def _counts(row: TableRow) -> list[str]:
    """Return the number of samples and the outcomes of the measured run."""
    if row.run is None:
        return [MISSING, MISSING]
    figures = row.run.metrics
    return [str(figures.n), counts(figures.outcomes)]


def _heading(name: str) -> str:
    return name.replace("_", " ").replace("gpu gb", "GPU GB") if name in UNSCALED else heading_of(name)


def _tables(outcome: SuiteResult) -> Iterator[TextTable]:
    """Yield all tables of a suite's result."""
    parts = {part.name: part for part in outcome.suite.parts}
    both = [(outcome.tables(), True), (outcome.sweeps(), False)]
    for measured, published in both:
        for name, rows in measured.items():
            part = parts[name]
            varies = next(iter(part.vary), "").partition(".")[2].replace("_", " ")
            source = part.published.source if part.published else ""
            note = f"published | measured; published: {source}." if published else ""
            note = " ".join(filter(None, [note, f"{part.note}." if part.note else ""]))
            yield _rows(f"{outcome.suite.name}: {name}", rows, varies, note, published=published)
    if verdicts := outcome.verdicts():
        rows_ = [[text, evidence, verdict] for text, evidence, verdict in verdicts]
        yield TextTable(
            f"{outcome.suite.name}: claims", ["claim", "measured", "verdict"], rows_, _findings(outcome.suite)
        )
    # With fewer samples, the committed scores do not apply.
    if (reference := outcome.against_reference()) and not outcome.limited:
        within = outcome.suite.tolerance
        lines = [
            [part, model, protocol, metric, f"{100 * was:.1f}", percent(now), _verdict(was, now, within)]
            for part, model, protocol, metric, was, now in reference
        ]
        headings = ["part", "model", "protocol", "metric", "committed %", "measured %", ""]
        note = f"Differences up to {100 * within:g} points count as the same."
        yield TextTable(f"{outcome.suite.name}: committed scores", headings, lines, note)
    if averages := outcome.averages():
        names = [part for part, _, _ in outcome.suite.average]
        lines = [
            [
                row["model"],
                _plain(row["average"]),
                _plain(row["rank"]),
                *(_plain(row[name]) for name in names),
            ]
            for row in averages
        ]
        note = "The average needs all benchmarks; the rank is the mean over those available."
        yield TextTable(
            f"{outcome.suite.name}: average", ["model", "average", "mean rank", *names], lines, note
        )


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _verdict(was: float, now: float | None, within: float) -> str:
    if now is None:
        return "not measured"
    return "the same" if abs(now - was) <= within + 1e-9 else "differs"


def _findings(suite: Suite) -> str:
    return "".join(f"Published: {k.replace('_', ' ')} {100 * v:.1f}. " for k, v in suite.findings.items())


def outcome_tables(outcome: SuiteResult) -> list[Table]:
    """Build the tables of a suite's result for the terminal."""
    tables = [_rich(content) for content in _tables(outcome)]
    if outcome.suite.note and tables:
        tables[-1].caption = f"{escape(str(tables[-1].caption or ''))}\n{escape(outcome.suite.note)}".strip()
    return tables


def _rich(content: TextTable) -> Table:
    table = Table(
        header_style="bold", title=escape(content.title), title_justify="left", caption_justify="left"
    )
    for i, name in enumerate(content.headings):
        table.add_column(escape(name), no_wrap=i == 0 and name == "model", overflow="fold")
    for row in content.rows:
        table.add_row(*map(escape, row))
    table.caption = escape(content.note) or None
    return table


def suite_tables(suite: Suite) -> list[Table]:
    """Describe a suite on the terminal."""
    rows = [
        [
            part.name,
            ", ".join(part.data),
            ", ".join(part.protocols) or "the data set's own",
            ", ".join(part.models) or "the suite's",
            "; ".join(f"{key}: {', '.join(map(str, values))}" for key, values in part.vary.items()),
            part.published.source if part.published else "–",
        ]
        for part in suite.parts
    ]
    headings = ["part", "data", "protocols", "models", "varies", "published"]
    tables = [_rich(TextTable(f"{suite.name}: {suite.title}", headings, rows, suite.note))]
    tables.append(_rich(TextTable("models", ["model"], [[name] for name in suite.models], suite.source)))
    if suite.claims:
        claims = [[claim.text, claim.not_measured or "measured"] for claim in suite.claims]
        tables.append(_rich(TextTable("claims", ["claim", ""], claims, _findings(suite))))
    return tables


def suite_page(outcome: SuiteResult) -> str:
    """Render one page: published against measured figures, then the report on all runs with a score.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    tables: list[dict[str, Any]] = [content._asdict() for content in _tables(outcome)]
    if outcome.left_out:
        rows = [[line] for line in outcome.left_out]
        tables.append({"title": "Skipped", "headings": ["what and why"], "rows": rows, "note": ""})
    runs = [run for run in outcome.runs if run.headline is not None and run.status == "finished"]
    intro = f"Source: {outcome.suite.source}. {outcome.suite.note}"
    return page.html(runs, outcome.suite.title, tables, intro)
