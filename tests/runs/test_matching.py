"""Which protocol a model takes."""

from __future__ import annotations

from snellen.runs.plan import Filters, Plan


def test_without_a_protocol_each_model_takes_one_that_it_supports(workspace):
    plan = Plan(
        models=["pico:clip", "pico:llava"],
        data=["chart:shapes"],
        filters=Filters(limit=2),
        workspace=workspace,
    )
    assert [run.protocol for run in plan.run()] == ["rank", "closed-set"]
    assert plan.skipped == []
