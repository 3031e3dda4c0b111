"""The run viewer: metrics, samples, single samples, and two runs side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from snellen.errors import BadOption, UnknownName
from snellen.exchange.export import rows_as_text
from snellen.images import is_hash
from snellen.leaderboards.query import page_of
from snellen.metrics.format import heading_of
from snellen.metrics.registry import METRICS
from snellen.metrics.stats import Estimate
from snellen.reports.official import official_cells, official_note
from snellen.reports.page import boxes_of
from snellen.reports.tables import plainly
from snellen.runs.run import Run
from snellen.types import Outcome
from snellen.web.digest import brief
from snellen.web.images import preview
from snellen.web.progress import RunProgress
from snellen.web.samples import SAMPLES, Place, Wanted, orders_of
from snellen.web.state import AppState, picture, site_of

__all__ = ["router"]

router = APIRouter()
#: A position in a data set, within a database's integers.
Position = Annotated[int, Path(ge=0, lt=2**31)]
#: Scores drawn as bars.
BARS = 20
#: The most runs side by side, by what they are called there.
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def _run(site: AppState, id: str) -> Run:
    return Run(site.store, site.store.find(id))


@router.get("/runs/{id}", response_model=None)
def run_page(request: Request, id: str) -> Response:
    """Show metrics, confusions, order bias, and the samples selected by the URL."""
    site = site_of(request)
    run = _run(site, id)
    digest = site.digest(run)
    wanted = Wanted.of(request.query_params, run)
    found = wanted.select(digest, run)
    figures = run.metrics
    return site.page(
        "run",
        title=f"{run.model}, {run.protocol}",
        run=run,
        figures=figures,
        progress=RunProgress.of(run) if run.status == "running" else None,
        scores=[(heading_of(n), plainly(n, figures)) for n in figures.scores if figures.figure(n)],
        classes=digest.classes,
        matrix=digest.matrix,
        confused=digest.confused,
        order=_order(figures.protocol),
        official=official_cells(run),
        official_note=official_note(run),
        wanted=wanted,
        orders=orders_of(run, digest),
        judged=not METRICS[run.primary].graded,
        link=lambda truth, predicted: wanted.address(truth=truth, predicted=predicted),
        found=found,
        samples=found[wanted.first : wanted.first + SAMPLES],
        pages=max(1, -(-len(found) // SAMPLES)),
        outcomes=list(Outcome),
        manifest=json.dumps(run.published_manifest(), indent=2, ensure_ascii=False),
    )


@router.get("/runs/{id}/progress", response_model=None)
def run_progress(request: Request, id: str) -> Response:
    """Return how far a run is, for a page that shows it."""
    return JSONResponse(RunProgress.of(_run(site_of(request), id)).as_dict())


@router.get("/runs/{id}/samples.{ending}", response_model=None)
def samples_file(request: Request, id: str, ending: Literal["csv", "jsonl"]) -> Response:
    """Return the selected samples with all that is stored of them, as a file."""
    site = site_of(request)
    run = _run(site, id)
    wanted = Wanted.of(request.query_params, run)
    chosen = {sample.id for sample in wanted.select(site.digest(run), run)}
    frame = run.predictions
    text = rows_as_text(frame[frame["id"].isin(chosen)], ending)
    kinds = {"csv": "text/csv", "jsonl": "application/jsonl"}
    name = f"{run.id}-samples.{ending}"
    return Response(
        text,
        headers={
            "content-type": f"{kinds[ending]}; charset=utf-8",
            "content-disposition": f'attachment; filename="{name}"',
        },
    )


def _order(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return how often each list position was chosen, and how often it held the right name, as shares."""
    # Without a bias, positions are chosen as often as they are right, or equally often if that is random.
    chosen, true = figures.get("answers_by_position"), figures.get("truths_by_position")
    if not chosen or not sum(chosen):
        return []
    return [
        {
            "place": place + 1,
            "count": count,
            "share": count / sum(chosen),
            "true": true[place] / sum(true) if true and place < len(true) and sum(true) else 1 / len(chosen),
            "known": bool(true),
        }
        for place, count in enumerate(chosen)
    ]


@router.get("/runs/{id}/samples/{position}", response_model=None)
def sample_page(request: Request, id: str, position: Position) -> Response:
    """Show one sample: the image, every prompt and answer, how they were parsed, log-likelihoods, boxes."""
    site = site_of(request)
    run = _run(site, id)
    row = run.finding(position)
    sample = run.sample(row["id"])
    details = dict(row["details"])
    scores = details.pop("scores", None)
    wanted = Wanted.of(request.query_params, run)
    selected = wanted.select(site.digest(run), run)
    place = Place.of([sample.position for sample in selected], position)
    replies = run.replies(row["id"])
    return site.page(
        "sample",
        title=f"Sample {row['id']}",
        run=run,
        row=row,
        right=run.verdict(row),
        content={k: v for k, v in sample["content"].items() if k not in ("synonyms", "sizes", "regions")},
        replies=replies,
        exchanges=_scored(replies),
        bars=_bars(scores) if isinstance(scores, dict) else [],
        boxes=boxes_of(details),
        votes=_votes(details),
        rules=details.get("rule", []),
        details=json.dumps(details, indent=2, ensure_ascii=False) if details else "",
        wanted=wanted,
        place=place,
        back=wanted.around(place, position),
    )


