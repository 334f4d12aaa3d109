"""The split of rides, and the test that may be peeked at."""

from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.evaluation.sequential_test import (
    confidence_half_width,
    e_values,
    judge,
    paired_gains,
    split_gains,
    variance_inflation,
)
from taxi_duration.live.arms import arm_of

KEYS = [f"ride-{i}" for i in range(4000)]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_share_of_the_rides_goes_to_the_challenger(share):
    got = sum(arm_of(key, share, "a") == "challenger" for key in KEYS) / len(KEYS)
    assert got == pytest.approx(share, abs=4 * (share * (1 - share) / len(KEYS)) ** 0.5)


@pytest.mark.parametrize(("share", "arm"), [(0.0, "champion"), (1.0, "challenger")])
def test_share_of_nothing_or_all_sends_every_ride_to_one_arm(share, arm):
    assert {arm_of(key, share, "a") for key in KEYS} == {arm}


def test_ride_keeps_its_arm_in_every_process():
    assert [arm_of(key, 0.5, "a") for key in ("ride-1", "ride-2", "ride-3", "ride-4")] == [
        "challenger",
        "champion",
        "champion",
        "challenger",
    ]


def test_larger_share_takes_no_ride_away_from_the_challenger():
    before = {key for key in KEYS if arm_of(key, 0.1, "a") == "challenger"}
    after = {key for key in KEYS if arm_of(key, 0.3, "a") == "challenger"}
    assert before < after


def test_next_experiment_draws_other_rides():
    first = {key for key in KEYS if arm_of(key, 0.5, "a") == "challenger"}
    second = {key for key in KEYS if arm_of(key, 0.5, "b") == "challenger"}
    assert len(first & second) / len(first) == pytest.approx(0.5, abs=0.05)


# --- the test under peeking ------------------------------------------------------------------

ALPHA = 0.05
TESTS = 4000
DAYS = 60


def ever_promoted(gains, min_blocks=7):
    """Share of tests in which some look, after any day, says the challenger is better."""
    n = np.arange(1, gains.shape[1] + 1)
    mean = np.cumsum(gains, axis=1) / n
    says_better = (e_values(gains) >= 1 / ALPHA) & (mean > 0) & (n >= min_blocks)
    return says_better.any(axis=1).mean()


def equal_days(kind, rng):
    """Daily gains of a challenger that is truly no better, in minutes, one row per test."""
    shape = (TESTS, DAYS)
    if kind == "normal":
        return rng.normal(0, 0.1, shape)
    if kind == "heavy tails":
        return 0.1 * rng.standard_t(3, shape)
    if kind == "days of unlike size":
        return rng.normal(0, 0.1, shape) * np.where(np.arange(DAYS) % 7 < 2, 3.0, 1.0)
    if kind == "weekends go the other way":
        return rng.normal(0, 0.1, shape) + np.where(np.arange(DAYS) % 7 < 2, -0.15, 0.06)
    return correlated_days(0.1, float(kind.removeprefix("correlated ")), rng)


def correlated_days(spread, correlation, rng):
    """Daily gains around zero, each like the day before: a first-order autoregression."""
    news = rng.normal(0, spread, (TESTS, DAYS))
    gains = news.copy()
    for day in range(1, DAYS):
        carried = (1 - correlation**2) ** 0.5 * news[:, day]
        gains[:, day] = correlation * gains[:, day - 1] + carried
    return gains


def test_correlated_days_are_as_correlated_as_said():
    gains = correlated_days(0.1, 0.4, np.random.default_rng(1))
    assert np.corrcoef(gains[:, :-1].ravel(), gains[:, 1:].ravel())[0, 1] == pytest.approx(
        0.4, 0.05
    )


# Real green months had a correlation of 0.2 to 0.6 from day to day; see USUAL_CORRELATION.
@pytest.mark.parametrize(
    "kind",
    [
        "normal", "heavy tails", "days of unlike size", "weekends go the other way",
        "correlated 0.2", "correlated 0.3", "correlated 0.4", "correlated 0.5",
    ],
)  # fmt: skip
def test_peeking_every_day_promotes_an_equal_challenger_at_most_one_time_in_twenty(kind):
    assert ever_promoted(equal_days(kind, np.random.default_rng(1))) <= ALPHA


def test_longer_memory_than_any_month_showed_is_not_promoted_much_more_often():
    gains = correlated_days(0.1, 0.6, np.random.default_rng(1))
    assert ever_promoted(gains) <= 1.6 * ALPHA


