"""Statistics against scipy, hand-enumerated sign patterns and the cases where t is infinite or undefined."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as reference

from resx.spec import SpecError
from resx.stats import (
    EXACT_SEEDS,
    MIN_SEEDS,
    Estimate,
    binomial_error,
    equivalence,
    joint_sign_flip,
    log10_loss,
    t_interval,
    word,
)

SEEDS = np.array([3.1, 2.4, 4.0, 1.2, 2.9, 3.3])
FAMILY = np.column_stack([SEEDS, [0.3, -0.2, 0.5, -0.4, 0.1, 0.2], [1.0, 1.5, -0.2, 0.9, 1.1, 0.4]])


def test_t_interval_is_the_one_sample_t_test():
    estimate = t_interval(SEEDS, name="depth")
    low, high = reference.ttest_1samp(SEEDS, 0).confidence_interval(0.95)
    assert (estimate.name, estimate.n) == ("depth", 6)
    assert estimate.mean == pytest.approx(SEEDS.mean())
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_one_seed_has_a_mean_and_no_interval():
    estimate = t_interval([4.5])
    assert estimate.mean == 4.5
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert estimate.interval == "–"
    assert "–" in str(estimate)


@pytest.mark.parametrize(
    ("half", "shown"),
    [(0.2, "+0.01 [-0.19 to +0.21]"), (0.004, "+0.012 [+0.008 to +0.016]"), (0.0, "+0.01 [+0.01 to +0.01]")],
)
def test_a_narrow_interval_is_shown_with_more_decimals(half: float, shown: str) -> None:
    assert f"x: {shown}, n=6" == str(Estimate("x", 0.012, 0.012 - half, 0.012 + half, 6))


def test_a_missing_seed_is_not_dropped():
    assert math.isnan(t_interval([1.0, np.nan, 2.0]).mean)
    assert np.isnan(joint_sign_flip([[1.0, 2.0], [np.nan, 2.0]])).all()


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], 3.0])
def test_t_interval_refuses_other_shapes(bad):
    with pytest.raises(ValueError, match="one difference per seed"):
        t_interval(bad)


def enumerated(differences):
    """Adjusted p by the textbook: every sign pattern, scipy's t, the largest of the family."""

    def t(values):
        return np.abs(reference.ttest_1samp(values, 0).statistic)

    observed = t(differences)
    patterns = itertools.product((1, -1), repeat=len(differences))
    largest = np.array([t(differences * np.array(signs)[:, None]).max() for signs in patterns])
    return (largest[:, None] >= observed - 1e-9).mean(axis=0)


@pytest.mark.parametrize("n", [3, 4, 6])
def test_sign_flip_equals_hand_enumeration(n):
    np.testing.assert_allclose(joint_sign_flip(FAMILY[:n]), enumerated(FAMILY[:n]))


def test_sign_flip_of_one_comparison_by_hand():
    # |sum| of (1, 2, 3) under the eight patterns: 6 4 2 0 twice; of (-1, 2, 3) it is 4, reached by 4
    assert joint_sign_flip([[1.0], [2.0], [3.0]]) == pytest.approx([2 / 8])
    assert joint_sign_flip([[-1.0], [2.0], [3.0]]) == pytest.approx([4 / 8])


@pytest.mark.parametrize("n", [1, 2, 5, MIN_SEEDS, EXACT_SEEDS])
def test_smallest_p_is_two_in_two_to_the_n_for_the_whole_family(n):
    rng = np.random.default_rng(n)
    differences = 5 + rng.random((n, 3))
    assert joint_sign_flip(differences) == pytest.approx([2 / 2**n] * 3)


def test_six_seeds_are_the_fewest_that_can_reach_five_percent():
    assert 2 / 2**MIN_SEEDS <= 0.05 < 2 / 2 ** (MIN_SEEDS - 1)


def test_joint_p_is_never_below_the_comparison_alone():
    alone = [joint_sign_flip(FAMILY[:, [k]])[0] for k in range(3)]
    joint = joint_sign_flip(FAMILY)
    assert (joint >= np.array(alone) - 1e-12).all()
    assert joint[1] > alone[1]


def test_columns_without_variance():
    constant = np.full(6, 0.1 + 0.2)  # t infinite
    zero = np.full(6, 0.1 + 0.2 - 0.3)  # zero but for rounding: t is 0/0
    assert joint_sign_flip(np.column_stack([constant, zero, SEEDS])) == pytest.approx([2 / 64, 1, 2 / 64])
    assert joint_sign_flip(np.column_stack([zero, SEEDS]))[1] == joint_sign_flip(SEEDS[:, None])[0]


