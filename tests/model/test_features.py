from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taxi_duration.data.trips import read_dataframe
from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.model.atlas import atlas_for
from taxi_duration.model.features import (
    DISTANCE_FEATURES,
    DIVISORS,
    FEATURES,
    FORMULAS,
    HOURLY,
    LOOK_UPS,
    PAIR_TABLE,
    RISING,
    RideFeatures,
    _compile,
    known_distance,
    known_miles,
    transform,
)
from taxi_duration.training import window_sums as sums_module
from taxi_duration.training.feature_tables import fold_tables, window_tables
from taxi_duration.training.window_sums import window_sums

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


def out_of_fold_features(rides, minutes):
    window = Window.of(rides, minutes)
    batches = fold_tables(window_sums(window, math.inf)).batches(window)
    return np.concatenate([batch.rows for batch in batches])


@pytest.fixture(scope="module")
def tables(month):
    return window_tables(Window.of(*month), math.inf)


@pytest.fixture(scope="module")
def tables_with_atlas(month):
    atlas = atlas_for(np.datetime64("2021-01-01"))
    return window_tables(Window.of(*month), math.inf, atlas)


def one_ride(pickup, dropoff, pickup_at, miles) -> Rides:
    return Rides.from_dicts(
        [{"PULocationID": pickup, "DOLocationID": dropoff, "pickup_datetime": pickup_at,
          "trip_distance": miles}]
    )  # fmt: skip


def row_of(features: RideFeatures, pickup, dropoff, pickup_at, miles) -> np.ndarray:
    """Features of one ride with a distance that may be no distance, as columns hold it."""
    known = known_miles(miles)
    given = None if miles is None else np.nan if known is None else known
    return features.row(pickup, dropoff, pickup_at, given)


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
    row = row_of(RideFeatures(tables), pickup, dropoff, pickup_at, miles)
    expected = transform(ride, tables, with_distance=miles is not None)[0]
    assert row.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(row, expected)


@pytest.mark.slow
@pytest.mark.parametrize("with_atlas", [False, True])
def test_every_ride_of_a_real_month_has_the_features_of_the_frame_to_the_bit(
    tables, tables_with_atlas, real_months, with_atlas
):
    tables = tables_with_atlas if with_atlas else tables
    path = real_months / "trip-data" / "green_tripdata_2021-02.parquet"
    rides = Rides.from_frame(read_dataframe(path))
    features = RideFeatures(tables)
    columns = (rides.PULocationID, rides.DOLocationID, rides.pickup_at, rides.trip_distance)
    asked = list(zip(*(column.tolist() for column in columns), strict=True))
    rows = np.array([row_of(features, *ride) for ride in asked])
    np.testing.assert_array_equal(rows, transform(rides, tables, with_distance=True))
    rows = np.array([row_of(features, *ride[:3], None) for ride in asked])
    np.testing.assert_array_equal(rows, transform(rides, tables, with_distance=False))


LOOKED_UP = {name: 1.0 for names in LOOK_UPS.values() for name in names}


def by_formula(**looked_up: float) -> dict[str, float]:
    """The features by name, from looked-up values that are 1 where not given."""
    values = LOOKED_UP | looked_up
    groups = {group: [values[name] for name in names] for group, names in LOOK_UPS.items()}
    for group in HOURLY:  # the same in both cells
        groups[group] = (groups[group], groups[group], 0.25)
    return dict(zip(DISTANCE_FEATURES, _compile(DISTANCE_FEATURES)(**groups), strict=True))


HOURS = {"pickup_hour": 1.5, "dropoff_hour": 1.25, "city_hour": 1.2}
PACES = {"pickup_hour_pace": 1.5, "dropoff_hour_pace": 1.25, "city_hour_pace": 1.2}


@pytest.mark.parametrize(
    ("feature", "looked_up", "value"),
    [
        ("expected_minutes", {"minutes_pair": 16.0, **HOURS}, 25.0),
        ("distance_to_straight", {"distance_miles": 6.0, "straight_km": 8.0}, 0.75),
        ("distance_to_usual", {"distance_miles": 6.0, "miles_pair": 4.0}, 1.5),
        ("distance_less_usual", {"distance_miles": 6.0, "miles_pair": 4.5}, 1.5),
        ("minutes_by_distance", {"minutes_of_miles": 20.0, "pace_pair": 0.75}, 15.0),
        ("minutes_by_distance_hour", {"minutes_of_miles": 16.0, **PACES}, 25.0),
        ("minutes_scaled", {"distance_miles": 6.0, "minutes_pair": 10.0, "miles_pair": 4.0}, 15.0),
        ("minutes_by_line", {"line_start": 3.0, "line_slope": 0.5, "pace_pair": 20.0}, 13.0),
        ("atlas_expected", {"atlas_minutes": 8.0, "atlas_pickup_hour": 1.5,
                            "atlas_dropoff_hour": 2.0}, 24.0),
        ("atlas_by_line", {"atlas_line_start": 1.0, "atlas_line_slope": 0.5,
                           "atlas_minutes_of_miles": 10.0, "atlas_pace": 0.8,
                           "atlas_pickup_pace": 1.5, "atlas_dropoff_pace": 2.0}, 13.0),
    ],
)  # fmt: skip
def test_a_formula_says_what_its_name_says(feature, looked_up, value):
    assert by_formula(**looked_up)[feature] == pytest.approx(value, rel=1e-12)


def test_every_formula_is_a_feature_and_only_adds_subtracts_multiplies_and_divides():
    assert set(FORMULAS) < set(DISTANCE_FEATURES)
    for formula in FORMULAS.values():
        assert re.fullmatch(r"[\w ()]+([-+*/] [\w ()]+)*", formula)
        assert "**" not in formula and "//" not in formula


