"""The pages of eye tests: each chart or degradation as curves, with examples under the axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from snellen.eye_test.record import eye_tests_in
from snellen.reports.charts import ChartPoint, levels
from snellen.web.state import site_of

if TYPE_CHECKING:
    from fastapi.responses import Response

__all__ = ["router"]

router = APIRouter()


@router.get("/eye-tests", response_model=None)
def eye_tests_page(request: Request) -> Response:
    """List the eye tests of the workspace, the latest first."""
    site = site_of(request)
    tests = eye_tests_in(site.store).all()
    return site.page("eye_tests", title="Eye tests", tests=tests, active="eye-tests")


@router.get("/eye-tests/{id}", response_model=None)
def eye_test_page(request: Request, id: str) -> Response:
    """Show an eye test."""
    site = site_of(request)
    kept = eye_tests_in(site.store).get(id)
    panels = kept.content["panels"]
    shown = site.previewed(example["image"] for panel in panels for example in panel["examples"])
    return site.page(
        "eye_test",
        title=f"Eye test: {kept.data}",
        kept=kept,
        panels=[(panel, _chart(panel, shown)) for panel in panels],
        runs=site.known_runs(result["run"] for panel in panels for result in panel["results"]),
        active="eye-tests",
    )


def _chart(panel: dict[str, Any], shown: set[str]) -> dict[str, Any]:
    """Return a panel as numbers to draw."""
    return levels(
        {
            result["model"]: [
                ChartPoint(
                    x=point["level"],
                    y=100 * point["value"],
                    low=100 * point["low"],
                    high=100 * point["high"],
                    name=result["model"],
                )
                for point in result["points"]
            ]
            for result in panel["results"]
        },
        order=panel["levels"],
        fitted={
            result["model"]: [(point["level"], 100 * point["value"]) for point in result["curve"]]
            for result in panel["results"]
        },
        marks={result["model"]: result["threshold"] for result in panel["results"]},
        floor=None if panel["guess"] is None else 100 * panel["guess"],
        pictures={
            example["level"]: f"/previews/{example['image']}"
            for example in panel["examples"]
            if example["image"] in shown
        },
        x=panel["about"],
        y=panel["score"],
    )
