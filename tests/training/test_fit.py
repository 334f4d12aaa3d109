from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.errors import SettingError
from taxi_duration.evaluation.metrics import interval_metrics
from taxi_duration.model.ride_predictor import RidePredictor
from taxi_duration.training.fit import MIN_TRIPS, fit_model, fit_point
from taxi_duration.training.kinds import KINDS
from taxi_duration.training.linear_models import pair_matrix


def trips_of(frame, n: int):
    return Window.from_frame(frame.head(n))


def test_too_few_trips_are_refused_with_their_number(sample_months):
    with pytest.raises(SettingError, match=rf"{MIN_TRIPS - 1} trips are too few"):
        fit_model("LR", trips_of(sample_months[0], MIN_TRIPS - 1))


@pytest.mark.parametrize("kind", ["LR", "XGB"])
def test_just_enough_trips_give_a_model_that_answers(sample_months, kind, quick_trees):
    window = trips_of(sample_months[0], MIN_TRIPS)
    answers = fit_model(kind, window).answer(window.whole().rides)
    for minutes in (answers.duration, answers.p10, answers.p90):
        assert np.isfinite(minutes).all()


def test_intervals_cover_the_month_after_with_and_without_distance(fitted, sample_months):
    rides, actual = Rides.from_frame(sample_months[1]), sample_months[1]["duration"].to_numpy()
    for asked in (rides, rides.without_distance()):
        coverage = interval_metrics(actual, fitted("XGB").answer(asked))["coverage"]
        assert 0.74 <= coverage <= 0.88


def test_intervals_are_wider_without_distance(fitted, sample_months):
    rides = Rides.from_frame(sample_months[1])
    aided, unaided = (
        np.mean(a.p90 - a.p10) for a in map(fitted("XGB").answer, (rides, rides.without_distance()))
    )
    assert unaided > aided


def test_support_counts_the_trips_of_the_whole_window(fitted, sample_months):
    train = sample_months[0]
    pair = train.groupby(["PULocationID", "DOLocationID"]).size().idxmax()
    trips = (train["PULocationID"] == pair[0]) & (train["DOLocationID"] == pair[1])
    asked = Rides.from_frame(train[trips].head(1))
    assert fitted("XGB").answer(asked).support[0] == trips.sum()


def test_ridge_is_solved_to_the_end_though_one_taximeter_ran_away(sample_months):
    rides, duration = trips_of(sample_months[0], 4000).whole()
    miles = rides.trip_distance.copy()
    miles[0] = 244_152.0  # as in the real green month of 2021-01
    rides = replace(rides, trip_distance=miles)
    model = fit_point("RIDGE", Window.of(rides, duration))
    columns = pair_matrix(model.vectorizer, rides).toarray()
    centred, minutes = columns - columns.mean(axis=0), duration - duration.mean()
    penalty = KINDS["RIDGE"].parameters["alpha"] * np.eye(columns.shape[1])
    exact = np.linalg.solve(centred.T @ centred + penalty, centred.T @ minutes)
    expected = centred @ exact + duration.mean()
    assert np.abs(model.predict_minutes(rides) - expected).max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LASSO", "RIDGE", "RF"])
def test_other_kinds_cover_too(fitted, sample_months, kind):
    rides, actual = Rides.from_frame(sample_months[1]), sample_months[1]["duration"].to_numpy()
    coverage = interval_metrics(actual, fitted(kind).answer(rides))["coverage"]
    assert 0.74 <= coverage <= 0.88


@pytest.mark.parametrize("kind", ["LR", "RF", "XGB"])
def test_months_without_distances_teach_nothing_about_one_that_is_asked_with(
    sample_months, kind, quick_trees
):
    """FHV months have none: trees that had learned from no rows answered a minute to everybody."""
    trips = sample_months[0].head(3000).assign(trip_distance=np.float32("nan"))
    model = fit_model(kind, Window.from_frame(trips))
    rides = Rides.from_frame(sample_months[1].head(200))
    asked, unaided = model.answer(rides), model.answer(rides.without_distance())
    for name in ("duration", "p10", "p50", "p90"):
        np.testing.assert_array_equal(getattr(asked, name), getattr(unaided, name))
    assert np.mean(asked.duration) == pytest.approx(trips["duration"].mean(), rel=0.25)
    predictor = RidePredictor(model)
    at, miles = rides.pickup_at.tolist(), rides.trip_distance.tolist()
    for row in range(20):
        zones = int(rides.PULocationID[row]), int(rides.DOLocationID[row])
        alone = predictor.answer(*zones, at[row], miles[row])
        assert alone[:4] == pytest.approx(
            [getattr(asked, name)[row] for name in ("duration", "p10", "p50", "p90")], abs=1e-4
        )
        assert alone.used_distance == asked.used_distance[row]
