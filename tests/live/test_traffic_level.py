"""The level of the traffic: found again when planted, 1 when there is none or it does not help."""

from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.live.traffic_bins import (
    AREAS,
    BIN_MINUTES,
    SUMS,
    TrafficBins,
    clipped_logs,
    end_bin,
)
from taxi_duration.live.traffic_level import TrafficLevel, traffic_settings

START = 2_680_000  # a bin of December 2020
CENTRE = traffic_settings().centre
MANHATTAN, QUEENS = AREAS.index("Manhattan"), AREAS.index("Queens")


def bins_of(log_means: np.ndarray, rides: float = 20.0) -> TrafficBins:
    """Bins in a row whose rides all said the same, by bin and area."""
    length = len(log_means)
    bin, area = np.divmod(np.arange(length * len(AREAS)), len(AREAS))
    count = np.full(len(bin), rides)
    sums = {"rides": count, "log_sum": log_means.ravel() * rides, "off_without": count,
            "off_with": count}  # fmt: skip
    return TrafficBins(bin + START, area, *(sums.get(name, 0 * count) for name in SUMS))


def after(bins: TrafficBins, count: int = 0) -> int:
    """The minute at which the last bin ends, or some bins later."""
    return (int(bins.bin.max()) + 1 + count) * BIN_MINUTES


def test_no_feedback_has_no_effect():
    level = TrafficLevel(TrafficBins.none())
    assert level.factor(MANHATTAN, START * BIN_MINUTES) == 1.0
    assert level.factors(np.array([0, 5]), np.array([7, 8])).tolist() == [1.0, 1.0]


def test_a_planted_level_is_found_again_in_each_area():
    planted = np.full((288, len(AREAS)), np.log(1.2) + CENTRE)
    planted[:, QUEENS] = np.log(0.9) + CENTRE
    bins = bins_of(planted, rides=200.0)
    level = TrafficLevel(bins)
    assert level.factor(MANHATTAN, after(bins)) == pytest.approx(1.2, abs=0.02)
    assert level.factor(QUEENS, after(bins)) == pytest.approx(0.9, abs=0.02)


def test_a_bin_counts_only_once_it_has_ended():
    quiet = np.full((144, len(AREAS)), CENTRE)
    loud = quiet.copy()
    loud[-1] = 0.5
    bins = bins_of(loud)
    inside = after(bins) - 1
    assert TrafficLevel(bins).factor(MANHATTAN, inside) == 1.0
    assert TrafficLevel(bins).factor(MANHATTAN, inside + 1) > 1.02


def test_the_level_goes_back_to_1_as_its_last_ride_gets_older():
    bins = bins_of(np.full((144, len(AREAS)), np.log(1.2)))
    level = TrafficLevel(bins)
    factors = [level.factor(MANHATTAN, after(bins, hours * 6)) for hours in (0, 24, 240, 2400)]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx(1.0, abs=0.001)


def test_one_ride_and_many_get_the_same():
    bins = bins_of(np.random.default_rng(7).normal(0.1, 0.2, (300, len(AREAS))))
    ats = after(bins) - np.arange(0, 4000, 37)
    areas = np.arange(len(ats)) % len(AREAS)
    level = TrafficLevel(bins)
    one_by_one = [level.factor(area, at) for area, at in zip(areas, ats, strict=True)]
    np.testing.assert_allclose(level.factors(areas, ats), one_by_one, rtol=1e-12)


def test_the_order_of_bins_and_their_parts_do_not_matter():
    bins = bins_of(np.random.default_rng(7).normal(0.1, 0.2, (300, len(AREAS))))
    order = np.random.default_rng(8).permutation(len(bins.bin))
    halves = [column[order] / (1 if i < 2 else 2) for i, column in enumerate(bins)]
    twice = TrafficBins(*(np.concatenate([half, half]) for half in halves))
    same = TrafficBins(twice.bin.astype("int64"), twice.area.astype("int64"), *twice[2:])
    expected = TrafficLevel(bins).factor(QUEENS, after(bins))
    assert TrafficLevel(same).factor(QUEENS, after(bins)) == pytest.approx(expected)


@pytest.mark.parametrize("minute", range(BIN_MINUTES))
def test_a_level_that_begins_with_the_first_feedback_is_found_though_short_rides_end_first(minute):
    """Of those who set out, the quick end first, and those say too little for a while."""
    random = np.random.default_rng(5)
    start = np.datetime64("2020-12-14T08:00", "m") + minute
    pickup_at = start + np.sort(random.integers(0, 60, 600)).astype("timedelta64[m]")
    usual = np.clip(random.lognormal(2.5, 0.6, 600), 2, 45)
    answered = 6 + 0.6 * usual  # far from the truth for the shortest and the longest
    truth = 1.3 * usual
    counts = np.ones(600)
    sums = {"rides": counts, "log_sum": clipped_logs(truth, answered),
            "off_without": abs(truth - answered), "off_with": abs(truth - answered)}  # fmt: skip
    bins = TrafficBins(end_bin(pickup_at, truth), np.full(600, MANHATTAN),
                       *(sums.get(name, 0 * counts) for name in SUMS))  # fmt: skip
    assert TrafficLevel(bins).factor(MANHATTAN, after(bins)) > 1.1


@pytest.mark.parametrize(("said", "bound"), [(-0.7, "lowest"), (0.7, "highest")])
def test_the_factor_is_bounded(said, bound):
    bins = bins_of(np.full((288, len(AREAS)), said), rides=1e4)
    assert TrafficLevel(bins).factor(MANHATTAN, after(bins)) == getattr(traffic_settings(), bound)


def test_noise_is_not_followed():
    """Each bin says something that the next does not: nothing to learn."""
    loud = np.where(np.arange(2000)[:, None] // 3 % 2, 0.3, -0.3) * np.ones(len(AREAS)) + CENTRE
    bins = bins_of(loud)
    at = after(bins) - BIN_MINUTES * np.arange(300)
    factors = TrafficLevel(bins).factors(np.full(300, MANHATTAN), at)
    assert np.abs(np.log(factors)).max() < 0.01


def test_a_level_that_makes_answers_worse_is_not_applied():
    planted = np.full((288, len(AREAS)), np.log(1.2))
    bins = bins_of(planted)
    worse = bins._replace(off_with=bins.off_with * 1.02)
    assert TrafficLevel(worse).factor(MANHATTAN, after(bins)) == 1.0


def test_a_ride_is_in_the_bin_in_which_it_ended():
    pickup = np.array(["2021-01-01T00:00:00", "2021-01-01T00:05:30"], "datetime64[s]")
    midnight = int(pickup[0].astype("int64")) // 600
    ended = end_bin(pickup, np.array([9.99, 4.5]))
    assert (ended - midnight).tolist() == [0, 1]


def test_a_ride_says_less_the_further_off_it_is():
    ratio = np.exp([0.0, 0.3, 0.5, 0.75, 1.0, 2.0])
    said = [0.0, 0.3, 0.5, 0.25, 0.0, 0.0]
    np.testing.assert_allclose(clipped_logs(10 * ratio, np.full(6, 10.0)), said, atol=1e-12)
    np.testing.assert_allclose(
        clipped_logs(10 / ratio, np.full(6, 10.0)), np.negative(said), atol=1e-12
    )
