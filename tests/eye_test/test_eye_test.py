"""The eye test: charts, curves, and the card."""

from __future__ import annotations

import json
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import Scripted
from snellen import cli
from snellen.datasets.base import DATASETS
from snellen.datasets.eye_chart import EYE_CHARTS, SHAPES, EyeChart
from snellen.errors import BadOption
from snellen.eye_test.eye_test import CHARTS, run_eye_test
from snellen.eye_test.psychometric import CurvePoint, fit

NAMES = [f"chart:{name}" for name in EYE_CHARTS]


class TestCharts:
    @pytest.mark.parametrize(
        "name", [*NAMES, "chart:acuity?optotype=shapes", "chart:crowding?optotype=shapes"]
    )
    def test_levels_and_answers_take_turns(self, name):
        data = DATASETS.make(name, {"n": 8 * 24})
        assert isinstance(data, EyeChart)
        samples = [data.sample(i, data.labels, None) for i in range(len(data))]
        levels = Counter(s.meta["level"] for s in samples)
        assert set(levels.values()) == {24}
        assert len(levels) == 8
        assert {s.label for s in samples} <= set(data.labels)
        if name != "chart:counting":
            for level in levels:
                counts = Counter(s.label for s in samples if s.meta["level"] == level)
                whole = [counts[label] for label in data.labels]
                assert max(whole) - min(whole) <= 1
        assert len({data.row(i).id for i in range(len(data))}) == len(data)

    @pytest.mark.parametrize("name", NAMES)
    def test_the_same_options_give_the_same_pictures(self, name):
        one, other = DATASETS.make(name, {"n": 8}), DATASETS.make(name, {"n": 16})
        assert (
            one.sample(3, one.labels, None).images[0].sha256
            == other.sample(3, other.labels, None).images[0].sha256
        )
        assert one.digest(3) == other.digest(3)
        another = DATASETS.make(name, {"n": 8, "seed": 1})
        assert one.digest(3) != another.digest(3)

    def test_harder_is_smaller_fainter_nearer_more(self):
        """What is drawn, measured in the pictures."""

        def dark(name, index, threshold=120):
            data = DATASETS.make(name, {"n": 8})
            return (
                np.asarray(data.sample(index, data.labels, None).images[0].pixels)[..., 0] < threshold
            ).sum()

        assert dark("chart:acuity", 0) > 4 * dark("chart:acuity", 7) > 0
        assert dark("chart:print", 0) > 4 * dark("chart:print", 7) > 0
        data = DATASETS.make("chart:contrast", {"n": 8})
        darkest = [np.asarray(data.sample(i, data.labels, None).images[0].pixels).min() for i in range(8)]
        assert darkest == sorted(darkest)

    def test_relations_are_as_they_are_asked_for(self):
        import random

        from snellen.datasets.eye_chart import Asked, _relations

        for label in ("left", "right"):
            (first, second), text = _relations(Asked(0.4, label, "letters", random.Random(0)))
            assert (first.x < second.x) == (label == "left")
            names = [name for name in SHAPES if f"the {name} " in text or text.endswith(f"the {name}?")]
            assert len(names) == 2

    def test_a_chart_has_a_question_of_its_own(self):
        with pytest.raises(BadOption, match="a fixed question"):
            DATASETS.make("chart:acuity?ask=color")


def simulate(threshold, slope, guess, lapse, levels, n, rng, rising=True):
    z = slope * np.log(np.array(levels) / threshold) * (1 if rising else -1)
    rates = guess + (1 - guess - lapse) / (1 + np.exp(-z))
    return [
        CurvePoint(level, int(rng.binomial(n, rate)), n) for level, rate in zip(levels, rates, strict=True)
    ]


