from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import Lasso, LinearRegression, Ridge

from taxi_duration.data.trips import read_dataframe
from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.evaluation.metrics import error_metrics
from taxi_duration.model.linear import PairVectorizer, RidePairs
from taxi_duration.training.linear_models import fit_linear, pair_matrix
from taxi_duration.training.window_sums import window_sums


def make_rides(pairs: list[tuple[int, int]], miles: list[float]) -> Rides:
    pickup, dropoff = np.array(pairs, dtype="int16").reshape(-1, 2).T
    at = np.full(len(pairs), "2021-01-04T08:00", dtype="datetime64[s]")
    return Rides(pickup, dropoff, at, np.array(miles, dtype="float32"))


def course_dicts(rides: Rides) -> list[dict]:
    """The rides as the course feeds them to DictVectorizer."""
    return [
        {"PU_DO": f"{pickup}_{dropoff}", "trip_distance": float(miles)}
        for pickup, dropoff, miles in zip(
            rides.PULocationID, rides.DOLocationID, rides.trip_distance, strict=True
        )
    ]


def ride_dicts(rides: Rides) -> list[dict]:
    """The rides as the service accepts them."""
    return [
        {"PULocationID": pickup, "DOLocationID": dropoff, "trip_distance": miles}
        for pickup, dropoff, miles in zip(
            rides.PULocationID.tolist(),
            rides.DOLocationID.tolist(),
            rides.trip_distance.tolist(),
            strict=True,
        )
    ]


ZONES = st.integers(1, 265)
RIDES = st.lists(st.tuples(ZONES, ZONES, st.floats(0, 1000, width=32)), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(RIDES, RIDES)
def test_matrix_is_the_one_of_dictvectorizer(train, asked):
    train, asked = (
        make_rides([r[:2] for r in rows], [r[2] for r in rows]) for rows in (train, asked)
    )
    theirs, ours = DictVectorizer().fit(course_dicts(train)), PairVectorizer.fit(train)
    assert ours.feature_names == theirs.get_feature_names_out().tolist()
    for rides in (train, asked):  # `asked` holds pairs that were not seen
        expected = theirs.transform(course_dicts(rides)).toarray()
        np.testing.assert_array_equal(pair_matrix(ours, rides).toarray(), expected)


def test_dicts_and_frames_give_the_same_matrix(trips):
    rides = Rides.from_frame(trips)
    vectorizer = PairVectorizer.fit(rides)
    from_frame = pair_matrix(vectorizer, trips)
    from_dicts = pair_matrix(vectorizer, ride_dicts(rides))
    assert (from_frame != from_dicts).nnz == 0
    assert from_frame.shape == (len(trips), vectorizer.n_pairs + 1)


def test_frames_are_transformed_without_making_dicts(trips, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise AssertionError("to_dict over a frame")

    monkeypatch.setattr(pd.DataFrame, "to_dict", refuse)
    vectorizer = PairVectorizer.fit(Rides.from_frame(trips))
    assert pair_matrix(vectorizer, trips).shape[0] == len(trips)


def test_unseen_pair_has_only_its_distance():
    vectorizer = PairVectorizer.fit(make_rides([(1, 2), (3, 4)], [1.0, 2.0]))
    matrix = pair_matrix(vectorizer, make_rides([(2, 1)], [5.0])).toarray()
    assert matrix.tolist() == [[0.0, 0.0, 5.0]]


def test_missing_distance_is_the_mean_of_the_pair_and_else_of_all():
    # 244,152 miles is a meter fault: it must not enter a mean.
    vectorizer = PairVectorizer.fit(
        make_rides([(1, 2), (1, 2), (1, 2), (3, 4)], [1.0, 3.0, 244_152.0, 8.0])
    )
    _, miles = vectorizer.columns(make_rides([(1, 2), (3, 4), (9, 9)], [np.nan] * 3))
    assert miles.tolist() == [2.0, 8.0, 4.0]


@pytest.mark.parametrize("estimator", [LinearRegression(), Lasso(alpha=0.01), Ridge()])
def test_model_is_scikit_learns_on_the_dictvectorizer_matrix(trips, estimator):
    rides, minutes = Rides.from_frame(trips), trips["duration"].to_numpy()
    model = fit_linear(estimator, window_sums(Window.of(rides, minutes)))
    vectorizer = DictVectorizer()
    matrix = vectorizer.fit_transform(course_dicts(rides))
    matrix.indices, matrix.indptr = matrix.indices.astype("int32"), matrix.indptr.astype("int32")
    theirs = type(estimator)(**estimator.get_params()).fit(matrix, minutes.astype("float64"))
    asked = make_rides([(74, 42), (75, 166), (200, 201)], [0.5, 12.0, 3.0])
    expected = theirs.predict(vectorizer.transform(course_dicts(asked)))
    np.testing.assert_allclose(model.predict_minutes(asked), expected, rtol=1e-5)


def test_distance_counts_as_used_when_it_was_given(fitted):
    used = fitted("LR").point.uses_distance(make_rides([(1, 2)] * 3, [0.0, 244_152.0, np.nan]))
    assert used.tolist() == [True, True, False]


def test_one_ride_is_answered_like_columns(trips):
    model = fit_linear(Ridge(), window_sums(Window.from_frame(trips)))
    asked = make_rides([(74, 42), (75, 166), (200, 201), (74, 42)], [0.5, 12.0, 3.0, np.nan])
    one = RidePairs(model)
    answers = [
        one.predict(74, 42, 0.5),
        one.predict(75, 166, 12.0),
        one.predict(200, 201, 3.0),
        one.predict(74, 42, None),
    ]
    assert answers == model.predict_minutes(asked).tolist()


@pytest.mark.slow
def test_course_linear_regression_is_reproduced_on_real_months(real_months):
    train, validation = (
        read_dataframe(real_months / "trip-data" / f"green_tripdata_{month}.parquet")
        for month in ("2021-01", "2021-02")
    )
    assert (len(train), len(validation)) == (73_908, 61_921)
    model = fit_linear(LinearRegression(), window_sums(Window.from_frame(train)))
    predicted = model.predict_minutes(Rides.from_frame(validation))
    rmse = error_metrics(validation["duration"].to_numpy(), predicted)["rmse"]
    assert rmse == pytest.approx(7.7587, abs=0.0005)
