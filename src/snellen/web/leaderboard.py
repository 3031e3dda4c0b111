"""The leaderboard's pages: tables, averages, per-class comparison, and downloads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from snellen.errors import BadOption, UsageError
from snellen.leaderboards.board import Group, benchmark, grouped
from snellen.leaderboards.columns import columns_of
from snellen.leaderboards.entries import Entry
from snellen.leaderboards.model_info import SIZES, UNKNOWN
from snellen.leaderboards.query import Query
from snellen.leaderboards.ranking import Average, Ranks, pareto
from snellen.metrics.format import UNREAD_NOTE, heading_of
from snellen.metrics.registry import METRICS
from snellen.reports.charts import ChartPoint, curves, scatter
from snellen.reports.leaderboard_files import Ranked, as_csv, as_json, as_markdown, csv_of
from snellen.runs.run import Run
from snellen.web.progress import RunProgress
from snellen.web.state import AppState, site_of

__all__ = ["router"]

router = APIRouter()
#: The most rows per page, charts per page, markers per chart, and models or classes per heat map.
ROWS, CHARTS, MARKS, MODELS, CLASSES = 200, 4, 40, 20, 60
#: The most runs under way that are watched.
WATCHED = 10
#: The quantities to plot scores against.
_AXES: dict[str, tuple[str, Callable[[Entry], float | None], bool]] = {
    "speed": ("items per second", lambda e: e.speed, False),
    "memory": ("peak memory in GB", lambda e: None if e.memory is None else e.memory / 1e9, True),
    "cost": ("cost in $", lambda e: e.cost, True),
}


def _query(request: Request) -> Query:
    return Query.of(request.query_params.multi_items())


@router.get("/", response_model=None)
def leaderboard(request: Request) -> Response:
    """Show runs in tables, filtered and sorted as the URL says."""
    site, query = site_of(request), _query(request)
    entries = site.board.entries()
    seen = [entry for entry in entries if query.keeps(entry)]
    groups = grouped(seen, query)
    shown = _paged(groups, query.page)
    ranks = _ranks(site, entries, query)
    boards = []
    for group, rows in shown:
        places, paired = ranks(group)
        tied = Counter(places.values())
        suites = dict.fromkeys(suite for entry in rows for suite in entry.suites)
        boards.append(
            {
                "group": group,
                "rows": rows,
                "ranks": places,
                "tied": tied,
                "paired": paired,
                "suites": suites,
                "conclusion": site.board.conclusion(group),
                "top": METRICS[group.primary].high,
            }
        )
    charts = [chart for group, _ in shown if (chart := _chart(group, query.x))]
    return site.page(
        "leaderboard",
        title="Leaderboard",
        query=query,
        boards=boards,
        charts=charts[:CHARTS],
        charts_left_out=len(charts[CHARTS:]),
        sweeps=_sweeps(seen)[:CHARTS],
        facets=_facets(entries, query),
        total=sum(not entry.published for entry in seen),
        runs=sum(not entry.published for entry in entries),
        pages=-(-sum(len(group.entries) for group in groups) // ROWS),
        axes=_AXES,
        facts_file=site.store.folder / "models.toml",
        columns=columns_of(seen, query.column),
        available=columns_of(seen),
        under_way=_under_way(site, entries),
        unread_note=UNREAD_NOTE,
    )


def _under_way(site: AppState, entries: Sequence[Entry]) -> list[tuple[Run, RunProgress]]:
    """Return the runs that a process is working on, as far as they are."""
    opened = (Run(site.store, entry.id) for entry in entries if entry.status == "running")
    return [(run, RunProgress.of(run)) for run in islice(opened, WATCHED) if run.status == "running"]


def _paged(groups: Sequence[Group], page: int) -> list[tuple[Group, Sequence[Entry]]]:
    """Return the groups of one page, with their rows on it."""
    first = ROWS * (page - 1)
    shown: list[tuple[Group, Sequence[Entry]]] = []
    for group in groups:
        rows = group.entries[max(0, first) : max(0, first + ROWS)]
        if rows:
            shown.append((group, rows))
        first -= len(group.entries)
        if first + ROWS <= 0:
            break
    return shown


def _chart(group: Group, axis: str) -> dict[str, Any] | None:
    label, value, small = _AXES[axis]
    points = [
        ChartPoint(
            x=x,
            y=100 * e.value,
            name=_named(e, group),
            low=_percent(e.low),
            high=_percent(e.high),
            href=f"/runs/{e.id}" if e.id else "",
        )
        for e in group.entries
        if e.value is not None and (x := value(e))
    ]
    kept = _best(points, small=small)
    top = 100 * METRICS[group.primary].high
    drawn = scatter(kept, x=label, y=heading_of(group.primary), small=small, top=top)
    left_out = len(points) - len(kept)
    return None if drawn is None else {"title": benchmark(group), "left_out": left_out, **drawn}


def _best(points: Sequence[ChartPoint], *, small: bool) -> list[ChartPoint]:
    """Return as many entries as fit into a chart, in their order: the Pareto front, then the highest
    scores.
    """
    best = pareto([(point.x, point.y) for point in points], small=small)
    others = sorted({*range(len(points))} - {*best}, key=lambda i: -points[i].y)
    return [points[i] for i in sorted([*best, *others][:MARKS])]


def _ranks(site: AppState, entries: Sequence[Entry], query: Query) -> Callable[[Group], Ranks]:
    """Rank a group's runs among all comparable ones, regardless of filters (see
    :meth:`snellen.leaderboards.board.Board.ranks`).
    """

    def key(group: Group) -> tuple[str, str, str, str]:
        return group.data, group.protocol, group.primary, group.fingerprint

    unfiltered = {key(group): group for group in grouped(entries, query)}
    return lambda group: site.board.ranks(unfiltered.get(key(group), group))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _named(entry: Entry, group: Group) -> str:
    name = entry.model if group.protocol else f"{entry.model}, {entry.protocol}"
    return f"{name} (published)" if entry.published else name


def _sweeps(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Plot scores against the number of candidate class names, for data sets evaluated with several."""
    by_data: dict[tuple[str, str], dict[str, dict[int, ChartPoint]]] = {}
    for entry in entries:
        if entry.value is not None and entry.classes and not entry.published:
            bare = entry.protocol.partition("?")[0]
            lines = by_data.setdefault((entry.data, entry.primary), {})
            point = ChartPoint(x=entry.classes, y=100 * entry.value, name=entry.model)
            lines.setdefault(f"{entry.model}, {bare}", {})[entry.classes] = point
    charts = []
    for (data, primary), lines in sorted(by_data.items()):
        several = {name: list(points.values()) for name, points in lines.items() if len(points) > 1}
        top = 100 * METRICS[primary].high
        drawn = curves(several, x="number of candidate class names", y=heading_of(primary), top=top)
        if drawn is not None:
            charts.append({"title": data, **drawn})
    return charts