@pytest.mark.parametrize("name", sorted(LOOKED_UP))
def test_no_formula_divides_by_a_value_that_may_be_zero(name):
    if name in DIVISORS:
        with pytest.raises(ZeroDivisionError):
            by_formula(**{name: 0.0})
    else:
        by_formula(**{name: 0.0})


@pytest.mark.parametrize(
    ("table", "name", "at"),
    [("pair", "straight_km", (7, 8, 0)), ("pair", "miles_pair", (7, 8, 10)),
     ("city_hour", "city_hour", (5, 0)), ("city_hour", "city_hour_pace", (5, 1))],
)  # fmt: skip
def test_tables_with_a_zero_to_divide_by_are_refused(tables, table, name, at):
    values = getattr(tables, table).copy()
    values[at] = 0
    with pytest.raises(ValueError, match=f"{name} is 0"):
        replace(tables, **{table: values})


def test_a_feature_that_nothing_makes_is_refused_at_once():
    with pytest.raises(NameError, match="minutes_of_luck"):
        _compile([*FEATURES, "minutes_of_luck"])


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
def test_training_features_of_a_trip_do_not_know_its_own_duration(month, at, monkeypatch):
    """But for the curve of minutes by miles, which all folds of a window share."""
    curve = window_sums(Window.of(*month)).curve
    monkeypatch.setattr(sums_module, "_minutes_of_miles", lambda _: curve)
    rides, duration = month
    changed = duration.copy()
    changed[at] = 60.0 if duration[at] < 30 else 1.0
    before, after = (out_of_fold_features(rides, minutes) for minutes in (duration, changed))
    np.testing.assert_array_equal(before[at], after[at])
    assert not np.array_equal(before, after)  # but others learn from it


def test_training_features_of_a_day_do_not_know_that_day(month, monkeypatch):
    rides, duration = month
    curve = window_sums(Window.of(*month)).curve
    monkeypatch.setattr(sums_module, "_minutes_of_miles", lambda _: curve)
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
    assert known_miles(miles) is None


def test_a_distance_that_can_be_true_is_kept():
    kept = known_distance(np.array([0.01, 4.5, 100.0], dtype="float32"))
    np.testing.assert_allclose(kept, [0.01, 4.5, 100.0], rtol=1e-6)
    assert [known_miles(miles) for miles in (0.01, 4.5, 100.0)] == kept.tolist()


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
    looked_up = tables.pair[code // 266, code % 266, PAIR_TABLE.index("minutes_pair")]
    assert looked_up == pytest.approx(mean, rel=0.25)


def test_rides_without_any_distance_can_be_learned_from(month):
    rides, duration = month[0].take(np.arange(300)).without_distance(), month[1][:300]
    rows = transform(rides, window_tables(Window.of(rides, duration)), with_distance=False)
    assert np.isfinite(rows[:, FEATURES.index("expected_minutes")]).all()


def test_a_later_day_counts_for_more_in_the_tables(month):
    rides, duration = month
    last = rides.pickup_at.astype("datetime64[D]") >= np.datetime64("2021-01-25")
    slower = np.where(last, np.minimum(duration * 1.5, 60), duration)
    window = Window.of(rides, slower)
    alike, recent = window_tables(window, math.inf), window_tables(window, 7.0)
    column = PAIR_TABLE.index("minutes_pair")
    assert np.median(recent.pair[1:264, 1:264, column]) > np.median(
        alike.pair[1:264, 1:264, column]
    )


@settings(max_examples=100, deadline=None)
@given(zones, zones, times, st.floats(0.02, 90), st.floats(0.01, 20), st.booleans())
def test_features_that_a_distance_enters_rise_with_it_and_others_do_not_know_it(
    tables, tables_with_atlas, pickup, dropoff, pickup_at, miles, more, with_atlas
):
    tables = tables_with_atlas if with_atlas else tables
    near, far = (
        transform(one_ride(pickup, dropoff, pickup_at, asked), tables, with_distance=True)[0]
        for asked in (miles, min(miles + more, 100.0))
    )
    rises = np.array([name in RISING for name in DISTANCE_FEATURES])
    np.testing.assert_array_equal(near[~rises], far[~rises])
    both = rises & ~np.isnan(near)
    assert (far[both] >= near[both]).all()


@pytest.mark.parametrize("start", ["2021-01-08T15:30", "2021-01-08T22:30", "2021-01-10T22:30"])
def test_what_hours_say_moves_from_minute_to_minute_without_a_step(tables_with_atlas, start):
    """Across full hours, into a Saturday, and out of a Sunday."""
    begin = datetime.fromisoformat(start)
    asked = [one_ride(74, 75, begin + timedelta(minutes=m), 2.0) for m in range(181)]
    rows = np.vstack([transform(ride, tables_with_atlas, with_distance=True) for ride in asked])
    for name in (
        "city_hour",
        "pickup_hour",
        "dropoff_hour_pace",
        "expected_minutes",
        "atlas_expected",
    ):
        values = rows[:, DISTANCE_FEATURES.index(name)]
        steps, whole = np.abs(np.diff(values)), np.ptp(values)
        assert 0 < steps.max() < whole / 30, name  # from one hour to the next in 60 steps


def test_in_the_middle_of_an_hour_a_ride_has_the_hours_own_values(tables):
    row = transform(one_ride(74, 75, datetime(2021, 1, 6, 8, 30), 2.0), tables, True)[0]
    expected = tables.pickup_hour[74, 8]
    assert row[DISTANCE_FEATURES.index("pickup_hour")] == expected[0]
    assert row[DISTANCE_FEATURES.index("pickup_hour_pace")] == expected[1]
