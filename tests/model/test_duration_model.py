from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from taxi_duration.data.window import Window
from taxi_duration.domain.pair_miles import can_be, pair_miles
from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.evaluation.metrics import error_metrics
from taxi_duration.model.duration_model import count_pairs
from taxi_duration.training.baselines import fit_baselines
from taxi_duration.training.kinds import KINDS

TREE_KINDS = ("RF", "XGB")


@pytest.fixture(scope="module")
def asked(sample_months) -> Rides:
    """Rides of the month after training."""
    return Rides.from_frame(sample_months[1])


def same(one: Answers, other: Answers) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in Answers.__dataclass_fields__
    )


@pytest.mark.parametrize("kind", KINDS)
def test_answers_have_a_row_for_each_ride_and_their_types(fitted, asked, kind):
    answers = fitted(kind).answer(asked)
    types = {name: getattr(answers, name).dtype.name for name in Answers.__dataclass_fields__}
    assert {getattr(answers, name).shape for name in types} == {(len(asked),)}
    assert types == {
        "duration": "float32", "p10": "float32", "p50": "float32", "p90": "float32",
        "support": "int32", "used_distance": "bool",
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_no_rides_give_no_answers(fitted, asked, kind):
    assert len(fitted(kind).answer(asked.take(np.zeros(len(asked), dtype=bool)))) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_finite_and_its_quantiles_rise(fitted, asked, kind):
    for rides in (asked, asked.without_distance()):
        answers = fitted(kind).answer(rides)
        assert np.isfinite(answers.duration).all()
        assert (answers.p10 > 0).all()
        assert (answers.p10 <= answers.p50).all()
        assert (answers.p50 <= answers.p90).all()
        assert (answers.p90 <= 60).all()


@pytest.mark.parametrize("kind", TREE_KINDS)
def test_trees_answer_between_one_and_sixty_minutes(fitted, asked, kind):
    minutes = fitted(kind).answer(asked).duration
    assert minutes.min() >= 1
    assert minutes.max() <= 60


def test_support_is_the_number_of_training_trips_of_the_pair(fitted, sample_months):
    train = Rides.from_frame(sample_months[0])
    model = fitted("LR")
    first = (train.PULocationID == train.PULocationID[0]) & (
        train.DOLocationID == train.DOLocationID[0]
    )
    assert model.answer(train).support[0] == first.sum()
    assert model.pair_trips.sum() == len(train)


def test_pairs_are_counted_by_direction():
    rides = Rides(
        np.array([1, 1, 2], "int16"), np.array([2, 2, 1], "int16"),
        np.full(3, "2021-01-04", "datetime64[s]"), np.ones(3, "float32"),
    )  # fmt: skip
    counts = count_pairs(rides)
    assert counts.shape == (266, 266)
    assert (counts[1, 2], counts[2, 1], counts.sum()) == (2, 1, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_answer_says_whether_the_distance_was_used(fitted, asked, kind):
    assert not fitted(kind).answer(asked.without_distance()).used_distance.any()
    shortest, longest = (miles[asked.PULocationID, asked.DOLocationID] for miles in pair_miles())
    with_distance = asked.take(can_be(asked.trip_distance, shortest, longest))
    assert fitted(kind).answer(with_distance).used_distance.all()


@pytest.mark.parametrize("kind", TREE_KINDS)
def test_impossible_distance_is_answered_as_none(fitted, asked, kind):
    impossible = replace(asked, trip_distance=np.full(len(asked), 244_152, dtype="float32"))
    found, without = (
        fitted(kind).answer(rides) for rides in (impossible, asked.without_distance())
    )
    assert not found.used_distance.any()
    for name in ("duration", "p50", "support"):
        np.testing.assert_array_equal(getattr(found, name), getattr(without, name))
    # Who asks with a distance that cannot be is answered less surely than who asks without.
    assert (found.p90 - found.p10).mean() > (without.p90 - without.p10).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_answer_of_a_ride_does_not_hang_on_the_others(fitted, asked, kind):
    model = fitted(kind)
    rows = np.array([5, 0, 3, 5])
    together = model.answer(asked)
    apart = model.answer(asked.take(rows))
    for name in Answers.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(apart, name), getattr(together, name)[rows])


def test_order_of_fields_and_fields_we_ignore_change_nothing(fitted):
    ride = {"PULocationID": 74, "DOLocationID": 75, "trip_distance": 2.5,
            "pickup_datetime": datetime(2021, 2, 1, 8)}  # fmt: skip
    model = fitted("XGB")
    plain = model.answer(Rides.from_dicts([ride]))
    shuffled = model.answer(Rides.from_dicts([dict(reversed(ride.items()))]))
    extended = {**ride, "fare_amount": 99.0, "tip_amount": 5.0, "passenger_count": 6}
    assert same(plain, shuffled)
    assert same(plain, model.answer(Rides.from_dicts([extended])))


@pytest.mark.parametrize("column", ["fare_amount", "dropoff_at", "total_amount"])
def test_columns_that_are_not_known_before_the_ride_change_nothing(fitted, sample_months, column):
    trips = sample_months[1].head(200)
    changed = trips.assign(**{column: trips["pickup_at"] if column == "dropoff_at" else 1e6})
    model = fitted("XGB")
    assert same(model.answer(Rides.from_frame(trips)), model.answer(Rides.from_frame(changed)))


@pytest.mark.parametrize("kind", TREE_KINDS)
def test_longer_way_between_the_same_zones_does_not_take_shorter_on_average(fitted, asked, kind):
    model = fitted(kind)
    rides = asked.take((asked.trip_distance > 0.5) & (asked.trip_distance < 20))
    means = [
        model.answer(replace(rides, trip_distance=rides.trip_distance * factor)).duration.mean()
        for factor in (np.float32(0.5), np.float32(1), np.float32(2))
    ]
    assert means == sorted(means)
    assert means[2] > 1.2 * means[0]


@pytest.mark.parametrize("kind", TREE_KINDS)
def test_far_zones_take_longer_than_near_ones(fitted, kind):
    near = {"PULocationID": 74, "DOLocationID": 75, "pickup_datetime": "2021-02-01T12:00"}
    far = {**near, "DOLocationID": 132}
    minutes = fitted(kind).answer(Rides.from_dicts([near, far])).duration
    assert minutes[1] > 1.5 * minutes[0]


@pytest.mark.parametrize(
    ("kind", "share"), [("LR", 1.0), ("RIDGE", 1.0), ("RF", 0.8), ("XGB", 0.8)]
)
def test_error_lies_below_every_lookup(fitted, sample_months, asked, kind, share):
    train, validation = sample_months
    lookups = fit_baselines(Window.from_frame(train))
    actual = validation["duration"].to_numpy()
    best = min(
        error_metrics(actual, lookup.predict_minutes(asked))["rmse"] for lookup in lookups.values()
    )
    assert error_metrics(actual, fitted(kind).answer(asked).duration)["rmse"] < share * best


@pytest.mark.parametrize("kind", TREE_KINDS)
def test_knowing_the_distance_helps(fitted, sample_months, asked, kind):
    actual, model = sample_months[1]["duration"].to_numpy(), fitted(kind)
    aided = error_metrics(actual, model.answer(asked).duration)["rmse"]
    unaided = error_metrics(actual, model.answer(asked.without_distance()).duration)["rmse"]
    assert aided < unaided
