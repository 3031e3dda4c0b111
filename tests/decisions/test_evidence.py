"""Evidence: against integrals and enumeration, and by what optional stopping could gain."""

from __future__ import annotations

import math
from itertools import pairwise, permutations, product

import mpmath  # type: ignore[import-untyped] # comes with sympy, which torch needs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snellen.decisions.evidence import images_needed, log_capital, log_sign_test, upper_bound


@pytest.mark.parametrize(
    ("wins", "losses"), [(0, 0), (1, 0), (0, 1), (7, 3), (3, 7), (200, 150), (5000, 4000), (4000, 5000)]
)
def test_the_sign_test_is_its_integral(wins, losses):
    """Twice the integral over (1/2, 1) of p^w (1 - p)^l, against fair coin flips."""
    with mpmath.workdps(30):
        flips = (wins + losses) * mpmath.log(2)

        def density(p):
            return mpmath.exp(wins * mpmath.log(p) + losses * mpmath.log(1 - p) + flips) if p < 1 else 0

        points = [0.5, 0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.57, 0.58, 0.6, 0.65, 0.75, 0.9, 1]
        expected = mpmath.log(2 * mpmath.quad(density, points))
    assert float(log_sign_test(wins, losses)) == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [
        (0, 0, 0.0),
        (1, 0, 0.40546510810816405),
        (10, 0, 5.226235312862918),
        (7, 9, -1.5512602047308706),
        (30, 12, 2.9149936531003062),
        (400, 350, -0.7610110811161209),
        (5000, 4800, -1.6573739905663247),
    ],
)
def test_the_sign_test_is_that_of_others(wins, losses, expected):
    """The one-sided beta-binomial mixture of confseq 0.0.11 (Howard et al.) for a uniform mixture; that of
    expectation 0.6.1 gives the same to ten digits.
    """
    assert float(log_sign_test(wins, losses)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("population", "expected"),
    [
        (
            None,
            [
                0.0003953561899239501,
                0.3075822973651709,
                1.259247642036514,
                3.1775096982160274,
                4.6436703129502535,
            ],
        ),
        (
            120,
            [
                0.0003953561899239501,
                0.33035465918499474,
                2.1558422894901614,
                11.002763737172954,
                29.12374451336701,
            ],
        ),
    ],
)
def test_the_capital_is_that_of_the_authors(population, expected):
    """Waudby-Smith and Ramdas's code, confseq 0.0.11: ``diversified_betting_mart`` with the same bets, of
    the gains as shares of their range, with and without replacement.
    """
    n = np.arange(1, 101)
    gains = (np.modf(n * 0.6180339887498949)[0] - 0.62) * np.where(n % 3 == 0, 0.2, 1.0)
    capital = log_capital(gains, -0.7, 0.5, population=population)
    assert capital[[0, 9, 39, 79, 99]] == pytest.approx(expected, rel=1e-9)


def test_no_stopping_rule_gains():
    """By dynamic programming: the best time to stop, with fair coin flips, expects at most 1."""
    most = 200
    value = np.exp([float(log_sign_test(w, most - w)) for w in range(most + 1)])
    for n in range(most - 1, -1, -1):
        wins = np.arange(n + 1)
        now = np.exp(log_sign_test(wins, n - wins))
        value = np.maximum(now, (value[1:] + value[:-1]) / 2)
    assert value[0] <= 1 + 1e-12


def test_the_chance_of_ever_passing():
    """20 is passed within 300 flips of a fair coin with a chance of 0.033, below the 0.05 promised."""
    mass, passed = np.array([1.0]), 0.0
    for n in range(1, 301):
        wins = np.arange(n + 1)
        mass = np.append(mass, 0) / 2 + np.append(0, mass) / 2
        over = log_sign_test(wins, n - wins) >= math.log(20)
        passed += mass[over].sum()
        mass = np.where(over, 0, mass)
    assert passed == pytest.approx(0.033, abs=0.0005)


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_a_fair_game_expects_what_it_began_with(margin):
    """All sequences of five images, each gain with its chance, so that the mean is exactly 0."""
    gains = np.array([-1 - margin, -margin, 1 - margin])
    chances = np.array([0.25 - margin / 2, 0.5, 0.25 + margin / 2])
    assert chances @ gains == pytest.approx(0)
    expected = np.zeros(5)
    for sequence in product(range(3), repeat=5):
        weight = math.prod(chances[k] for k in sequence)
        expected += weight * np.exp(log_capital(gains[list(sequence)], -1 - margin, 1 - margin))
    assert expected == pytest.approx(np.ones(5))


@pytest.mark.parametrize("values", [(-1, -1, 0, 0, 1, 1), (-1, -1, 0, 1, 1, 1), (-0.5, -0.5, 0, 0, 0, 1)])
def test_without_replacement_by_enumeration(values):
    """All orders of six images with a mean of 0 or more: capital expects at most 1; Ville's bound."""
    paths = np.array(
        [np.exp(log_capital(np.array(order), -1, 1, population=6)) for order in permutations(values)]
    )
    assert (paths.mean(0) <= 1 + 1e-9).all()
    for alpha in (0.5, 0.2, 0.1):
        assert (paths.max(1) >= 1 / alpha).mean() <= alpha


def test_certain_once_the_rest_cannot_change_it():
    gains = np.array([-1.0] * 6 + [1.0] * 4)
    capital = log_capital(gains, -1, 1, population=10)
    assert not np.isinf(capital[:5]).any()
    assert np.isinf(capital[6:]).all()  # after six losses, four wins cannot make up for them
    fair = np.array([-1.0] * 5 + [1.0] * 5)
    assert not np.isinf(log_capital(fair, -1, 1, population=10)).any()


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_bounds_hold_the_mean_and_never_rise(values, seed):
    values = np.array(values)
    bounds = [upper_bound(values[: n + 1], -1, 1, 0.05) for n in range(0, len(values), 7)]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(bounds))
    finite = upper_bound(values, -1, 1, 0.05, population=len(values))
    assert finite == pytest.approx(values.mean(), abs=1e-6)  # all are known


def test_bounds_cover():
    """Of 300 sequences that are looked at 200 times, at most 5% ever exclude the mean."""
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(300):
        draws = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=200)
        missed += upper_bound(draws, -1, 1, 0.05) < 0.1
    assert missed / 300 <= 0.05


def test_weights():
    rng = np.random.default_rng(0)
    values, weights = rng.choice([-1.0, 1.0], size=400, p=[0.7, 0.3]), np.tile([0.5, 1.5], 200)
    bound = upper_bound(values, -1, 1, 0.05, weights)
    assert (weights * values).mean() < bound < 0


def test_the_estimate_of_what_is_needed():
    rng = np.random.default_rng(3)
    gains = rng.choice([-1.0, 0.0, 1.0], p=[0.15, 0.8, 0.05], size=4000)
    needed = images_needed(gains, 1.0, math.log(20))
    reached = int(np.argmax(log_capital(gains, -1, 1) >= math.log(20)))
    assert reached / 3 < needed < reached * 3
    assert images_needed(-gains, 1.0, math.log(20)) == math.inf


def test_a_gain_beyond_the_range():
    with pytest.raises(ValueError, match="between -1 and 1"):
        log_capital(np.array([2.0]), -1, 1)
