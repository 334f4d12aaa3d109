"""The level's drift within a window is found, and taken out of what trees learn from."""

from __future__ import annotations

import numpy as np

from taxi_duration.training.window_trend import WindowTrend, smooth_trend

DAYS = np.arange(np.datetime64("2021-01-01"), np.datetime64("2022-01-01"))


def test_a_planted_drift_is_found_at_every_day_but_near_the_ends():
    planted = np.linspace(0.8, 1.2, len(DAYS))
    expected = np.random.default_rng(0).uniform(5_000, 9_000, len(DAYS))
    found = smooth_trend(DAYS, planted * expected, expected)
    middle = slice(45, -45)
    np.testing.assert_allclose(
        found.level[middle] / found.level[182], planted[middle] / planted[182], rtol=0.01
    )
    assert found.level[-1] == 1.0


def test_a_window_without_drift_has_none_whatever_its_days_hold():
    expected = np.random.default_rng(0).uniform(100, 9_000, len(DAYS))
    found = smooth_trend(DAYS, 1.1 * expected, expected)
    np.testing.assert_allclose(found.level, 1.0)


def test_one_day_far_off_is_no_drift():
    factor = np.where(np.arange(len(DAYS)) == 200, 2.0, 1.0)
    found = smooth_trend(DAYS, 1000 * factor, np.full(len(DAYS), 1000.0))
    assert abs(found.level - 1).max() < 0.04


def test_trips_take_the_level_of_their_day_and_strays_that_of_the_nearest():
    trend = WindowTrend(DAYS[:3], np.array([0.8, 0.9, 1.0]))
    at = np.array(["2009-01-01T10:00", "2021-01-02T23:59", "2021-03-01T00:00"], "datetime64[s]")
    np.testing.assert_allclose(trend.of(at), [0.8, 0.9, 1.0], rtol=1e-6)
