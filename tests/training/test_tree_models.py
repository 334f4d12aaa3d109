from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from taxi_duration.data.window import Window
from taxi_duration.domain.limits import TRIP_MINUTES
from taxi_duration.domain.pair_miles import pair_miles
from taxi_duration.domain.rides import Rides
from taxi_duration.model.tree_model import TreeModel
from taxi_duration.training.fit import fit_point
from taxi_duration.training.kinds import KINDS


def test_answers_keep_to_the_course_rule(fitted, sample_months):
    minutes = fitted("XGB").point.predict_minutes(Rides.from_frame(sample_months[1]))
    assert minutes.dtype == np.float32
    assert minutes.min() >= TRIP_MINUTES[0]
    assert minutes.max() <= TRIP_MINUTES[1]


def test_a_masked_distance_is_answered_by_the_trees_without_distance(fitted, sample_months):
    rides, point = Rides.from_frame(sample_months[1]), fitted("XGB").point
    masked = rides.without_distance()
    assert not point.uses_distance(masked).any()
    other = replace(point, with_distance=point.without_distance)  # those with distance play no part
    np.testing.assert_array_equal(point.predict_minutes(masked), other.predict_minutes(masked))


def test_an_impossible_distance_is_answered_as_if_none_was_given(fitted, sample_months):
    rides, point = Rides.from_frame(sample_months[1]).take(np.arange(50)), fitted("XGB").point
    for miles in (0.0, -3.0, 5000.0):
        odd = replace(rides, trip_distance=np.full(50, miles, dtype="float32"))
        np.testing.assert_array_equal(
            point.predict_minutes(odd), point.predict_minutes(rides.without_distance())
        )


MOST_FALL = {"XGB": 1.0, "RF": 1e-3}  # minutes: of bounded trees, and of float32 sums
MILES = (0.1, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 25, 40)


def at_distances(rides: Rides) -> Rides:
    """Every ride at each of MILES."""
    many = rides.take(np.repeat(np.arange(len(rides)), len(MILES)))
    return replace(many, trip_distance=np.tile(np.array(MILES, "float32"), len(rides)))


@pytest.mark.parametrize("kind", ["XGB", "RF"])
def test_a_longer_trip_of_the_same_pair_and_time_does_not_get_shorter(fitted, sample_months, kind):
    rides, point = at_distances(Rides.from_frame(sample_months[1])), fitted(kind).point
    used = point.uses_distance(rides).reshape(-1, len(MILES))
    minutes = point.predict_minutes(rides).reshape(used.shape)
    before = np.maximum.accumulate(np.where(used, minutes, 0.0), axis=1)
    assert (before - minutes)[used].max() < MOST_FALL[kind]
    shortest, longest = (np.where(used, minutes, end) for end in (np.inf, -np.inf))
    assert (longest.max(axis=1) > shortest.min(axis=1) + 1).mean() > 0.9


@pytest.mark.parametrize("kind", ["XGB", "RF"])
def test_rides_that_were_quicker_the_longer_they_were_do_not_teach_a_fall(trips, kind):
    rides = Rides.from_frame(trips)
    known = rides.take(TreeModel.has_usable_distance(rides))
    quicker = np.clip(40 - 3 * known.trip_distance, *TRIP_MINUTES).astype("float32")
    few = {"XGB": {"rounds": 8, "eta": 0.3}, "RF": {"n_estimators": 4}}[kind]
    taught = replace(KINDS[kind], parameters={**KINDS[kind].parameters, **few})
    point = taught.fit(Window.of(known, quicker))
    asked = at_distances(known.take(np.arange(50)))
    used = point.uses_distance(asked).reshape(-1, len(MILES))
    minutes = point.predict_minutes(asked).reshape(used.shape)
    before = np.maximum.accumulate(np.where(used, minutes, 0.0), axis=1)
    assert (before - minutes)[used].max() < MOST_FALL[kind]


def test_a_distance_below_the_nearest_points_or_far_beyond_any_detour_is_not_used(fitted):
    point, (shortest, longest) = fitted("XGB").point, pair_miles()
    pickup, dropoff = 40, 124
    low, high = shortest[pickup, dropoff], longest[pickup, dropoff]
    miles = np.array([0.1, low - 0.01, low, high, high + 0.01, 99.0], "float32")
    rides = Rides.from_dicts([{"PULocationID": pickup, "DOLocationID": dropoff}] * len(miles))
    asked = replace(rides, trip_distance=miles)
    used = [False, False, True, True, False, False]
    assert point.uses_distance(asked).tolist() == used
    refused, none = ~np.array(used), point.predict_minutes(rides)
    np.testing.assert_array_equal(point.predict_minutes(asked)[refused], none[refused])
    assert (point.predict_minutes(asked)[used] != none[used]).all()


def test_the_distance_makes_answers_better(fitted, sample_months):
    rides, actual = Rides.from_frame(sample_months[1]), sample_months[1]["duration"].to_numpy()
    point = fitted("XGB").point
    with_it, without = (
        np.sqrt(np.mean((point.predict_minutes(r) - actual) ** 2))
        for r in (rides, rides.without_distance())
    )
    assert with_it < without < actual.std()


def test_what_comes_after_the_ride_does_not_enter_the_fit(sample_months, quick_trees):
    trips = sample_months[0].head(800)
    shuffled = trips.assign(dropoff_at=trips["dropoff_at"].to_numpy()[::-1], fare_amount=1.0)
    models = [fit_point("XGB", Window.from_frame(t), rehearsal=True) for t in (trips, shuffled)]
    asked = Rides.from_frame(sample_months[1]).take(np.arange(200))
    np.testing.assert_array_equal(*(model.predict_minutes(asked) for model in models))


def test_the_same_seed_gives_the_same_answers_and_another_seed_others(sample_months, quick_trees):
    trips = sample_months[0].head(800)
    rides, window = Rides.from_frame(trips), Window.from_frame(trips)
    first, again, other = (
        fit_point("XGB", window, seed=seed, rehearsal=True).predict_minutes(rides)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_rehearsal_is_quicker_and_learns_as_much():
    stored, quicker = KINDS["XGB"].parameters, KINDS["XGB"].quicker
    assert quicker["rounds"] < stored["rounds"] / 2
    step = [p["rounds"] * p["eta"] for p in (stored, quicker)]
    assert step[1] == pytest.approx(step[0], rel=0.02)
