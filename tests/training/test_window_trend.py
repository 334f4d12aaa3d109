"""The level's drift within a window is found, and taken out of what trees learn from."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from taxi_duration.training.window_trend import TREND_DAYS, WindowTrend, smooth_trend

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


@pytest.mark.parametrize("there", [
    np.arange(1), np.arange(365), np.arange(5 * 365), np.r_[:31, 400:431],  # months apart
    np.r_[0, 200, 3000],
])  # fmt: skip
def test_each_day_is_the_mean_of_all_by_how_far_they_are(there):
    rng = np.random.default_rng(1)
    expected = rng.uniform(100, 9_000, len(there))
    minutes = expected * rng.uniform(0.7, 1.4, len(there))
    kernel = np.exp(-0.5 * ((there[:, None] - there) / TREND_DAYS) ** 2)
    level = (kernel @ minutes) / (kernel @ expected)
    found = smooth_trend(np.datetime64("2021-01-01") + there, minutes, expected)
    np.testing.assert_allclose(found.level, level / level[-1], rtol=1e-10)


def test_a_window_of_years_never_holds_each_day_beside_each():
    days = np.arange(np.datetime64("2009-01-01"), np.datetime64("2026-01-01"))
    tracemalloc.start()
    smooth_trend(days, np.ones(len(days)), np.ones(len(days)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(days) * 100  # bytes; all pairs would be 6,209 days times 6,209


def test_trips_take_the_level_of_their_day_and_strays_that_of_the_nearest():
    trend = WindowTrend(DAYS[:3], np.array([0.8, 0.9, 1.0]))
    at = np.array(["2009-01-01T10:00", "2021-01-02T23:59", "2021-03-01T00:00"], "datetime64[s]")
    np.testing.assert_allclose(trend.of(at), [0.8, 0.9, 1.0], rtol=1e-6)
