"""Known effects in made trips, found again by the tables, the model and its parts.

That both ways of answering agree does not say that either is right: here the truth is planted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from taxi_duration.data.window import Window
from taxi_duration.domain.pickup_calendar import read_clocks
from taxi_duration.domain.rides import Rides
from taxi_duration.model.features import DISTANCE_FEATURES, PAIR_TABLE, FeatureTables, transform
from taxi_duration.training import calibration
from taxi_duration.training.feature_tables import COUNTS, fold_tables, window_tables
from taxi_duration.training.kinds import KINDS
from taxi_duration.training.window_sums import window_sums

HOME, WORK, SHOP = 74, 42, 75
QUICK = replace(KINDS["XGB"], parameters={**KINDS["XGB"].parameters, "rounds": 30, "eta": 0.3})


def rides_of(n: int = 6000, seed: int = 0) -> Rides:
    """Trips of November 2021 between three zones, one to five miles long."""
    rng = np.random.default_rng(seed)
    at = np.datetime64("2021-11-01T00:00:00") + rng.integers(0, 30 * 24 * 60, n).astype("m8[m]")
    zones = rng.choice([[HOME, WORK], [WORK, HOME], [HOME, SHOP]], n).astype("int16")
    miles = rng.uniform(1, 5, n).astype("float32")
    return Rides(zones[:, 0], zones[:, 1], at.astype("datetime64[s]"), miles)


def hour_of(rides: Rides) -> np.ndarray:
    return rides.pickup_at.astype("datetime64[h]").astype("int64") % 24


def tables_of(rides: Rides, minutes: np.ndarray) -> FeatureTables:
    return window_tables(Window.of(rides, minutes.astype("float32")), np.inf)


def of_pair(tables: FeatureTables, name: str, pickup: int, dropoff: int) -> float:
    return float(tables.pair[pickup, dropoff, PAIR_TABLE.index(name)])


def test_planted_rush_hour_stands_in_the_tables_of_city_and_zones():
    rides = rides_of()
    minutes = np.where(hour_of(rides) == 17, 20.0, 10.0)
    tables = tables_of(rides, minutes)
    for hours in (tables.city_hour, tables.pickup_hour[HOME], tables.dropoff_hour[WORK]):
        for measure in (0, 1):  # minutes, and pace
            weekday = hours[:24, measure]
            assert weekday.argmax() == 17
            assert weekday[17] / weekday[4] > 1.4  # 2, smoothed by the hours beside it


def test_planted_rush_hour_of_working_days_is_none_of_sunday_and_of_free_days():
    rides = rides_of()
    (*_, free), cell = read_clocks(rides.pickup_at)
    minutes = np.where((hour_of(rides) == 17) & (cell < 24), 20.0, 10.0)
    assert free.any()
    tables = tables_of(rides, minutes)
    weekday, saturday, sunday = tables.city_hour[:, 0].reshape(3, 24)
    assert weekday[17] > 1.4 * weekday[4]
    assert saturday[17] == pytest.approx(saturday[4], abs=0.05)
    assert sunday[17] == pytest.approx(sunday[4], abs=0.05)


def test_planted_line_of_distance_and_minutes_stands_in_the_line_of_its_pair():
    rides = rides_of()
    minutes = 6.0 + 2.0 * rides.trip_distance
    tables = tables_of(rides, minutes)
    asked = replace(rides.take(np.arange(50)), trip_distance=np.linspace(1.2, 4.8, 50, dtype="f4"))
    rows = transform(asked, tables, with_distance=True)
    line = rows[:, DISTANCE_FEATURES.index("minutes_by_line")]
    np.testing.assert_allclose(line, 6.0 + 2.0 * asked.trip_distance, rtol=0.06)


def test_planted_lines_of_two_pairs_are_not_one():
    rides = rides_of()
    slow = rides.DOLocationID == WORK
    minutes = np.where(slow, 2.0 + 6.0 * rides.trip_distance, 8.0 + 1.0 * rides.trip_distance)
    tables = tables_of(rides, minutes)
    slopes = [of_pair(tables, "line_slope", HOME, to) for to in (WORK, SHOP)]
    starts = [of_pair(tables, "line_start", HOME, to) for to in (WORK, SHOP)]
    assert slopes[0] > slopes[1]
    assert starts[0] < starts[1]
    assert (slopes[1], starts[1]) != (1.0, 0.0)


def test_way_back_tells_of_a_pair_that_was_hardly_seen():
    rides = rides_of()
    there = rides.PULocationID == HOME
    few = there & (rides.DOLocationID == WORK) & (np.arange(len(rides)) % 400 != 0)
    known = rides.take(~few)
    minutes = np.where((known.PULocationID == WORK) | (known.DOLocationID == WORK), 30.0, 8.0)
    unknown = known.take(minutes == 8.0)
    with_back = of_pair(tables_of(known, minutes), "minutes_pair", HOME, WORK)
    without = of_pair(tables_of(unknown, minutes[minutes == 8.0]), "minutes_pair", HOME, WORK)
    assert with_back > 2 * without


def test_counts_of_tables_that_left_a_fold_out_are_scaled_to_the_whole():
    rides = rides_of()
    window = Window.of(rides, np.full(len(rides), 10.0, "float32"))
    sums = window_sums(window, np.inf)
    trips = sums.pair_trips()[HOME, WORK]
    for tables in fold_tables(sums).tables.values():
        pair = tables.pair[HOME, WORK]
        assert pair[COUNTS[0]] == pytest.approx(trips, rel=0.08)  # of four fifths of the days
        assert pair[COUNTS[1]] >= pair[COUNTS[0]]


def test_planted_kind_of_day_is_in_the_answer_and_does_not_bend_the_others():
    rides = rides_of()
    day = rides.pickup_at.astype("datetime64[D]")
    quick = day == np.datetime64("2021-11-25")
    window = Window.of(rides, np.where(quick, 7.0, 10.0).astype("float32"))
    model = QUICK.fit(window, rehearsal=False)
    named, usual = rides.take(quick), rides.take(day == np.datetime64("2021-11-18"))
    assert model.level.kinds["Thanksgiving"] < 0.95
    assert model.predict_minutes(named).mean() < 0.9 * model.predict_minutes(usual).mean()
    assert model.predict_minutes(usual).mean() == pytest.approx(10, abs=0.6)


class TenMinutes:
    """Answers ten minutes to every ride."""

    def predict_minutes(self, rides: Rides) -> np.ndarray:
        return np.full(len(rides), 10.0, "float32")

    def uses_distance(self, rides: Rides) -> np.ndarray:
        return ~np.isnan(rides.trip_distance)


class Asked:
    """A kind of model that remembers how it was fitted."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool, int | None]] = []

    def fit(self, window: Window, seed: int, rehearsal: bool, left_out: int | None) -> TenMinutes:
        self.calls.append((seed, rehearsal, left_out))
        return TenMinutes()