def _facets(entries: Sequence[Entry], query: Query) -> dict[str, list[tuple[str, int]]]:
    """Return the available filters, with the number of entries for each value."""
    entries = [entry for entry in entries if query.published or not entry.published]
    readers: dict[str, Callable[[Entry], str]] = {
        "data": lambda e: e.data,
        "protocol": lambda e: e.protocol,
        "size": lambda e: e.info.size,
        "license": lambda e: e.info.license or UNKNOWN,
        "family": lambda e: e.info.family or UNKNOWN,
    }
    facets = {}
    for name, read in readers.items():
        counts = Counter(
            read(entry) for entry in entries if not entry.published or name in ("data", "protocol")
        )
        order = [size for size, _, _ in SIZES] + [UNKNOWN] if name == "size" else sorted(counts)
        facets[name] = [(value, counts[value]) for value in order if counts[value]]
    suites = Counter(suite for entry in entries for suite in entry.suites)
    return {**facets, "suite": sorted(suites.items())}


@router.get("/averages", response_model=None)
def averages(request: Request) -> Response:
    """Show models over benchmarks: average score, average rank, and missing scores."""
    site, query = site_of(request), _query(request)
    entries = site.board.entries()
    names, rows = _averaged(site, query)
    ranked = [row.average for row in rows if row.average is not None]
    return site.page(
        "averages",
        title="Averages",
        query=query,
        rows=rows,
        places={
            row.model: None if row.average is None else 1 + sum(other > row.average for other in ranked)
            for row in rows
        },
        names=names,
        runs=any(not entry.published for entry in entries),
        facets=_facets(entries, query),
    )


