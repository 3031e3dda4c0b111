"""The pages of decisions and of doubtful labels: each race as curves, each suspect with its picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from snellen.decisions.record import decisions_in, reviews_in
from snellen.reports.charts import ChartPoint, bands
from snellen.reports.labels import ACTIONS
from snellen.web.state import site_of

if TYPE_CHECKING:
    from fastapi.responses import Response

__all__ = ["router"]

router = APIRouter()


@router.get("/decisions", response_model=None)
def decisions_page(request: Request) -> Response:
    """List the decisions of the workspace, the latest first."""
    site = site_of(request)
    return site.page("decisions", title="Decisions", decisions=decisions_in(site.store).all())


@router.get("/decisions/{id}", response_model=None)
def decision_page(request: Request, id: str) -> Response:
    """Show a decision, or how a race stands: its sentence, the race as curves, and the models with their
    runs.
    """
    site = site_of(request)
    kept = decisions_in(site.store).get(id)
    decision = kept.content
    titles = {"running": "A race under way", "interrupted": "A race that was interrupted"}
    decided = f"Use {decision['choice']}" if decision["choice"] else "Not decided"
    return site.page(
        "decision",
        title=titles.get(kept.status, decided),
        kept=kept,
        decision=decision,
        reference=decision["choice"] or decision["leader"],
        chart=_chart(decision),
        runs=site.known_runs(arm["run"] for arm in decision["arms"]),
        active="decisions",
    )


@router.get("/decisions/{id}/progress")
def decision_progress(request: Request, id: str) -> dict[str, Any]:
    """Return how far a race is, for its page."""
    kept = decisions_in(site_of(request).store).get(id)
    images, of = kept.content["images"], kept.content["of"]
    return {"status": kept.status, "done": images, "total": of, "text": f"{images:,} of {of:,} images"}


@router.get("/labels", response_model=None)
def reviews_page(request: Request) -> Response:
    """List what models said about labels, the latest first."""
    site = site_of(request)
    return site.page("reviews", title="Labels", reviews=reviews_in(site.store).all(), active="labels")


@router.get("/labels/{id}", response_model=None)
def review_page(request: Request, id: str) -> Response:
    """Show each suspicious label with its picture, to decide on; a script saves the decisions as a file."""
    site = site_of(request)
    kept = reviews_in(site.store).get(id)
    known = site.previewed(one["image"] for one in kept.content["suspects"])
    return site.page(
        "review",
        title=f"Labels of {kept.data}",
        kept=kept,
        review=kept.content,
        pictures={sha256: f"/previews/{sha256}" for sha256 in known},
        actions=ACTIONS,
        runs=site.known_runs(kept.content["runs"]),
        active="labels",
    )


def _chart(decision: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return each model's difference to the recommended one, by the number of images."""
    reference = decision["choice"] or decision["leader"]
    series = {
        arm["name"]: [
            ChartPoint(
                x=look["images"],
                y=100 * gap["value"],
                low=100 * gap["low"],
                high=100 * gap["high"],
                name=arm["name"],
            )
            for look in decision["history"]
            if (gap := look["gaps"].get(arm["name"])) is not None
        ]
        for arm in decision["arms"]
        if arm["name"] != reference
    }
    label = f"points to the {'choice' if decision['choice'] else 'leader'}"
    return bands(series, x="images", y=label, margin=100 * decision["within"])
