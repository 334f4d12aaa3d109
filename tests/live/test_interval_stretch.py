"""The stretch of intervals: planted miscoverage is found and mended; calm ones stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from taxi_duration.live.interval_stretch import IntervalStretch, StretchSettings, stretch_settings
from taxi_duration.live.traffic_bins import AREAS, BIN_MINUTES, BINS_A_DAY, SUMS, TrafficBins

START = 2_680_000  # a bin of December 2020


def bins_of(below: np.ndarray, above: np.ndarray, rides: float = 10.0) -> TrafficBins:
    """Bins in a row, all rides in Manhattan, with the shares of truths below and above."""
    count = np.full(len(below), rides)
    sums = {"rides": count, "below": below * rides, "above": above * rides}
    bin, area = START + np.arange(len(below)), np.full(len(below), AREAS.index("Manhattan"))
    return TrafficBins(bin, area, *(sums.get(name, 0 * count) for name in SUMS))


def steady(below: float, above: float, days: int = 14, rides: float = 10.0) -> TrafficBins:
    length = days * BINS_A_DAY
    return bins_of(np.full(length, below), np.full(length, above), rides)


def after(bins: TrafficBins, days: float = 0) -> int:
    """The minute at which the last bin ends, or some days later."""
    return (int(bins.bin.max()) + 1 + round(days * BINS_A_DAY)) * BIN_MINUTES


def at_once(bin: int) -> int:
    return bin


def live(
    spread: tuple[float, float],
    days: int,
    rides_a_day: float,
    seed: int = 1,
    told: Callable[[int], int] = at_once,
) -> np.ndarray:
    """Answer, tell truths and stretch anew, six times a day; return shares outside, (days, 2).

    Truths are normal about P50, wider below and above than the intervals promise by `spread`.
    At a bin those of rides before bin `told(bin)` have been told.
    """
    rng, every, ends = np.random.default_rng(seed), BINS_A_DAY // 6, 1.2816
    below, above = np.zeros(days * BINS_A_DAY), np.zeros(days * BINS_A_DAY)
    rides = rides_a_day / BINS_A_DAY
    for bin in range(0, len(below), every):
        known = max(told(bin), 0)
        past = bins_of(below[:known], above[:known], rides) if known else TrafficBins.none()
        stretch = IntervalStretch(past).at((START + bin) * BIN_MINUTES)
        truth = rng.normal(size=round(rides * every))
        outside = [
            np.mean(sign * truth * wider > ends * factor)
            for sign, wider, factor in zip((-1, 1), spread, stretch, strict=True)
        ]
        below[bin : bin + every], above[bin : bin + every] = outside
    return np.column_stack([below, above]).reshape(days, BINS_A_DAY, 2).mean(axis=1)


def test_no_feedback_has_no_effect():
    stretch = IntervalStretch(TrafficBins.none())
    assert stretch.at(START * BIN_MINUTES) == (1.0, 1.0)
    assert stretch.many(np.array([7, 8, 9000])).tolist() == [[1.0, 1.0]] * 3


def test_what_is_promised_changes_nothing():
    assert IntervalStretch(bins := steady(0.1, 0.1)).at(after(bins)) == pytest.approx((1.0, 1.0))


def test_each_side_is_stretched_by_its_own_truths():
    low, high = IntervalStretch(bins := steady(0.12, 0.1)).at(after(bins))
    assert (low > 1.2, high) == (True, pytest.approx(1.0))
    low, high = IntervalStretch(bins := steady(0.1, 0.08)).at(after(bins))
    assert (low, high < 0.85) == (pytest.approx(1.0), True)


@pytest.mark.parametrize("rides_a_day", [3000.0, 300.0])
@pytest.mark.parametrize("spread", [(1.5, 1.0), (1.0, 1.5), (1.4, 1.4), (0.8, 0.8)])
def test_planted_miscoverage_is_mended_within_a_week(spread, rides_a_day):
    truths = np.random.default_rng(2).normal(size=100_000)
    outside = [np.mean(truths * wider > 1.2816) for wider in spread]
    held = 1 - live(spread, 35, rides_a_day).sum(axis=1)
    weeks = held.reshape(5, 7).mean(axis=1)
    assert ((weeks[1:] > 0.75) & (weeks[1:] < 0.85)).all()
    left = abs(held[14:].mean() - 0.8) / abs(0.8 - (1 - sum(outside)))
    assert left < (0.2 if rides_a_day > 1000 else 0.35)


@pytest.mark.parametrize("rides_a_day", [3000.0, 300.0])
def test_calm_weeks_stay_calm(rides_a_day):
    weeks = 1 - live((1.0, 1.0), 70, rides_a_day).sum(axis=1).reshape(10, 7).mean(axis=1)
    assert np.abs(weeks - 0.8).max() < 0.03


LATE = {
    "a day": lambda bin: bin - BINS_A_DAY,
    "three days": lambda bin: bin - 3 * BINS_A_DAY,
    "a week": lambda bin: bin - 7 * BINS_A_DAY,
    "each Monday": lambda bin: bin // (7 * BINS_A_DAY) * 7 * BINS_A_DAY,
}


@pytest.mark.parametrize("late", LATE)
def test_calm_weeks_stay_calm_however_late_truths_are_told(late):
    """They say how the intervals of then were: followed in full, these went from 55 to 99 %."""
    days = 1 - live((1.0, 1.0), 70, 3000.0, told=LATE[late]).sum(axis=1)
    assert np.abs(days.reshape(10, 7).mean(axis=1) - 0.8).max() < 0.03
    assert np.abs(days - 0.8).max() < 0.06


@pytest.mark.parametrize("late", LATE)
def test_late_truths_make_bad_intervals_better_and_never_worse(late):
    days = 1 - live((1.4, 1.4), 70, 3000.0, told=LATE[late]).sum(axis=1)
    held, fitted = days.reshape(10, 7).mean(axis=1)[2:], 0.64
    assert held.min() > fitted
    assert held.max() < 0.82


@pytest.mark.parametrize("rides", [1, 100])
def test_fewer_rides_are_no_late_ones(rides):
    """As in a storm, or when the city shut down; and a calm night is none."""
    bins = steady(0.12, 0.1)
    fewer = np.where(np.arange(len(bins.bin)) < 11 * BINS_A_DAY, 5.0, 1.0) * rides
    fewer[np.arange(len(fewer)) % BINS_A_DAY < 36] = 0
    empty = bins._replace(rides=fewer, below=0.12 * fewer, above=0.1 * fewer)
    settings = stretch_settings()
    count = fewer @ 2.0 ** (-np.arange(len(fewer))[::-1] / (settings.half_life_days * BINS_A_DAY))
    full = np.exp(settings.gain * 0.02 * count / (count + settings.strength))
    assert IntervalStretch(empty).at(after(bins))[0] == pytest.approx(full, rel=0.05)


def test_few_that_are_told_at_once_do_not_stand_for_the_rest():
    bins = steady(0.14, 0.1, rides=1000)
    late = np.where(np.arange(len(bins.bin)) < 7 * BINS_A_DAY, 1000.0, 50.0)
    mixed = bins._replace(rides=late, below=0.14 * late, above=0.1 * late)
    low, full = (IntervalStretch(each).at(after(bins))[0] for each in (mixed, bins))
    assert 1.0 < low < 1.25 < full


def test_a_bin_counts_only_once_it_has_ended():
    below = np.full(1000, 0.1)
    below[-1] = 1.0
    bins = bins_of(below, np.full(1000, 0.1))
    stretch = IntervalStretch(bins)
    assert stretch.at(after(bins) - 1)[0] == pytest.approx(1.0)
    assert stretch.at(after(bins))[0] > 1.001


def test_the_stretch_goes_back_to_1_as_its_last_ride_gets_older():
    bins = steady(0.2, 0.2)
    stretch = IntervalStretch(bins)
    lows = [
        stretch.at(after(bins, days))[0] for days in (0, 20, 40, stretch_settings().horizon_days)
    ]
    assert lows == sorted(lows, reverse=True)
    assert lows[-1] == 1.0


@pytest.mark.parametrize(("outside", "bound"), [(0.0, "lowest"), (0.5, "highest")])
def test_false_truths_in_any_number_stretch_no_further_than_the_bounds(outside, bound):
    bins = steady(outside, outside, rides=1e6)
    limit = getattr(stretch_settings(), bound)
    assert IntervalStretch(bins).at(after(bins)) == pytest.approx((limit, limit))


def test_a_handful_of_truths_moves_little():
    one = steady(1.0, 0.0, days=1, rides=3 / BINS_A_DAY)
    low, high = IntervalStretch(one).at(after(one))
    assert 1.0 < low < 1.16
    assert 0.98 < high < 1.0


def test_one_ride_and_many_get_the_same_whatever_the_order_of_bins():
    rng = np.random.default_rng(7)
    bins = bins_of(rng.uniform(0, 0.3, 2000), rng.uniform(0, 0.3, 2000))
    order = rng.permutation(len(bins.bin))
    halves = [column[order] / (1 if i < 2 else 2) for i, column in enumerate(bins)]
    twice = TrafficBins(*(np.concatenate([half, half]) for half in halves))
    ats = after(bins) - rng.integers(0, 20_000, 300)
    one_by_one = [IntervalStretch(bins).at(int(at)) for at in ats]
    np.testing.assert_allclose(IntervalStretch(bins).many(ats), one_by_one, rtol=1e-12)
    np.testing.assert_allclose(IntervalStretch(twice).many(ats), one_by_one, rtol=1e-12)


def test_rides_before_the_horizon_do_not_count():
    settings = stretch_settings()
    bins = steady(0.2, 0.2, days=1)
    at = after(bins) + round(settings.horizon_days) * BINS_A_DAY * BIN_MINUTES
    assert IntervalStretch(bins).at(at) == (1.0, 1.0)


def test_settings_are_those_given():
    settings = StretchSettings(7.0, 1.0, 1.0, 0.5, 3.0, 14.0, 1e9)
    bins = steady(0.2, 0.1, rides=1e6)
    assert IntervalStretch(bins, settings).at(after(bins)) == pytest.approx(
        (np.exp(0.1), 1.0), rel=1e-3
    )