def _scored(replies: Sequence[Any]) -> list[list[float]]:
    """Return the scores of each reply, without those that are -inf."""
    return [[score.value for score in reply.scores] for reply in replies]


def _bars(scores: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the top names with their scores, as shares of the displayed range."""
    best = sorted(scores.items(), key=lambda pair: -pair[1])[:BARS]
    low, high = best[-1][1], best[0][1]
    return [
        {
            "name": name,
            "value": value,
            "share": 0.05 + 0.95 * (value - low) / (high - low) if high > low else 1.0,
        }
        for name, value in best
    ]


def _votes(details: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return names with the number of rounds that voted for them."""
    votes = details.get("votes")
    if not isinstance(votes, list):
        return []
    return Counter("(not read)" if vote is None else str(vote) for vote in votes).most_common()


@router.get("/runs/{id}/samples/{position}/images/{sha256}", response_model=None)
def sample_image(request: Request, id: str, position: Position, sha256: str) -> Response:
    """Return a sample's image at the largest available size: the original, or else its preview."""
    site = site_of(request)
    run = _run(site, id)
    if sha256 not in run.finding(position)["images"]:
        raise HTTPException(404)
    image = site.originals.image(run.id, position, sha256)
    if image is None:
        data = preview(site.store, sha256)
        image = None if data is None else ("image/jpeg", data)
    return picture(image)


@router.get("/previews/{sha256}", response_model=None)
def preview_image(request: Request, sha256: str) -> Response:
    """Return the small preview of an image."""
    site = site_of(request)
    if not is_hash(sha256):
        raise HTTPException(404)
    data = preview(site.store, sha256)
    return picture(None if data is None else ("image/jpeg", data))


@router.get("/compare", response_model=None)
def compare_page(request: Request) -> Response:
    """Show runs on their shared samples, starting with those on which most of them disagree."""
    site = site_of(request)
    wanted = list(dict.fromkeys(request.query_params.getlist("run")))
    if not 2 <= len(wanted) <= len(ORDINALS):
        raise BadOption(
            f"{len(wanted)} runs are selected. Select two to {len(ORDINALS)} in the leaderboard to compare "
            "them."
        )
    runs = [_run(site, id) for id in wanted]
    compared = site.compared(runs)
    # The more pairs disagree about a sample, the earlier it comes.
    ids = Counter(row["id"] for comparison in compared for row in comparison.disagreements)
    apart = [id for id, _ in ids.most_common()]
    page = page_of(request.query_params.get("page", "1"))
    shown = apart[SAMPLES * (page - 1) : SAMPLES * page]
    names = {run.id: name for run, name in zip(runs, ORDINALS, strict=False)}
    return site.page(
        "compare",
        title="Side by side",
        runs=runs,
        names=names,
        compared=compared,
        heading=heading_of(compared[0].score),
        asked_alike=len({run.protocol for run in runs}) == 1,
        scales=[_scale(comparison.result.difference) for comparison in compared],
        apart=len(apart),
        rows=_beside(runs, shown),
        page=page,
        pages=max(1, -(-len(apart) // SAMPLES)),
        address=urlencode([("run", run.id) for run in runs]),
    )


def _scale(gap: Estimate) -> int:
    """Return the points at the ends of a line that holds an interval."""
    most = 100 * max(abs(gap.low), abs(gap.high), abs(gap.value))
    return next((step for step in (5, 10, 20, 50, 100, 200, 500) if most <= step), 1000)


def _beside(runs: Sequence[Run], ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return samples with each run's answer."""
    rows = []
    for id in ids:
        sides = [_side(run, id) for run in runs]
        first = next(side["sample"] for side in sides if side["sample"])
        rows.append({"id": id, "label": first.label, "image": first.image, "sides": sides})
    return rows


def _side(run: Run, id: str) -> dict[str, Any]:
    """Return one run's answer to a sample; without ``sample`` if there is none."""
    try:
        sample = brief(run, run.finding(run.sample(id)["position"]))
    except UnknownName:
        return {"run": run, "sample": None, "texts": []}
    return {
        "run": run,
        "sample": sample,
        "texts": [reply.text for reply in run.replies(id) if reply.text][:3],
    }