@pytest.mark.slow
class TestCurve:
    LEVELS: ClassVar[list[float]] = [round(0.8 * 10 ** (-0.2 * i), 4) for i in range(8)]

    def test_equals_scipy_s_maximum(self):
        from scipy.optimize import minimize

        rng = np.random.default_rng(1)
        points = simulate(0.2, 4.0, 0.1, 0.0, self.LEVELS, 400, rng)
        logs = np.log([p.level for p in points])

        def loss(theta):
            rates = 0.1 + 0.9 / (1 + np.exp(-np.exp(theta[1]) * (logs - theta[0])))
            return -sum(
                p.right * np.log(r) + (p.n - p.right) * np.log1p(-r)
                for p, r in zip(points, rates, strict=True)
            )

        best = minimize(loss, [np.log(0.3), 1.0], method="Nelder-Mead")
        found = fit(points, 0.1)
        assert found.threshold == pytest.approx(np.exp(best.x[0]), rel=0.03)
        assert found.slope == pytest.approx(np.exp(best.x[1]), rel=0.15)

    @pytest.mark.parametrize(
        ("levels", "right", "n", "guess", "threshold", "low", "high"),
        [
            (
                [0.8, 0.505, 0.319, 0.201, 0.127, 0.08, 0.0505, 0.0318],
                [20, 20, 19, 16, 9, 3, 2, 1],
                20,
                1 / 12,
                0.14428,
                0.11564,
                0.16736,
            ),
            ([10, 20, 40, 80, 160], [27, 38, 66, 90, 92], 100, 1 / 4, 34.166, 28.126, 40.640),
        ],
    )
    def test_is_near_psignifit_s(self, levels, right, n, guess, threshold, low, high):
        """psignifit 4.3 (Schütt et al.), a logistic curve of log levels without overdispersion; its priors
        move the threshold a little, and its intervals are credible ones.
        """
        points = [CurvePoint(level, count, n) for level, count in zip(levels, right, strict=True)]
        found = fit(points, guess)
        assert found.threshold == pytest.approx(threshold, rel=0.01)
        assert (found.low, found.high) == (pytest.approx(low, rel=0.05), pytest.approx(high, rel=0.05))

    @pytest.mark.parametrize("rising", [True, False])
    def test_the_interval_covers_the_truth(self, rising):
        """Nominally 95 % of the time: at least 90 of 100 here, which 95 % miss once in fifty."""
        rng = np.random.default_rng(2)
        levels = self.LEVELS if rising else [1, 2, 3, 4, 5, 6, 7, 8]
        true = 0.2 if rising else 4.0
        hits = 0
        for _ in range(100):
            found = fit(simulate(true, 4.0, 0.1, 0.02, levels, 20, rng, rising), 0.1, rising=rising)
            if found.threshold is not None:
                hits += (found.low or 0) <= true <= (found.high or np.inf)
        assert hits >= 90

    def test_guessing_has_no_threshold(self):
        points = [CurvePoint(level, 2, 20) for level in self.LEVELS]
        assert fit(points, 0.1).threshold is None
        assert fit([CurvePoint(level, 0, 20) for level in self.LEVELS], 0.1).threshold is None

    def test_what_is_beyond_the_chart_is_open(self):
        found = fit([CurvePoint(level, 20, 20) for level in self.LEVELS], 0.1)
        assert found.low is None
        assert found.high is not None
        assert found.high <= self.LEVELS[-2]
        easy_only = [CurvePoint(level, 20 if i == 0 else 2, 20) for i, level in enumerate(self.LEVELS)]
        found = fit(easy_only, 0.1)
        assert found.threshold > self.LEVELS[2]

    @given(st.lists(st.integers(0, 12), min_size=8, max_size=8), st.booleans())
    def test_every_count_has_a_curve_or_none(self, counts, rising):
        points = [CurvePoint(level, right, 12) for level, right in zip(self.LEVELS, counts, strict=True)]
        found = fit(points, 1 / 12, rising=rising)
        if found.threshold is None:
            return
        assert found.low is None or found.low <= found.threshold * 1.0001
        assert found.high is None or found.high >= found.threshold * 0.9999
        rates = [found.rate(level) for level in sorted(self.LEVELS)]
        assert all(1 / 12 - 1e-9 <= rate <= 1 for rate in rates)
        assert rates == sorted(rates, reverse=not rising)

    def test_levels_that_make_no_curve(self):
        with pytest.raises(ValueError, match="two levels"):
            fit([CurvePoint(1, 1, 2)], 0.5)
        with pytest.raises(ValueError, match="above 0"):
            fit([CurvePoint(0, 1, 2), CurvePoint(1, 1, 2)], 0.5)


@pytest.mark.slow
def test_eyes_of_known_acuity_get_their_card(workspace):
    """A model that sees letters of 0.15 and higher, and guesses below."""

    def script(request):
        about = request.sample
        return about.label if about.meta["level"] >= 0.15 else "E"

    model = Scripted(script)
    (reading,) = run_eye_test(model, charts=["chart:acuity"], n=8 * 24)
    levels = EYE_CHARTS["acuity"].levels
    above, below = min(x for x in levels if x >= 0.15), max(x for x in levels if x < 0.15)
    assert below * 0.9 < reading.curve.threshold < above * 1.1
    assert reading.verdict == "threshold within the chart"
    assert reading.as_dict()["accuracy"]["value"] > 0.4
    # Under the axis: a picture of each of four levels, from the easiest to the hardest.
    assert [level for level, _ in reading.pictures] == [levels[0], levels[2], levels[5], levels[7]]
    inks = [int((np.asarray(picture.pixels.convert("L")) < 120).sum()) for _, picture in reading.pictures]
    assert inks == sorted(inks, reverse=True)


@pytest.mark.slow
def test_the_built_in_models_have_cards(workspace, tmp_path, monkeypatch, capsys):
    card = tmp_path / "card.svg"
    charts = ["--chart", "chart:contrast?optotype=shapes", "--chart", "chart:acuity"]
    monkeypatch.setattr(
        "sys.argv",
        ["snellen", "eye-test", "pico:llava", *charts, "--limit", "64", "-o", str(card), "--quiet", "--json"],
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    document = json.loads(capsys.readouterr().out)
    contrast, letters = document["charts"]
    for reading in (contrast, letters):
        assert reading["verdict"] == "threshold within the chart"
        assert reading["threshold"] is not None
    (untaught,) = run_eye_test("pico:llava-skewed", charts=["chart:acuity"], n=64)  # it never saw a letter
    assert untaught.curve.threshold is None
    assert "could not be parsed" in untaught.verdict
    assert card.read_text(encoding="utf-8").startswith("<?xml")
    both = ["pico:clip", "pico:llava-skewed"]
    monkeypatch.setattr("sys.argv", ["snellen", "eye-test", *both, *charts, "--limit", "16", "--quiet"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    out = capsys.readouterr().out
    assert "Eye test: pico:clip" in out
    assert "Thresholds of all models" in out
    assert (workspace / "eye-test-pico-clip-pico-llava-skewed.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chart", "chart:shapes"], "chart:shapes' is not allowed"),
        (["--limit", "4"], "8 or more"),
        (["-o", "card.txt"], ".png, .svg, .pdf"),
    ],
)
def test_what_a_card_cannot_be_made_of(arguments, message, workspace, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["snellen", "eye-test", "pico:clip", *arguments, "--quiet"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_card_has_all_charts():
    assert {name.partition("?")[0] for name in CHARTS} == set(NAMES)
