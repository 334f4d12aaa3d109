from __future__ import annotations

from dataclasses import fields, replace
from datetime import date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taxi_duration.domain.pickup_calendar import us_holidays
from taxi_duration.domain.rides import Rides
from taxi_duration.model.atlas import atlas_for
from taxi_duration.model.features import (
    DISTANCE_FEATURES,
    FEATURES,
    RideFeatures,
    known_distance,
    transform,
)
from taxi_duration.training.feature_tables import fit_tables, out_of_fold_features

ALLOWED_COLUMNS = {"PULocationID", "DOLocationID", "pickup_at", "trip_distance"}
NOT_KNOWN_BEFORE = ("fare", "tip", "toll", "total", "payment", "amount", "dropoff_at", "duration")

zones = st.integers(1, 265)
times = st.datetimes(datetime(2019, 1, 1), datetime(2024, 12, 31)).map(
    lambda t: t.replace(microsecond=0)
)
distances = st.none() | st.floats(0, 150, width=32) | st.just(float("nan"))


@pytest.fixture(scope="module")
def month(sample_months) -> tuple[Rides, np.ndarray]:
    """Rides of the first sample month and their minutes."""
    return Rides.from_frame(sample_months[0]), sample_months[0]["duration"].to_numpy()


@pytest.fixture(scope="module")
def tables(month):
    return fit_tables(*month)


@pytest.fixture(scope="module")
def tables_with_atlas(month):
    return fit_tables(*month, atlas=atlas_for(np.datetime64("2021-01-01")))


def one_ride(pickup, dropoff, pickup_at, miles) -> Rides:
    return Rides.from_dicts(
        [{"PULocationID": pickup, "DOLocationID": dropoff, "pickup_datetime": pickup_at,
          "trip_distance": miles}]
    )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(zones, zones, times, distances, st.booleans())
@example(264, 265, datetime(2021, 7, 4, 12), 3.0, True)
@example(265, 264, datetime(2021, 3, 14, 2, 30), None, True)  # an hour that the clocks skip
@example(74, 74, datetime(2021, 11, 7, 1, 59, 59), 0.0, False)  # an hour that comes twice
@example(1, 138, datetime(2020, 12, 31, 23, 59, 59), 100.0, True)
def test_one_ride_has_the_features_of_the_frame_to_the_bit(
    tables, tables_with_atlas, pickup, dropoff, pickup_at, miles, with_atlas
):
    tables = tables_with_atlas if with_atlas else tables
    ride = one_ride(pickup, dropoff, pickup_at, miles)
    row = RideFeatures(tables).row(pickup, dropoff, pickup_at, miles)
    expected = transform(ride, tables, with_distance=miles is not None)[0]
    assert row.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(row, expected)


def test_first_features_do_not_depend_on_the_distance(month, tables):
    rides = month[0].take(np.arange(200))
    with_distance = transform(rides, tables, with_distance=True)[:, : len(FEATURES)]
    blind = transform(rides.without_distance(), tables, with_distance=False)
    np.testing.assert_array_equal(with_distance, blind)


def test_rides_hold_nothing_but_what_is_known_before_the_ride():
    assert {field.name for field in fields(Rides)} == ALLOWED_COLUMNS


def test_no_feature_is_named_after_what_is_known_only_afterwards():
    leaks = [name for name in DISTANCE_FEATURES for bad in NOT_KNOWN_BEFORE if bad in name]
    assert leaks == []


def test_columns_known_only_afterwards_change_no_feature(sample_months):
    trips = sample_months[0].head(500)
    rng = np.random.default_rng(0)
    other = trips.assign(
        dropoff_at=rng.permutation(trips["dropoff_at"].to_numpy()),
        fare_amount=rng.normal(size=len(trips)),
        tip_amount=rng.normal(size=len(trips)),
    )
    rows, same = (
        out_of_fold_features(Rides.from_frame(t), t["duration"].to_numpy()) for t in (trips, other)
    )
    np.testing.assert_array_equal(rows, same)


@pytest.mark.parametrize("at", [0, 1234, 4321])
def test_training_features_of_a_trip_do_not_know_its_own_duration(month, at):
    rides, duration = month
    changed = duration.copy()
    changed[at] = 60.0 if duration[at] < 30 else 1.0
    before, after = (out_of_fold_features(rides, minutes) for minutes in (duration, changed))
    np.testing.assert_array_equal(before[at], after[at])
    assert not np.array_equal(before, after)  # but others learn from it


