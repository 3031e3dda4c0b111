"""The run viewer: metrics, samples, single samples, and two runs side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response  # noqa: TC002 - routes are read off annotations
from starlette.exceptions import HTTPException

from snellen._util.paths import without_folders
from snellen.errors import BadOption, UnknownName, UsageError
from snellen.images import is_hash
from snellen.leaderboards.query import page_of
from snellen.metrics.classification import Confusion, per_class
from snellen.metrics.format import heading_of
from snellen.metrics.stats import Estimate
from snellen.reports.page import boxes_of, matrix_of
from snellen.reports.tables import pairs, plainly
from snellen.runs.compare import compare
from snellen.runs.run import Run
from snellen.types import Outcome
from snellen.web.images import preview
from snellen.web.state import AppState, picture, site_of

__all__ = ["router"]

router = APIRouter()
#: A position in a data set, within a database's integers.
Position = Annotated[int, Path(ge=0, lt=2**31)]
#: Samples per page, and scores drawn as bars.
SAMPLES, BARS = 24, 20


def _run(site: AppState, id: str) -> Run:
    return Run(site.store, site.store.find(id))


@router.get("/runs/{id}", response_model=None)
def run_page(request: Request, id: str) -> Response:
    """Show metrics, confusions, order bias, and the samples selected by the URL."""
    site = site_of(request)
    run = _run(site, id)
    wanted = _Wanted(request.query_params)
    truth, predicted = pairs(run.outcomes) if run.classifies else ([], [])
    rows = list(islice(_matching(run, wanted), wanted.first, wanted.first + SAMPLES + 1))
    figures = run.metrics
    return site.page(
        "run",
        title=f"{run.model}, {run.protocol}",
        run=run,
        figures=figures,
        scores=[(heading_of(n), plainly(n, figures)) for n in figures.scores if figures.figure(n)],
        classes=sorted(per_class(truth, predicted), key=lambda row: (row["f1"], row["class"]))
        if truth
        else [],
        matrix=matrix_of(truth, predicted) if truth else None,
        confused=Confusion.of(truth, predicted).confused() if truth else [],
        order=_order(figures.protocol),
        wanted=wanted,
        link=lambda truth, predicted: wanted.address(truth=truth, predicted=predicted),
        samples=[_brief(run, row) for row in rows[:SAMPLES]],
        more=len(rows) > SAMPLES,
        labels=run.manifest.data.labels,
        outcomes=list(Outcome),
        manifest=json.dumps(run.published_manifest(), indent=2, ensure_ascii=False),
    )


class _Wanted:
    """The filters on a run's samples, as encoded in the URL."""

    names = ("outcome", "right", "truth", "predicted", "q", "page")

    def __init__(self, given: Mapping[str, str]) -> None:
        for name in given:
            if name not in self.names:
                raise BadOption(f"Unknown filter {name!r}; allowed: {', '.join(self.names)}.")
        self.outcome = given.get("outcome", "")
        if self.outcome and self.outcome not in list(Outcome):
            raise BadOption(f"outcome={self.outcome!r} is not allowed; allowed: {', '.join(Outcome)}.")
        self.right = given.get("right", "")
        if self.right not in ("", "yes", "no"):
            raise BadOption(f"right={self.right!r} is not allowed; allowed: yes, no.")
        #: None means any; "" means no prediction.
        self.truth, self.predicted = given.get("truth"), given.get("predicted")
        self.q = given.get("q", "").strip()
        self.page = page_of(given.get("page", "1"))

    @property
    def first(self) -> int:
        """The number of samples before this page."""
        return SAMPLES * (self.page - 1)

    @property
    def any(self) -> bool:
        """Whether any filter is set."""
        return bool(self.outcome or self.right or self.q) or not self.truth is self.predicted is None

    def address(self, **changes: Any) -> str:
        """Return the part of the URL that encodes the filters, with some changed."""
        kept = {name: getattr(self, name) for name in self.names if name != "page"} | changes
        keep_empty = ("truth", "predicted")
        parameters = {k: v for k, v in kept.items() if v is not None and (v != "" or k in keep_empty)}
        return f"?{urlencode(parameters)}#samples"

    def _is_right(self, mark: float | None) -> bool:
        """Return whether a score passes the filter; an unknown score never does."""
        return mark is not None and (mark == 1 if self.right == "yes" else mark <= 0)

    def keeps(self, run: Run, row: Mapping[str, Any]) -> bool:
        """Return whether a sample passes the filters (apart from the answer's text)."""
        return (
            (not self.outcome or row["outcome"] == self.outcome)
            and (not self.right or self._is_right(_mark(run, row)))
            and (self.truth is None or (row["label"] or "") == self.truth)
            and (self.predicted is None or row["prediction"] == self.predicted)
        )


