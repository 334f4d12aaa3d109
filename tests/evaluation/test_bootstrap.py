"""Confidence intervals over days."""

from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.evaluation.bootstrap import DayBootstrap


def test_interval_over_days_holds_the_true_mean_as_often_as_it_says():
    """Rides of a day move together: an interval over rides would hold it half the time."""
    day = np.datetime64("2021-02-01") + np.repeat(np.arange(20), 30)
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        values = rng.normal(0, 1, 20).repeat(30) + rng.normal(0, 1, 600)
        estimate = DayBootstrap(day, 0.95, 400).mean(values)
        held += estimate.low <= 0 <= estimate.high
    assert 0.92 <= held / 300 <= 0.98


def test_interval_of_one_day_with_many_hours_can_be_drawn_by_hour():
    at = np.datetime64("2021-02-01T00:00") + np.arange(1200).astype("m8[m]")
    estimate = DayBootstrap(at, block="h").mean(np.arange(1200) % 2.0)
    assert estimate.value == pytest.approx(0.5)


def test_weights_choose_the_rides_that_count():
    at = np.datetime64("2021-02-01") + np.arange(40) % 10
    errors = np.where(np.arange(40) < 20, 3.0, 100.0)
    assert DayBootstrap(at).rmse(errors, np.arange(40) < 20) == (3.0, 3.0, 3.0)


def test_days_without_the_rides_that_count_do_not_break_the_interval():
    at = np.datetime64("2021-02-01") + np.arange(40) % 10
    one_day = (np.arange(40) % 10 == 0).astype("float64")
    assert DayBootstrap(at).ratio(5 * one_day, one_day) == (5.0, 5.0, 5.0)


def test_same_seed_gives_the_same_interval():
    at = np.datetime64("2021-02-01") + np.arange(200) % 20
    values = np.random.default_rng(1).normal(size=200)
    assert DayBootstrap(at).mean(values) == DayBootstrap(at).mean(values)


def test_interval_over_five_days_is_widened_as_a_t_interval():
    """The plain percentile interval of five days holds the mean in four cases of five."""
    day = np.datetime64("2021-02-01") + np.arange(5).repeat(40)
    rng = np.random.default_rng(0)
    draws = DayBootstrap(day, 0.95, 1000)
    held = 0
    for _ in range(400):
        estimate = draws.mean(rng.normal(0, 1, 5).repeat(40))
        held += estimate.low <= 0 <= estimate.high
    assert 0.90 <= held / 400 <= 0.98


@pytest.mark.parametrize(("days", "tail"), [(5, 0.00095), (20, 0.0158), (2000, 0.0249)])
def test_tails_of_few_days_are_those_of_student(days, tail):
    """Φ(t √(n / (n - 1))), t being Student's 2.5 % quantile: worked out by hand."""
    at = np.datetime64("2021-02-01") + np.arange(days)
    assert DayBootstrap(at, 0.95, 10)._tail == pytest.approx(tail, rel=0.02)


@pytest.mark.parametrize("other", [{"seed": 1}, {"resamples": 11}, {"confidence": 0.8}])
def test_only_the_same_intervals_share_their_draws(other):
    at = np.datetime64("2021-02-01") + np.arange(9)
    first, same = (DayBootstrap(days, resamples=10) for days in (at, at + 50))
    assert same._draws is first._draws and same._tail == first._tail
    changed = DayBootstrap(at, **{"resamples": 10, **other})
    assert (
        changed._draws.shape != first._draws.shape
        or (changed._draws != first._draws).any()
        or changed._tail != first._tail
    )