def _averaged(site: AppState, query: Query) -> tuple[list[str], list[Average]]:
    """Average scores over benchmarks: data sets with a protocol, whatever the tables show."""
    entries = [entry for entry in site.board.entries() if query.keeps(entry)]
    return site.board.averaged(grouped(entries, replace(query, by="protocol")))


@router.get("/averages.csv", response_model=None)
def averages_file(request: Request) -> Response:
    """Return the averages as CSV."""
    names, rows = _averaged(site_of(request), _query(request))
    table = [
        {"model": row.model, "average": row.average, "average_rank": row.rank, "missing": row.missing}
        | {name: row.scores[name] for name in names}
        for row in rows
    ]
    headers = {
        "content-type": "text/csv; charset=utf-8",
        "content-disposition": 'attachment; filename="averages.csv"',
    }
    return Response(csv_of(table), headers=headers)


@router.get("/heatmap", response_model=None)
def heatmap(request: Request) -> Response:
    """Show recall by class, with runs side by side."""
    site = site_of(request)
    wanted = list(dict.fromkeys(request.query_params.getlist("run")))
    if not 0 < len(wanted) <= MODELS:
        raise BadOption(f"{len(wanted)} runs are selected. Select 1 to {MODELS} in the leaderboard.")
    opened = [Run(site.store, site.store.find(run)) for run in wanted]
    for run in opened:
        if not run.classifies:
            raise UsageError(f"{run.id} does not predict classes, so it has no per-class figures.")
    by_run = [
        # A class that was only predicted has no recall.
        {row["class"]: row for row in site.digest(run).classes if row["support"]}
        for run in opened
    ]
    names = sorted({name for rows in by_run for name in rows})

    def mean(name: str) -> float:
        known = [rows[name]["recall"] for rows in by_run if name in rows]
        return float(sum(known) / len(known))

    ordered = sorted(names, key=lambda name: (mean(name), name))[:CLASSES]
    rows = [{"name": name, "cells": [rows.get(name) for rows in by_run]} for name in ordered]
    return site.page(
        "heatmap",
        title="Classes",
        runs=opened,
        rows=rows,
        left_out=len(names) - len(ordered),
        several=len({run.manifest.data.fingerprint for run in opened}) > 1,
    )


@router.get("/leaderboard.{format}", response_model=None)
def download(request: Request, format: str) -> Response:
    """Return the visible leaderboard as CSV, JSON or Markdown."""
    site, query = site_of(request), _query(request)
    makers: dict[str, Callable[[Ranked], str]] = {
        "csv": as_csv,
        "json": as_json,
        "md": partial(as_markdown, chosen=query.column),
    }
    if format not in makers:
        raise BadOption(f"leaderboard.{format} is not available; allowed: {', '.join(makers)}.")
    ranks = _ranks(site, site.board.entries(), query)
    text = makers[format]([(group, ranks(group)[0]) for group in site.board.select(query)])
    kinds = {"csv": "text/csv", "json": "application/json", "md": "text/markdown"}
    headers = {
        "content-type": f"{kinds[format]}; charset=utf-8",
        "content-disposition": f'attachment; filename="leaderboard.{format}"',
    }
    return Response(text, headers=headers)
