"""Effects are planted in made-up trips, and must be found again in the tables."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.model.features import DISTANCE_FEATURES, PAIR_TABLE, FeatureTables
from taxi_duration.training.feature_tables import fold_tables, window_tables
from taxi_duration.training.window_sums import window_sums

ZONES = np.array([4, 41, 74, 130, 166, 226])  # far enough apart to say little of each other
HERE, THERE = 4, 130  # Alphabet City and Jamaica
WEEKDAYS = np.arange("2021-02-01", "2021-02-13", dtype="datetime64[D]")
WEEKDAYS = WEEKDAYS[np.is_busday(WEEKDAYS)]


def made_up(n: int, zones: np.ndarray = ZONES) -> Rides:
    """Rides between any two of some zones at any hour of weekdays, 1 to 9 miles."""
    rng = np.random.default_rng(0)
    hours = rng.permutation(np.resize(np.arange(24), n))  # each as often as the others
    return Rides(
        rng.choice(zones, n).astype("int16"),
        rng.choice(zones, n).astype("int16"),
        rng.choice(WEEKDAYS, n).astype("datetime64[s]") + hours.astype("timedelta64[h]"),
        rng.uniform(1, 9, n).astype("float32"),
    )


def tables_of(rides: Rides, minutes: np.ndarray) -> FeatureTables:
    """Tables in which all trips count alike."""
    return window_tables(Window.of(rides, minutes), math.inf)


def out_of_fold_features(rides: Rides, minutes: np.ndarray) -> np.ndarray:
    window = Window.of(rides, minutes)
    batches = fold_tables(window_sums(window)).batches(window)
    return np.concatenate([batch.rows for batch in batches])


def hour_of(rides: Rides) -> np.ndarray:
    return rides.pickup_at.astype("datetime64[h]").astype("int64") % 24


def of_pair(tables: FeatureTables, name: str, pickup: int, dropoff: int) -> float:
    return float(tables.pair[pickup, dropoff, PAIR_TABLE.index(name)])


def test_a_slow_hour_of_the_city_is_found_and_shared_with_the_hours_beside_it():
    rides = made_up(24_000)
    minutes = np.where(hour_of(rides) == 8, 15.0, 10.0)
    city = tables_of(rides, minutes).city_hour[:24]  # cells of weekdays, minutes and pace
    usual = minutes.mean()
    # 0.6 of its own trips and 0.2 of the hours' on each side
    assert city[8] == pytest.approx((0.6 * 15 + 0.4 * 10) / usual, abs=0.02)
    assert city[[7, 9]] == pytest.approx((0.8 * 10 + 0.2 * 15) / usual, abs=0.02)
    assert np.delete(city, [7, 8, 9], axis=0) == pytest.approx(10 / usual, abs=0.02)


@pytest.mark.parametrize("slow_end", ["pickup", "dropoff"])
def test_a_slow_hour_of_one_zone_is_found_at_that_end_of_the_ride_only(slow_end):
    rides = made_up(24_000)
    at = rides.PULocationID if slow_end == "pickup" else rides.DOLocationID
    minutes = np.where((at == HERE) & (hour_of(rides) == 17), 20.0, 10.0)
    tables = tables_of(rides, minutes)
    slow, other = (
        (tables.pickup_hour, tables.dropoff_hour)
        if slow_end == "pickup"
        else (tables.dropoff_hour, tables.pickup_hour)
    )
    excess = slow[HERE, 17] / slow[THERE, 17]
    assert (excess > 1.3).all()  # of minutes and of pace; 1.6 less what the priors take
    assert other[HERE, 17] / other[THERE, 17] == pytest.approx([1, 1], abs=0.05)
    assert slow[HERE, 12] / slow[THERE, 12] == pytest.approx([1, 1], abs=0.05)


def test_the_line_of_a_pair_is_found():
    rides = made_up(24_000)
    miles = rides.trip_distance.astype("float64")
    own = (rides.PULocationID == HERE) & (rides.DOLocationID == THERE)
    # 3 minutes a mile anywhere; of this pair, 4 minutes and then 1.5 a mile
    tables = tables_of(rides, np.where(own, 4 + 1.5 * miles, 3 * miles))
    pace = (4 + 1.5 * 5) / (3 * 5)  # of trips of 5 miles on average
    assert of_pair(tables, "pace_pair", HERE, THERE) == pytest.approx(pace, abs=0.03)
    slope = of_pair(tables, "line_slope", HERE, THERE)
    assert slope == pytest.approx(1.5 / (3 * pace), abs=0.05)
    assert of_pair(tables, "line_start", HERE, THERE) == pytest.approx(4, abs=0.5)
    assert of_pair(tables, "line_slope", THERE, HERE) == pytest.approx(1, abs=0.03)
    assert of_pair(tables, "line_start", THERE, HERE) == pytest.approx(0, abs=0.3)


def test_a_pair_nobody_went_takes_the_word_of_the_way_back():
    usual = made_up(24_000, np.arange(1, 264))  # so that no distance is one pair's alone
    one_way = made_up(400, np.array([HERE]))
    one_way.DOLocationID[:] = THERE
    both = Rides(
        *(np.concatenate([getattr(some, f.name) for some in (usual, one_way)])
          for f in fields(Rides))
    )  # fmt: skip
    tables = tables_of(both, np.repeat([10.0, 40.0], [24_000, 400]))
    assert of_pair(tables, "minutes_near", THERE, HERE) < 15
    assert of_pair(tables, "minutes_pair", THERE, HERE) > 35


def test_a_way_back_that_is_quicker_stays_quicker():
    rides = made_up(24_000)
    there = (rides.PULocationID == HERE) & (rides.DOLocationID == THERE)
    tables = tables_of(rides, np.where(there, 40.0, 10.0))
    assert of_pair(tables, "minutes_pair", HERE, THERE) == pytest.approx(40, abs=1)
    assert of_pair(tables, "minutes_pair", THERE, HERE) == pytest.approx(10, abs=1)


def test_a_pair_seen_often_is_told_from_the_pairs_beside_it():
    next_door = 79  # East Village, beside HERE
    rides = made_up(24_000, np.append(ZONES, next_door))
    there = rides.DOLocationID == THERE
    own, beside = (there & (rides.PULocationID == zone) for zone in (HERE, next_door))
    miles = np.where(own, 12, np.where(beside, 4, 6)).astype("float32")
    longer = Rides(rides.PULocationID, rides.DOLocationID, rides.pickup_at, miles)
    tables = tables_of(longer, np.where(own, 45.0, np.where(beside, 12.0, 20.0)))
    assert of_pair(tables, "minutes_pair", HERE, THERE) == pytest.approx(45, rel=0.05)
    assert of_pair(tables, "minutes_near", HERE, THERE) < 35
    assert of_pair(tables, "miles_pair", HERE, THERE) == pytest.approx(12, rel=0.05)
    assert of_pair(tables, "miles_near", HERE, THERE) < 10
    hurried = tables_of(rides, np.where(own, 45.0, np.where(beside, 12.0, 20.0)))
    paces = [of_pair(hurried, "pace_pair", zone, THERE) for zone in (HERE, next_door)]
    assert paces[0] / paces[1] == pytest.approx(45 / 12, rel=0.05)


def test_usual_miles_and_speed_of_a_pair_are_found():
    rides = made_up(24_000)
    own = (rides.PULocationID == HERE) & (rides.DOLocationID == THERE)
    miles = np.where(own, np.float32(12), np.float32(3))
    longer = Rides(rides.PULocationID, rides.DOLocationID, rides.pickup_at, miles)
    tables = tables_of(longer, np.where(own, 30.0, 10.0))
    assert of_pair(tables, "miles_pair", HERE, THERE) == pytest.approx(12, rel=0.03)
    assert of_pair(tables, "speed_pair", HERE, THERE) == pytest.approx(12 / 30, rel=0.05)
    assert of_pair(tables, "root_pair", HERE, THERE) == pytest.approx(1, abs=0.02)


def test_counts_that_leave_out_a_day_are_scaled_up_to_the_whole():
    days = np.arange("2021-02-01", "2021-02-11", dtype="datetime64[D]").astype("datetime64[s]")
    n = 6 * len(days)
    pair = np.full(n, HERE, dtype="int16"), np.full(n, THERE, dtype="int16")
    rides = Rides(*pair, np.repeat(days, 6), np.full(n, 5, dtype="float32"))
    rows = out_of_fold_features(rides, np.linspace(10, 20, n))
    for name in ("trips_pair", "trips_near"):  # no other pair is near
        assert rows[:, DISTANCE_FEATURES.index(name)].tolist() == [n] * n


def test_fewer_days_than_folds_are_split_trip_by_trip():
    rides = made_up(100)
    one_day = Rides(
        rides.PULocationID, rides.DOLocationID,
        np.full(100, "2021-02-01T08:00", dtype="datetime64[s]"), rides.trip_distance,
    )  # fmt: skip
    rows = out_of_fold_features(one_day, np.linspace(5, 30, 100))
    assert (rows[:, DISTANCE_FEATURES.index("trips_near")] > 0).any()