def test_training_features_of_a_day_do_not_know_that_day(month):
    rides, duration = month
    day = rides.pickup_at.astype("datetime64[D]") == np.datetime64("2021-01-13")
    changed = np.where(day, 60.0, duration)
    before, after = (out_of_fold_features(rides, minutes) for minutes in (duration, changed))
    np.testing.assert_array_equal(before[day], after[day])


def test_features_of_a_ride_do_not_depend_on_the_rides_asked_with_it(month, tables):
    rides = month[0].take(np.arange(100))
    shifted = replace(rides, pickup_at=rides.pickup_at + np.timedelta64(40, "D"))
    both = Rides(
        *(np.concatenate([getattr(rides, f.name), getattr(shifted, f.name)]) for f in fields(Rides))
    )
    together = transform(both, tables, with_distance=True)[:100]
    np.testing.assert_array_equal(together, transform(rides, tables, with_distance=True))


def test_a_week_later_the_same_ride_has_the_same_features(tables):
    asked = datetime(2021, 3, 3, 8, 15)
    row = RideFeatures(tables).row(74, 75, asked, 1.5)
    later = RideFeatures(tables).row(74, 75, asked + timedelta(7), 1.5)
    np.testing.assert_array_equal(row, later)


def test_seconds_are_not_looked_at(tables):
    rows = [RideFeatures(tables).row(7, 8, datetime(2021, 3, 3, 8, 15, s), 2.0) for s in (0, 59)]
    np.testing.assert_array_equal(*rows)


@pytest.mark.parametrize("miles", [0.0, -1.0, 100.5, 244_152.0, float("nan"), float("inf")])
def test_a_distance_that_cannot_be_true_is_unknown(miles):
    assert np.isnan(known_distance(np.array([miles], dtype="float32")))[0]


def test_a_distance_that_can_be_true_is_kept():
    kept = known_distance(np.array([0.01, 4.5, 100.0], dtype="float32"))
    np.testing.assert_allclose(kept, [0.01, 4.5, 100.0], rtol=1e-6)


def test_all_features_but_those_of_places_and_distance_are_known_for_unseen_pairs(tables):
    row = transform(one_ride(2, 99, datetime(2021, 2, 1, 8), None), tables, with_distance=False)[0]
    own = [not name.startswith("atlas_") for name in FEATURES]
    assert not np.isnan(row[own]).any()
    assert row[FEATURES.index("trips_pair")] == 0


def test_usual_minutes_of_a_distance_never_fall(tables):
    minutes = tables.minutes_of_miles.at(np.linspace(0.1, 100, 1000))
    assert (np.diff(minutes) >= 0).all()


def test_pairs_seen_often_are_looked_up_near_their_own_mean(month, tables):
    rides, duration = month
    codes = rides.PULocationID.astype(int) * 266 + rides.DOLocationID
    code = np.bincount(codes).argmax()
    mean = duration[codes == code].mean()
    looked_up = tables.pair[code // 266, code % 266, FEATURES.index("minutes_pair") - 7]
    assert looked_up == pytest.approx(mean, rel=0.25)


def test_rides_without_any_distance_can_be_learned_from(month):
    rides, duration = month[0].take(np.arange(300)).without_distance(), month[1][:300]
    rows = transform(rides, fit_tables(rides, duration), with_distance=False)
    assert np.isfinite(rows[:, FEATURES.index("expected_minutes")]).all()


@pytest.mark.parametrize(
    "day", [date(2021, 1, 18), date(2021, 5, 31), date(2021, 11, 25), date(2023, 7, 4)]
)
def test_federal_holidays_are_known(day):
    assert day in us_holidays(day.year)


def test_juneteenth_is_a_holiday_since_2021():
    assert date(2021, 6, 19) in us_holidays(2021)
    assert date(2020, 6, 19) not in us_holidays(2020)


def test_a_heavier_day_counts_for_more_in_the_tables(month):
    rides, duration = month
    last = rides.pickup_at.astype("datetime64[D]") >= np.datetime64("2021-01-25")
    slower = np.where(last, np.minimum(duration * 1.5, 60), duration)
    alike = fit_tables(rides, slower)
    recent = fit_tables(rides, slower, np.where(last, 3.0, 1.0))
    column = FEATURES.index("minutes_pair") - 7
    assert np.median(recent.pair[1:264, 1:264, column]) > np.median(
        alike.pair[1:264, 1:264, column]
    )