def test_correlated_days_count_for_less_than_independent_ones():
    rng = np.random.default_rng(7)
    alone = variance_inflation(rng.normal(0, 0.1, (TESTS, DAYS)))[:, -1]
    alike = variance_inflation(correlated_days(0.1, 0.5, rng))[:, -1]
    assert 1 <= np.median(alone) < 1.5
    assert 2.2 < np.median(alike) < 3.2


def test_peeking_at_trips_promotes_an_equal_challenger_at_most_one_time_in_twenty():
    rng = np.random.default_rng(2)
    day = np.datetime64("2021-02-01") + np.repeat(np.arange(28), 40)
    promoted = 0
    for _ in range(400):
        weather = rng.normal(0, 0.3, 28).repeat(40)  # hits one of two equal models, then the other
        errors = rng.gamma(1.0, 3.5, (2, len(day))) + np.stack([weather, -weather])
        gains, trips = paired_gains(day, *errors, min_trips=30)
        promoted += judge(gains, trips, ALPHA, 7).verdict == "better"
    assert promoted / 400 <= ALPHA


def test_ordinary_t_test_under_the_same_peeking_would_promote_far_more():
    gains = equal_days("normal", np.random.default_rng(1))
    n = np.arange(1, DAYS + 1)
    mean = np.cumsum(gains, axis=1) / n
    sd = np.sqrt(np.maximum(np.cumsum(gains**2, axis=1) / n - mean**2, 1e-12))
    naive = (mean / sd * np.sqrt(n) > 2.0)[:, 6:].any(axis=1).mean()
    assert naive > 2 * ALPHA


@pytest.mark.parametrize(
    ("effect", "days", "power"), [(0.5, 60, 0.6), (1.0, 28, 0.85), (2.0, 10, 0.8)]
)
def test_truly_better_challenger_is_found(effect, days, power):
    gains = np.random.default_rng(3).normal(effect, 1.0, (TESTS, days))
    assert ever_promoted(gains) >= power


def test_truly_worse_challenger_is_called_worse():
    gains = np.random.default_rng(4).normal(-0.2, 0.1, 14)
    assert judge(gains, np.full(14, 100), ALPHA, 7).verdict == "worse"


def test_verdict_that_fell_early_stays():
    rng = np.random.default_rng(5)
    early = rng.normal(1.0, 0.2, 10)
    outcome = judge(np.append(early, rng.normal(-1.0, 0.2, 10)), np.full(20, 50), ALPHA, 7)
    assert (outcome.verdict, outcome.decided_at) == ("better", 7)


def test_models_that_answer_alike_are_never_told_apart():
    assert judge(np.zeros(40), np.full(40, 100), ALPHA, 7).verdict == "undecided"


def test_no_feedback_is_undecided():
    outcome = judge(np.zeros(0), np.zeros(0), ALPHA, 7)
    assert (outcome.verdict, outcome.high_min) == ("undecided", float("inf"))


def test_confidence_sequence_misses_the_true_gain_rarely_at_any_look():
    gains = np.random.default_rng(6).normal(0.3, 0.1, (300, 40))
    missed = [
        any(
            abs(test[:n].mean() - 0.3) > confidence_half_width(test[:n], ALPHA)
            for n in range(2, 41)
        )
        for test in gains
    ]
    assert np.mean(missed) <= ALPHA


# --- blocks ----------------------------------------------------------------------------------


def days(*numbers):
    return np.datetime64("2021-02-01") + np.array(numbers)


def test_day_that_is_not_over_is_left_out():
    gains, trips = paired_gains(days(0, 0, 1, 2), np.full(4, 3.0), np.array([1.0, 2, 2, 9]), 1)
    assert gains.tolist() == [1.5, 1.0]
    assert trips.tolist() == [2, 1]


def test_thin_days_are_joined_until_they_hold_enough_trips():
    gains, trips = paired_gains(days(0, 1, 1, 2, 2, 3), np.full(6, 2.0), np.ones(6), 3)
    assert trips.tolist() == [3]
    assert gains.tolist() == [1.0]


def test_split_arms_are_compared_within_a_day():
    error = np.array([5.0, 3.0, 9.0, 8.0, 1.0])
    challenger = np.array([False, True, False, True, True])
    gains, trips = split_gains(days(0, 0, 1, 1, 2), error, challenger, 1)
    assert gains.tolist() == [2.0, 1.0]
    assert trips.tolist() == [2, 2]


def test_order_in_which_feedback_arrives_changes_nothing():
    rng = np.random.default_rng(8)
    day, errors = days(*rng.integers(0, 9, 500)), rng.gamma(1, 3, (2, 500))
    shuffled = rng.permutation(500)
    ours = paired_gains(day, *errors, 20)[0]
    theirs = paired_gains(day[shuffled], *errors[:, shuffled], 20)[0]
    assert np.allclose(ours, theirs)