def test_rehearsals_have_the_seed_and_leave_out_each_block_and_trips_count_as_of_the_whole(
    monkeypatch,
):
    asked, seen = Asked(), []
    rides = rides_of()
    window = Window.of(rides, np.full(len(rides), 12.0, "float32"))
    monkeypatch.setattr(calibration, "find_kind", lambda kind: asked)
    groups = calibration.interval_groups
    monkeypatch.setattr(
        calibration,
        "interval_groups",
        lambda rides, support: seen.append(support) or groups(rides, support),
    )
    calibration.calibrate_intervals("XGB", window, seed=7)
    assert asked.calls == [(7, True, 0), (7, True, 1), (7, True, 2)]
    trips = window_sums(window).pair_trips()[rides.PULocationID, rides.DOLocationID]
    # Two thirds of the trips were seen, and count for all: within the chance of a third.
    np.testing.assert_allclose(seen[0], trips, rtol=0.06)


def test_planted_spread_of_an_hour_is_in_the_width_of_its_intervals(monkeypatch):
    monkeypatch.setattr(calibration, "find_kind", lambda kind: Asked())
    rides = rides_of(20_000)
    wild = hour_of(rides) == 17
    spread = np.random.default_rng(3).uniform(-1, 1, len(rides)) * np.where(wild, 4.0, 2.0)
    window = Window.of(rides, (10 + spread).astype("float32"))
    for intervals in calibration.calibrate_intervals("XGB", window, seed=7):
        of_cell = intervals.scales[0]
        assert of_cell[17] == of_cell.max() > 1.7 * np.delete(of_cell[:24], 17).max()
        assert np.delete(of_cell[:24], 17).min() > 0.7


def test_promised_quantiles_are_those_of_the_errors():
    rng = np.random.default_rng(0)
    predicted = np.full(30_000, 10.0)
    actual = predicted * rng.uniform(0.5, 1.5, 30_000)
    group = np.full(30_000, 5)
    intervals = calibration.fit_intervals(predicted, actual, group)
    low, middle, high = intervals.quantiles(predicted[:1], group[:1])[0]
    np.testing.assert_allclose([low, middle, high], [6, 10, 14], atol=0.3)
