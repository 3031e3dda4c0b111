"""Which protocol a model takes."""

from __future__ import annotations

import snellen
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan


def test_without_a_protocol_each_model_takes_one_that_it_supports(workspace):
    plan = Plan(
        models=["pico:clip", "pico:llava"],
        data=["chart:shapes"],
        filters=Filters(limit=2),
        workspace=workspace,
    )
    assert [run.protocol for run in plan.run()] == ["rank", "closed-set"]
    assert plan.skipped == []


def test_predictions_say_which_are_correct(workspace):
    run = snellen.run(model="pico:clip", data="chart:shapes", limit=6, workspace=workspace)
    frame = run.predictions
    assert frame["correct"].tolist() == (frame["prediction"] == frame["label"]).tolist()
    assert sum(frame["correct"]) / 6 == run.metrics["accuracy"].value
    asked = snellen.run(model="pico:llava", data="chart:shapes?ask=color", limit=2, workspace=workspace)
    assert "correct" not in asked.predictions
