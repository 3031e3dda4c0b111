"""The pages of decisions: which races were held, and each race as curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from snellen.decisions.record import stored_decision, stored_decisions
from snellen.reports.charts import ChartPoint, bands
from snellen.web.state import AppState, site_of

if TYPE_CHECKING:
    from fastapi.responses import Response

__all__ = ["router"]

router = APIRouter()


@router.get("/decisions", response_model=None)
def decisions_page(request: Request) -> Response:
    """List the decisions of the workspace, the latest first."""
    site = site_of(request)
    return site.page("decisions", title="Decisions", decisions=stored_decisions(site.store))


@router.get("/decisions/{id}", response_model=None)
def decision_page(request: Request, id: str) -> Response:
    """Show a decision: its sentence, the race as curves, and the models with their runs."""
    site = site_of(request)
    kept = stored_decision(site.store, id)
    decision = kept.document
    return site.page(
        "decision",
        title=f"Use {decision['choice']}" if decision["choice"] else "Not decided",
        kept=kept,
        decision=decision,
        reference=decision["choice"] or decision["leader"],
        chart=_chart(decision),
        runs=_known_runs(site, decision),
        active="decisions",
    )


def _known_runs(site: AppState, decision: Mapping[str, Any]) -> set[str]:
    """Return the runs of a race that are still there."""
    there = {row["id"] for row in site.store.list_runs()}
    return {arm["run"] for arm in decision["arms"]} & there


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