def _matching(run: Run, wanted: _Wanted) -> Iterator[dict[str, Any]]:
    """Yield rows of matching samples, reading only as far as needed."""
    sought = wanted.q.lower()
    pages = run.answered() if sought else ((row, ()) for row in run.findings())
    for row, replies in pages:
        if not wanted.keeps(run, row):
            continue
        texts = [reply.text for reply in replies]
        if sought in "\n".join([row["id"], row["prediction"], row["reason"], *texts]).lower():
            yield row


def _mark(run: Run, row: Mapping[str, Any]) -> float | None:
    """Return a prediction's score from 0 to 1; None if unknown."""
    if run.classifies:
        return None if row["label"] is None else float(row["label"] == row["prediction"])
    mark: float | None = row["metrics"].get(run.primary)
    return mark


def _brief(run: Run, row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("id", "position", "label", "prediction", "outcome")}
    return {
        **kept,
        "reason": without_folders(row["reason"] or ""),
        "mark": _mark(run, row),
        "image": row["images"][0] if row["images"] else None,
    }


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
    return site.page(
        "sample",
        title=f"Sample {row['id']}",
        run=run,
        row=row,
        mark=_mark(run, row),
        content={k: v for k, v in sample["content"].items() if k not in ("synonyms", "sizes", "regions")},
        replies=run.replies(row["id"]),
        exchanges=_scored(run.replies(row["id"])),
        bars=_bars(scores) if isinstance(scores, dict) else [],
        boxes=boxes_of(details),
        votes=_votes(details),
        rules=details.get("rule", []),
        details=json.dumps(details, indent=2, ensure_ascii=False) if details else "",
        neighbors=run.neighbors(position),
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
    """Show two runs on their shared samples, starting with those on which they disagree."""
    site = site_of(request)
    wanted = list(dict.fromkeys(request.query_params.getlist("run")))
    if len(wanted) != 2:
        raise BadOption(f"{len(wanted)} runs are selected. Select two in the leaderboard to compare them.")
    runs = [_run(site, id) for id in wanted]
    (comparison,) = compare(runs, across=True)
    first = SAMPLES * (page_of(request.query_params.get("page", "1")) - 1)
    rows = comparison.disagreements[first : first + SAMPLES]
    asked_alike = runs[0].protocol == runs[1].protocol
    return site.page(
        "compare",
        title="Side by side",
        runs=runs,
        found=comparison,
        heading=heading_of(comparison.score),
        asked_alike=asked_alike,
        scale=_scale(comparison.result.difference),
        rows=[_beside(runs, row) for row in rows],
        first=first,
        page=first // SAMPLES + 1,
        more=len(comparison.disagreements) > first + SAMPLES,
        address=urlencode([("run", run.id) for run in runs]),
    )


def _scale(gap: Estimate) -> int:
    """Return the points at the ends of a line that holds an interval."""
    most = 100 * max(abs(gap.low), abs(gap.high), abs(gap.value))
    return next((step for step in (5, 10, 20, 50, 100, 200, 500) if most <= step), 1000)


def _beside(runs: Sequence[Run], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample with each run's answer."""
    sides = []
    for run in runs:
        sample = run.sample(row["id"])
        try:
            finding = run.finding(sample["position"])
        except UnknownName as error:
            raise UsageError(f"{run.id} has no prediction for {row['id']!r}.") from error
        texts = [reply.text for reply in run.replies(row["id"]) if reply.text][:3]
        sides.append({**_brief(run, finding), "texts": texts})
    return {"id": row["id"], "label": row["label"], "image": sides[0]["image"], "sides": sides}
