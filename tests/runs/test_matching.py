"""Which protocol a model takes."""

from __future__ import annotations

import pytest

import snellen
from snellen.errors import BadOption, Unsupported
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


@pytest.mark.parametrize(
    ("model", "option", "title"),
    [
        ("pico:llava", {"rounds": 3}, "closed-set?rounds=3"),
        ("pico:clip", {"normalize": "bytes"}, "rank?normalize=bytes"),
    ],
)
def test_options_choose_between_protocols_that_nobody_named(workspace, model, option, title):
    how = {"data": ["chart:shapes"], "filters": Filters(limit=2), "workspace": workspace}
    (run,) = Plan(models=[model], protocol_options=option, **how).run()
    assert run.protocol == title


def test_options_that_no_usual_protocol_has(workspace):
    how = {"data": ["chart:shapes"], "workspace": workspace}
    with pytest.raises(BadOption, match="'closed-set' has no option 'roundz'. Did you mean 'rounds'"):
        Plan(models=["pico:llava"], protocol_options={"roundz": 3}, **how)
    with pytest.raises(Unsupported, match="pico:clip can score, but closed-set needs generate"):
        Plan(models=["pico:clip"], protocol_options={"rounds": 3}, **how)


def test_a_score_that_a_run_does_not_have(workspace):
    run = snellen.run(model="pico:clip", data="chart:shapes", limit=2, workspace=workspace)
    with pytest.raises(KeyError, match="Did you mean 'accuracy'"):
        run.metrics["acuracy"]