def test_a_sampled_family_repeats_and_is_near_the_exact_one(monkeypatch):
    exact = joint_sign_flip(FAMILY)
    monkeypatch.setattr("resx.stats.EXACT_SEEDS", 5)
    sampled = joint_sign_flip(FAMILY)
    np.testing.assert_array_equal(sampled, joint_sign_flip(FAMILY))
    np.testing.assert_allclose(sampled, exact, atol=0.015)
    assert (sampled != exact).any()  # it was in fact sampled
    assert (joint_sign_flip(np.ones((40, 1))) > 0).all()


def tost(values, margin):
    lower = reference.ttest_1samp(values, -margin, alternative="greater").pvalue
    upper = reference.ttest_1samp(values, margin, alternative="less").pvalue
    return max(lower, upper)


@pytest.mark.parametrize("shift", [0.0, 0.4, -0.4, 3.0])
def test_equivalence_is_two_one_sided_t_tests(shift):
    values = FAMILY[:, 1] + shift
    critical = np.abs(reference.ttest_1samp(values, 0).confidence_interval(0.9)).max()
    assert tost(values, critical) == pytest.approx(0.05)
    for margin in (0.7, 1.0, 2.0, 0.9999 * critical, 1.0001 * critical):
        judged = equivalence(values, margin, arms=[10 + values, np.full(6, 10.0)], n_test=1000)
        assert judged == ("equivalent" if tost(values, margin) <= 0.05 else "not shown")


def test_equivalence_is_refused_at_the_floor_only_where_every_arm_is_there():
    floor, off = np.array([0.1, 0.0, 0.2]), np.array([5.0, 5.1, 5.2])
    assert equivalence(floor - floor, 0.7, arms=[floor, floor], n_test=297) == "at the floor"
    assert equivalence(off - floor, 0.7, arms=[floor, off], n_test=297) == "not shown"


def test_equivalence_where_all_seeds_agree_exactly():
    arms = [np.full(6, 10.0)]
    assert equivalence(np.full(6, 0.3), 1.0, arms=arms, n_test=1000) == "equivalent"
    assert equivalence(np.full(6, -1.3), 1.0, arms=arms, n_test=1000) == "not shown"
    assert equivalence(np.full(6, 1.0), 1.0, arms=arms, n_test=1000) == "not shown"
    assert equivalence(np.full(6, 0.3), 0.1 + 0.2, arms=arms, n_test=1000) == "not shown"  # but for rounding the margin


def test_equivalence_with_one_seed_shows_nothing():
    assert equivalence([0.0], 1.0, arms=[[9.0], [9.0]], n_test=1000) == "not shown"


def test_a_margin_below_two_test_images_is_refused():
    arms = [np.full(3, 9.0)]
    with pytest.raises(SpecError, match="two of 297 test images"):
        equivalence(np.zeros(3), 0.5, arms=arms, n_test=297)
    assert equivalence(np.zeros(3), 200 / 297, arms=arms, n_test=297) == "equivalent"


def estimate(n, mean, p=None, half=1.0):
    return Estimate("", mean, mean - half, mean + half, n, p)


@pytest.mark.parametrize("n", range(1, MIN_SEEDS))
@pytest.mark.parametrize("expected", [-1, 0, 1])
@pytest.mark.parametrize("equivalent", [False, True])
def test_no_verdict_below_six_seeds(n, expected, equivalent):
    assert word(estimate(n, 50, p=1e-6), expected, equivalent=equivalent) in ("screening", "inconclusive")


@pytest.mark.parametrize(
    ("given", "expected", "equivalent", "said"),
    [
        (estimate(6, 9, p=0.031), 1, False, "supported"),
        (estimate(6, 9, p=0.031), -1, False, "refuted"),
        (estimate(6, 9, p=0.031), 0, False, "refuted"),
        (estimate(6, 9, p=0.06), 1, False, "inconclusive"),
        (estimate(6, 9), 1, False, "inconclusive"),
        (estimate(6, 0, p=0.5), 1, True, "refuted"),
        (estimate(6, 0, p=0.5), 0, True, "supported"),
        (estimate(6, 0.1, p=0.031), 0, True, "supported"),
        (estimate(6, 9, p=math.nan), 1, False, "inconclusive"),
        (estimate(3, 9), 1, False, "screening"),
        (estimate(3, 0.5), 1, False, "inconclusive"),
        (t_interval([9.0]), 1, False, "inconclusive"),
    ],
)
def test_words(given, expected, equivalent, said):
    assert word(given, expected, equivalent=equivalent) == said


def test_binomial_error_of_a_test_set():
    assert binomial_error(7, 10_000) == pytest.approx(100 * math.sqrt(0.07 * 0.93 / 10_000))


def test_log10_loss_keeps_nan_and_makes_zero_finite():
    values = log10_loss([0.1, 0.0, np.nan])
    assert values[0] == pytest.approx(-1)
    assert values[1] == pytest.approx(np.log10(2.0**-23))
    assert np.isnan(values[2])
