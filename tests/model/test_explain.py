from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from taxi_duration.domain.rides import Rides
from taxi_duration.model import explain
from taxi_duration.model.features import DISTANCE_FEATURES
from taxi_duration.model.linear import LinearModel, PairVectorizer
from taxi_duration.model.ride_predictor import RidePredictor
from taxi_duration.model.trees import NODE, TreeEnsemble
from taxi_duration.training.kinds import KINDS

MONDAY = datetime(2021, 2, 1, 8, 30)


def stump(feature: int, threshold: float, low: float, high: float) -> TreeEnsemble:
    """One split whose two leaves weigh the same."""
    nodes = np.zeros(3, dtype=NODE)
    nodes["left"] = [1, -1, -1]
    nodes["feature"], nodes["threshold"] = feature, threshold
    nodes["value"] = [(low + high) / 2, low, high]
    return TreeEnsemble(nodes, np.zeros(1, dtype="int32"), base=10.0)


def names(reasons: list[explain.Reason]) -> list[str]:
    return [reason.name for reason in reasons]


@pytest.mark.parametrize("kind", KINDS)
def test_reasons_add_up_to_the_answer(fitted, sample_months, kind):
    predictor = RidePredictor(fitted(kind))
    rides = Rides.from_frame(sample_months[1].head(300))
    for row in range(len(rides)):
        pickup, dropoff, at, miles = (
            column[row].item()
            for column in (
                rides.PULocationID, rides.DOLocationID, rides.pickup_at, rides.trip_distance
            )
        )  # fmt: skip
        for asked in (miles, None):
            reasons = predictor.explain(pickup, dropoff, at, asked)
            answer = predictor.answer(pickup, dropoff, at, asked)
            assert sum(reason.minutes for reason in reasons) == pytest.approx(
                answer.duration, abs=1e-3
            )
            assert reasons[0].name == explain.BASE


@pytest.mark.parametrize("kind", KINDS)
def test_base_is_the_same_for_every_ride(fitted, kind):
    predictor = RidePredictor(fitted(kind))
    asked = ((75, 3.0), (132, 15.0))
    first, second = (predictor.explain(74, zone, MONDAY, miles)[0] for zone, miles in asked)
    assert first == second


@pytest.mark.parametrize("kind", KINDS)
def test_distance_is_a_reason_only_when_it_was_used(fitted, kind):
    predictor = RidePredictor(fitted(kind))
    assert explain.DISTANCE in names(predictor.explain(74, 75, MONDAY, 3.0))
    assert explain.DISTANCE not in names(predictor.explain(74, 75, MONDAY, None))


def test_every_feature_belongs_to_a_reason_that_says_something():
    assert [name for name in DISTANCE_FEATURES if name not in explain.REASON_OF] == []


def test_contribution_is_told_under_the_reason_of_its_feature():
    hour = DISTANCE_FEATURES.index("pickup_hour")
    rows = np.zeros((1, len(DISTANCE_FEATURES)), dtype="float32")
    (reasons,) = explain.explain_trees(stump(hour, 1.0, 4.0, 8.0), rows, np.array([14.0]))
    minutes = {reason.name: reason.minutes for reason in reasons}
    assert minutes[explain.BASE] == 16.0
    assert minutes[explain.TIME_OF_DAY] == -2.0
    assert explain.LIMITS not in minutes


def test_cut_at_the_limit_is_a_reason_of_its_own():
    rows = np.zeros((3, len(DISTANCE_FEATURES)), dtype="float32")
    answers = np.array([60.0, 65.0, 60.0])
    for reasons, answer in zip(
        explain.explain_trees(stump(0, 1.0, 55.0, 75.0), rows, answers), answers, strict=True
    ):
        assert (reasons[-1] == (explain.LIMITS, -5.0)) == (answer == 60.0)
        assert sum(reason.minutes for reason in reasons) == answer


def test_limits_are_a_reason_only_for_answers_at_a_limit(fitted, sample_months):
    predictor = RidePredictor(fitted("XGB"))
    rides = Rides.from_frame(sample_months[1].head(500))
    for row in range(len(rides)):
        asked = (
            rides.PULocationID[row].item(),
            rides.DOLocationID[row].item(),
            rides.pickup_at[row].item(),
            rides.trip_distance[row].item(),
        )
        if explain.LIMITS in names(predictor.explain(*asked)):
            assert predictor.answer(*asked).duration in (1.0, 60.0)


def test_linear_reasons_are_the_coefficients_around_the_usual_trip():
    # Pair 1_2 was seen 3 times at 2 miles, 3_4 once at 6: the mean trip is 3 miles long.
    rides = Rides(
        np.array([1, 1, 1, 3], dtype="int16"),
        np.array([2, 2, 2, 4], dtype="int16"),
        np.full(4, "2021-01-04", dtype="datetime64[s]"),
        np.array([2, 2, 2, 6], dtype="float32"),
    )
    model = LinearModel(PairVectorizer.fit(rides), np.array([4.0, 8.0, 0.0]), 2.0, 1.0)
    pair_trips = np.zeros((266, 266), dtype="int32")
    pair_trips[1, 2], pair_trips[3, 4] = 3, 1
    asked = replace(rides.take(slice(3, 4)), trip_distance=np.array([7.0], dtype="float32"))
    assert explain.explain_linear(model, pair_trips, asked, with_distance=True) == [
        [
            (explain.BASE, 1.0 + 5.0 + 2.0 * 3.0),
            (explain.ROUTE, 8.0 - 5.0 + 2.0 * (6.0 - 3.0)),
            (explain.DISTANCE, 2.0 * (7.0 - 6.0)),
        ]
    ]


@pytest.mark.parametrize("kind", ["LR", "RF", "XGB"])
def test_rides_are_explained_together_as_each_alone(fitted, sample_months, kind, monkeypatch):
    """To the bit, whichever of them have a distance; and the trees are walked once for all."""
    model = fitted(kind)
    rides = Rides.from_frame(sample_months[1].head(400))
    unknown = np.arange(400) % 3 == 0
    rides = replace(rides, trip_distance=np.where(unknown, np.nan, rides.trip_distance))
    walks = []
    contributions = TreeEnsemble.contributions
    monkeypatch.setattr(
        TreeEnsemble,
        "contributions",
        lambda trees, rows: walks.append(len(rows)) or contributions(trees, rows),
    )
    together = explain.explain(model, rides, model.answer(rides).duration)
    used = int(model.point.uses_distance(rides).sum())
    assert walks == ([] if kind == "LR" else [used, 400 - used])
    predictor = RidePredictor(model)
    columns = (rides.PULocationID, rides.DOLocationID, rides.pickup_at, rides.trip_distance)
    for row, reasons in enumerate(together):
        pickup, dropoff, at, miles = (column[row].item() for column in columns)
        asked = (pickup, dropoff, at, None if np.isnan(miles) else miles)
        assert reasons == predictor.explain(*asked)
        assert all(type(minutes) is float for _, minutes in reasons)
