"""What is said while a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import Scripted
from snellen.reports.progress import progress
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan


@pytest.mark.parametrize(
    ("data", "protocol", "said"),
    [
        ("chart:shapes?ask=color", "vqa?metric=anls", "anls 100.0%"),
        ("chart:shapes", "closed-set?rounds=1", "accuracy 100.0%"),
    ],
)
def test_the_score_so_far_has_its_name(
    data: str, protocol: str, said: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def right(request) -> str:
        return (request.sample.references or (request.sample.label,))[0]

    plan = Plan(models=[Scripted(right)], data=[data], protocols=[protocol], filters=Filters(limit=3))
    with progress() as watch:
        plan.run(watch)
    assert f", {said}, 3 ok" in capsys.readouterr().err
