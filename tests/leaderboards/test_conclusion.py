"""What runs say in plain sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import Scripted
from snellen.api import run
from snellen.datasets.base import DATASETS, select
from snellen.leaderboards.conclusion import conclude, conclusions
from snellen.runs.compare import compare
from snellen.runs.run import Run

N = 56


@pytest.fixture
def model(workspace: Path) -> Callable[..., Run]:
    """Runs of models that get given samples right, and leave others unread."""
    data = select(DATASETS.make(f"chart:shapes?n={N}"))
    samples = {sample.images[0].sha256: (i, sample) for i, sample in enumerate(data)}

    def make(name: str, right: Callable[[int], bool], unread: Callable[[int], bool] = lambda _: False) -> Run:
        def say(request: Any) -> str:
            place, sample = samples[request.images[0].sha256]
            if unread(place):
                return "no idea"
            other = next(name for name in sample.labels if name != sample.label)
            return str(sample.label if right(place) else other)

        return run(
            model=Scripted(say, name=name), data=f"chart:shapes?n={N}", protocol="closed-set?rounds=1",
            workspace=workspace,
        )  # fmt: skip

    return make


def test_one_run(model):
    (text,) = conclusions([model("A", lambda i: i < 42)])
    assert text == "A: accuracy 75.0% (95% CI 62.3 to 84.5)."


def test_one_is_better(model):
    a, b = model("A", lambda i: i < 50), model("B", lambda i: i < 20)
    (text,) = conclusions([b, a])
    (comparison,) = compare([a, b])
    gap = comparison.result.difference
    assert text == (
        f"A is better than B (difference {100 * gap.value:.1f} points, 95% CI {100 * gap.low:.1f} to "
        f"{100 * gap.high:.1f})."
    )


def test_a_tie_a_worse_one_and_what_could_not_be_read(model):
    a, b = model("A", lambda i: i < 50), model("B", lambda i: i != 5 and i < 50)
    c = model("C", lambda i: i < 10, unread=lambda i: i >= 49)
    (text,) = conclusions([a, b, c])
    assert text.startswith("A and B are tied (difference 1.8 points, 95% CI -")
    assert text.endswith("C is worse than both. 12% of C's answers could not be read.")


def test_worse_than_both_is_said_only_if_it_is(model):
    """C is worse than A, but not significantly worse than B."""
    a, b, c = model("A", lambda i: i < 50), model("B", lambda i: i < 46), model("C", lambda i: i < 41)
    (first, _, other) = compare([a, b, c])
    assert first.real is False
    assert other.real is False
    (text,) = conclusions([a, b, c])
    assert "C is worse than A." in text


def test_models_with_the_same_name_are_told_apart(model, workspace):
    a = model("A", lambda i: i < 50)
    b = run(
        model=Scripted(lambda _: "no idea", name="A"), data=f"chart:shapes?n={N}", protocol="open-world",
        workspace=workspace,
    )  # fmt: skip
    text = " ".join(conclude([a, b]))
    assert text.startswith("A (closed-set?rounds=1) is better than A (open-world) (difference ")


def test_it_stands_on_reports_and_pages(model, workspace):
    from snellen.reports import page

    runs = [model("A", lambda i: i < 50), model("<b>B</b>", lambda i: i < 20)]
    assert "A is better than &lt;b&gt;B&lt;/b&gt; (difference" in page.html(runs)
    assert "A is better than" in page.markdown(runs)
    assert conclude([]) == []
