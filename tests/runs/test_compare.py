"""Paired statistics: against scipy, brute force and simulation; and runs side by side."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from helpers import Scripted, text_of
from snellen.api import run
from snellen.errors import UsageError
from snellen.leaderboards.ranking import rank_runs
from snellen.metrics.classification import Confusion, headline
from snellen.metrics.stats import holm, mcnemar, paired, rate, samples_needed, wilson
from snellen.reports.tables import comparison_table
from snellen.runs.compare import compare


def simulate(rng, p: float, clusters: int, size: int, spread: float) -> np.ndarray:
    """Right or wrong by cluster, [clusters, size]: each cluster has a rate of its own around p."""
    if spread == 0:
        return rng.random((clusters, size)) < p
    own = rng.beta(p * spread, (1 - p) * spread, clusters)
    return rng.random((clusters, size)) < own[:, None]


@pytest.mark.parametrize(
    "p", [0.1, 0.5, *(pytest.param(p, marks=pytest.mark.exhaustive) for p in (0.3, 0.7, 0.9))]
)
@pytest.mark.parametrize(("clusters", "size", "spread"), [(100, 1, 0), (60, 4, 0), (80, 4, 3), (150, 2, 1)])
@pytest.mark.slow
def test_intervals_cover_what_they_promise(p, clusters, size, spread):
    """95 +- 1 % of simulated data sets (n >= 100, at least 40 clusters), give or take the simulation's
    own error; an interval that ignores clusters fails where they matter."""
    rng = np.random.default_rng(7)
    names = np.repeat(np.arange(clusters), size).tolist()
    hits = naive = 0
    tries = 1200
    for _ in range(tries):
        right = simulate(rng, p, clusters, size, spread).ravel()
        found, plain = rate(right.tolist(), names), wilson(int(right.sum()), len(right))
        hits += found.low <= p <= found.high
        naive += plain.low <= p <= plain.high
    assert 0.94 - 0.013 <= hits / tries <= 0.96 + 0.013
    if spread == 3:
        assert naive / tries < 0.93


@pytest.mark.parametrize("p", [0.3, 0.5, 0.8])
@pytest.mark.slow
def test_differences_cover_what_they_promise(p):
    rng = np.random.default_rng(3)
    hits = 0
    tries = 600
    names = np.repeat(np.arange(50), 3).tolist()
    for _ in range(tries):
        a = simulate(rng, p, 50, 3, 4).ravel()
        b = np.where(rng.random(150) < 0.6, a, rng.random(150) < p - 0.1)
        found = paired(a.tolist(), b.tolist(), names).difference
        hits += found.low <= 0.4 * 0.1 <= found.high
    assert 0.92 <= hits / tries <= 0.98


def test_one_sample_a_cluster_is_wilsons():
    right = [True] * 30 + [False] * 12
    assert rate(right, range(42)) == wilson(30, 42)
    alone = rate(right, ["same"] * 42)  # one image says nothing of others
    assert (alone.value, alone.low, alone.high) == (30 / 42, 0, 1)


def test_all_right_in_few_clusters_is_not_sure():
    assert rate([True] * 40, np.repeat(range(8), 5).tolist()).low < wilson(40, 40).low


def test_copies_of_an_image_add_nothing():
    """Every sample given five times over: the interval stays nearly what it was."""
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.7
    once = rate(right.tolist(), range(200))
    five = rate(np.repeat(right, 5).tolist(), np.repeat(range(200), 5).tolist())
    assert five.low == pytest.approx(once.low, abs=0.003)
    assert five.high == pytest.approx(once.high, abs=0.003)
    classes = np.where(rng.random(200) < 0.5, "a", "b")
    said = np.where(right, classes, "c")
    f1 = []
    for k in (1, 5):
        columns = (np.repeat(x, k).tolist() for x in (classes, said, np.arange(200)))
        truth, predicted, clusters = columns
        f1.append(headline(truth, predicted, None, clusters))
    for name in ("macro_f1", "weighted_f1", "balanced_accuracy"):
        assert f1[0][name]["value"] == pytest.approx(f1[1][name]["value"])
        assert f1[0][name]["low"] == pytest.approx(f1[1][name]["low"], abs=0.04)
    naive = Confusion.of(np.repeat(classes, 5).tolist(), np.repeat(said, 5).tolist()).estimate("f1", "macro")
    assert naive.low > f1[1]["macro_f1"]["low"] + 0.01


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_tail_of_a_fair_coin(a, b):
    n = a + b
    if n == 0:
        assert mcnemar(a, b) == 1
        return
    tail = sum(math.comb(n, k) for k in range(min(a, b) + 1)) / 2**n
    assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail))


def test_sign_flips_against_a_count_of_all_flips():
    rng = np.random.default_rng(2)
    for clusters in (6, 12, 20):
        names = np.repeat(np.arange(clusters), 4).tolist()
        a, b = rng.random(4 * clusters) < 0.8, rng.random(4 * clusters) < 0.6
        compared = paired(a.tolist(), b.tolist(), names)
        sums = (a.astype(float) - b).reshape(clusters, 4).sum(1)
        flips = 1 - 2 * ((np.arange(2**clusters)[:, None] >> np.arange(clusters)) & 1)
        expected = float((np.abs(flips @ sums) >= abs(sums.sum()) - 1e-9).mean())
        assert compared.test == "sign-flip"
        assert compared.p == pytest.approx(expected, abs=1e-12 if clusters < 13 else 0.015)
    assert paired([0.5] * 8, [0.5] * 8, list(range(8))).p == 1.0  # nothing differs: nothing to flip


def test_the_clustered_t_is_a_t_test_over_cluster_sums():
    rng = np.random.default_rng(4)
    names = np.repeat(np.arange(60), 3).tolist()
    a, b = rng.random(180) < 0.75, rng.random(180) < 0.65
    found = paired(a.tolist(), b.tolist(), names)
    sums = (a.astype(float) - b).reshape(60, 3).sum(1)
    reference = scipy_stats.ttest_1samp(sums, 0)
    assert found.test == "clustered-t"
    assert found.p == pytest.approx(reference.pvalue)
    interval = reference.confidence_interval()
    assert (found.difference.low, found.difference.high) == pytest.approx(
        (interval.low / 3, interval.high / 3)
    )


def test_detectable_difference_and_planned_samples_agree_with_simulation():
    assert samples_needed(0.02, 0.10) == 1960
    rng = np.random.default_rng(0)
    n = samples_needed(0.05, 0.15)
    found = 0
    for _ in range(600):
        kind = rng.choice(3, n, p=[0.10, 0.05, 0.85])
        a, b = int((kind == 0).sum()), int((kind == 1).sum())
        found += (a - b) ** 2 / (a + b) > 1.959964**2  # McNemar's chi-square, which the formula is for
    assert 0.76 <= found / 600 <= 0.85
    with pytest.raises(ValueError):
        samples_needed(0.2, 0.1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_stepwise_procedure_rejects(p_values):
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[i] * (len(p_values) - rank) > level:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_swapping_the_runs_swaps_the_signs(rows):
    a, b, clusters = map(list, zip(*rows, strict=True))
    one, other = paired(a, b, clusters), paired(b, a, clusters)
    assert one.difference.value == pytest.approx(-other.difference.value)
    assert one.p == pytest.approx(other.p)
    assert (one.only_first, one.only_second) == (other.only_second, other.only_first)


def seeing(share: float, name: str) -> Scripted:
    """A model that is right for a fixed share of the images."""

    def script(request):
        names = text_of(request).partition("{")[2].partition("}")[0].split(", ")
        sha = request.images[0].sha256
        truth = TRUTHS.get(sha, names[0])
        return truth if int(sha[:6], 16) / 16**6 < share else next(n for n in names if n != truth)

    return Scripted(script, name)


TRUTHS: dict[str, str] = {}


@pytest.fixture
def truths():
    from snellen.datasets.base import DATASETS, select

    TRUTHS.clear()
    for sample in select(DATASETS.make("chart:shapes?n=112&size=32")):
        TRUTHS[sample.images[0].sha256] = str(sample.label)


def examine(model, **more):
    kwargs = {"data": "chart:shapes?n=112&size=32", "protocol": "closed-set?rounds=1", **more}
    return run(model=model, **kwargs)


class TestRuns:
    def test_a_real_difference_is_found_and_recounted(self, workspace, truths):
        good, bad = examine(seeing(0.9, "good")), examine(seeing(0.6, "bad"))
        (found,) = compare([good, bad])
        a, b = good.predictions, bad.predictions
        right = [(f["prediction"] == f["label"]).to_numpy() for f in (a, b)]
        assert found.real
        assert found.result.difference.value == pytest.approx(right[0].mean() - right[1].mean())
        assert found.result.only_first == (right[0] & ~right[1]).sum()
        assert [row["id"] for row in found.disagreements] == a["id"][right[0] != right[1]].tolist()
        recall = [f.assign(r=r).groupby("label")["r"].mean() for f, r in zip((a, b), right, strict=True)]
        for name, difference, count in found.classes:
            assert difference == pytest.approx(recall[0][name] - recall[1][name])
            assert count == 4
        json.dumps(found.as_dict())
        assert rank_runs([good, bad]) == {good.id: 1, bad.id: 2}

    def test_other_software_is_said(self, workspace, truths, monkeypatch, capsys):
        runs = []
        for name, pixels in (("one", "pillow 12.0"), ("other", "torchvision 0.29.1")):
            model = seeing(0.8, name)
            own = dict(model.identity())
            monkeypatch.setattr(model, "identity", lambda own=own, pixels=pixels: {**own, "pixels": pixels})
            runs.append(examine(model))
        (found,) = compare(runs)
        (said,) = found.software
        assert said == (
            f"{runs[0].id} resized images with pillow 12.0 and {runs[1].id} with torchvision 0.29.1, which "
            "changes answers"
        )
        assert found.as_dict()["software"] == [said]
        assert said in str(comparison_table([found]).caption)
        assert not compare([runs[0], runs[0]])[0].software

    def test_equals_are_tied(self, workspace, truths):
        one, other = examine(seeing(0.80, "one")), examine(seeing(0.78, "other"))
        assert set(rank_runs([one, other]).values()) == {1}
        assert not compare([one, other])[0].real
        assert compare([one, other])[0].result.detectable > 0

    def test_only_shared_samples_count(self, workspace, truths):
        whole, part = examine(seeing(0.9, "a")), examine(seeing(0.7, "b"), limit=84)
        (found,) = compare([whole, part])
        assert (found.result.n, found.left_out) == (84, 28)

    def test_several_pairs_are_adjusted_together(self, workspace, truths):
        runs = [examine(seeing(share, f"m{share}")) for share in (0.9, 0.8, 0.5)]
        found = compare(runs)
        assert len(found) == 3
        assert [c.p_adjusted for c in found] == holm([c.result.p for c in found])

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"protocol": "closed-set?rounds=2"}, r"different prompts or options \(rounds\).*--across"),
            ({"protocol": "closed-set?rounds=1", "seed": 4}, r"different prompts or options \(seed\)"),
            ({"data": "chart:shapes?n=112&size=48"}, "different image or label"),
            ({"data": "chart:shapes?n=112&size=32&seed=5"}, "share no samples"),
            ({"classes": ("star", "key", "cup")}, "different candidate class names"),
        ],
    )
    def test_what_does_not_match_is_refused(self, workspace, truths, more, message):
        one, other = examine(seeing(0.9, "a")), examine(seeing(0.8, "b"), **more)
        with pytest.raises(UsageError, match=message):
            compare([one, other])
        if "asked" in message:
            assert compare([one, other], across=True)

    def test_without_a_truth_there_are_figures_but_no_ranks(self, workspace, truths, monkeypatch):
        runs = [examine(seeing(0.9, "a")), examine(seeing(0.8, "b"))]
        real = type(runs[0]).outcomes.fget
        monkeypatch.setattr(type(runs[0]), "outcomes", property(lambda self: real(self).assign(label=None)))
        assert rank_runs(runs) == {}
        with pytest.raises(UsageError, match="without a label"):
            compare(runs)

    def test_one_run_is_no_comparison(self, workspace, truths):
        with pytest.raises(UsageError, match="at least two"):
            compare([examine(seeing(0.9, "a"))])


@pytest.mark.slow
def test_the_command_line(workspace, monkeypatch, capsys):
    from snellen import cli

    def snellen(*arguments):
        monkeypatch.setattr("sys.argv", ["snellen", *arguments])
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    for model in ("pico:llava", "pico:llava-skewed"):
        code, *_ = snellen(
            "run", "--model", model, "--data", "chart:shapes?n=140", "--protocol", "open-world", "--quiet"
        )
        assert code == 0
    code, out, _ = snellen("compare", "llava-open", "llava-skewed", "--json")
    (found,) = json.loads(out)
    assert code == 0
    assert found["real"]
    assert found["difference"]["value"] > 0.05
    # The classes that carry it are the ones that training seldom showed.
    from snellen.pico_recipe import curriculum

    exposure = curriculum.counts(skewed=True)
    order = sorted(exposure, key=exposure.__getitem__)
    carried = [row["class"] for row in found["classes"] if row["difference"] > 0][:5]
    assert sum(name in order[:14] for name in carried) >= 4
    code, out, _ = snellen("compare", "llava-open", "llava-skewed")
    assert "first is better" in out
    assert "Disagreements" in out
    code, out, _ = snellen("sample-size", "--difference", "2", "--discordant", "10")
    assert "1,960 images" in out
    for arguments in (
        ("sample-size", "--difference", "0"),
        ("sample-size", "--difference", "20", "--discordant", "10"),
    ):
        code, _, err = snellen(*arguments)
        assert (code, "is not allowed" in err) == (2, True)
    assert snellen("compare", "llava-open")[0] == 2


class TestWhereAllSamplesAreAlike:
    """The spread of samples that all differ by the same says nothing of the error."""

    @pytest.mark.parametrize("n", [1, 2, 5, 40, 1000])
    @pytest.mark.parametrize("side", [-1, 0, 1])
    def test_the_interval_has_a_width(self, n, side):
        first, second = [float(side > 0)] * n, [float(side < 0)] * n
        found = paired(first, second, list(range(n)))
        gap = found.difference
        assert gap.value == side
        assert gap.low <= side <= gap.high
        assert gap.low < gap.high
        assert n == 1 or found.detectable > 0
        # Agresti and Min's estimate lies within it: half a sample more in each cell.
        assert gap.low <= side * n / (n + 2) <= gap.high
        wider = paired(first[: n // 2 + 1], second[: n // 2 + 1], list(range(n // 2 + 1))).difference
        assert wider.high - wider.low >= gap.high - gap.low - 1e-12

    def test_it_covers(self):
        """Of pairs that seldom differ, 95 % intervals hold the true difference about as often as they say."""
        rng = np.random.default_rng(0)
        held = 0
        for _ in range(400):
            draws = rng.choice([1, -1, 0], p=[0.03, 0.01, 0.96], size=30)
            found = paired((draws == 1).astype(float), (draws == -1).astype(float), list(range(30)))
            held += found.difference.low <= 0.02 <= found.difference.high
        assert held >= 0.9 * 400
