"""The leaderboard as a file: CSV, JSON or Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from snellen._util.cells import inert_cell
from snellen.leaderboards.board import Group, benchmark
from snellen.leaderboards.columns import columns_of
from snellen.leaderboards.entries import Entry
from snellen.metrics.format import MISSING, counts, heading_of, with_interval
from snellen.reports.page import markdown_table
from snellen.storage.manifest import Figure

__all__ = ["Ranked", "as_csv", "as_json", "as_markdown", "csv_of"]

#: Groups with the ranks of their runs.
Ranked = Sequence[tuple[Group, Mapping[str, int]]]


def _flat(groups: Ranked) -> list[dict[str, Any]]:
    return [
        {**entry.as_dict(), "rank": places.get(entry.id)}
        for group, places in groups
        for entry in group.entries
    ]


def as_json(groups: Ranked) -> str:
    """Return all entries with their ranks as JSON."""
    return json.dumps(_flat(groups), indent=1, ensure_ascii=False)


def as_csv(groups: Ranked) -> str:
    """Return all entries with their ranks as CSV."""
    return csv_of(_flat(groups))


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with the same columns as CSV that no spreadsheet evaluates."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    if rows:
        writer.writerow([inert_cell(name) for name in rows[0]])
    for row in rows:
        cells = (json.dumps(v) if isinstance(v, dict | list) else v for v in row.values())
        writer.writerow([inert_cell(v) for v in cells])
    return buffer.getvalue()


def as_markdown(groups: Ranked, chosen: Sequence[str] = ()) -> str:
    """Return a table per group, with the page's columns."""
    lines: list[str] = []
    columns = columns_of((entry for group, _ in groups for entry in group.entries), chosen)
    for group, places in groups:
        lines += [f"## {' '.join(markdown_table([benchmark(group)], [])[0].strip('| ').split())}", ""]
        headings = ["#", "model", "protocol", heading_of(group.primary), "outcomes", "n"]
        headings += [*(column.heading for column in columns), "published"]
        cells = [
            [
                str(places.get(entry.id, MISSING)),
                entry.model,
                entry.protocol,
                with_interval(entry.primary, _figure(entry), entry.outcomes),
                counts(entry.outcomes),
                str(entry.n or ""),
                *(column.text(entry) for column in columns),
                entry.published,
            ]
            for entry in group.entries
        ]
        lines += markdown_table(headings, cells)
    return "\n".join(lines)


def _figure(entry: Entry) -> Figure | None:
    """Return an entry's primary score with its interval."""
    return None if entry.value is None else Figure(value=entry.value, low=entry.low, high=entry.high)
