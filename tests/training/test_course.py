"""The course's own model and ours are one, and it never gets what it cannot take."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression
from sklearn.metrics import root_mean_squared_error

from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.training.course import course_features, course_rows, last_trips
from taxi_duration.training.fit import fit_point


def both_rmse(train, validation) -> tuple[list[float], float]:
    """RMSE (minutes) of the course's lines, as notebook 02 shows them, and of our LR.

    Where a distance runs away, rounding alone can decide after how many steps LSQR stops: of the
    course's model there are then as many as there are orders of the trips.
    """
    rows, asked = course_rows(train), course_rows(validation)
    features, vectorizer = course_features(rows), DictVectorizer()
    X = vectorizer.fit_transform(rows[features].to_dict(orient="records"))
    X_asked = vectorizer.transform(asked[features].to_dict(orient="records"))
    shuffled = [np.random.default_rng(seed).permutation(len(rows)) for seed in range(3)]
    minutes = rows["duration"].to_numpy()
    theirs = [
        LinearRegression().fit(X[order], minutes[order]).predict(X_asked)
        for order in (np.arange(len(rows)), *shuffled)
    ]
    model = fit_point("LR", Window.from_frame(rows))
    ours = model.predict_minutes(Rides.from_frame(asked))
    *theirs, ours = (root_mean_squared_error(asked["duration"], m) for m in (*theirs, ours))
    return theirs, ours


@pytest.mark.parametrize("unknown", [slice(0), slice(0, None, 3), slice(None)],
                         ids=["all distances", "some", "none"])  # fmt: skip
def test_our_linear_regression_is_the_courses(sample_months, unknown):
    frames = []
    for month in sample_months:
        frame = month.copy()
        frame.loc[frame.index[unknown], "trip_distance"] = np.float32(np.nan)
        frames.append(frame)
    theirs, ours = both_rmse(*frames)
    assert min(abs(ours - rmse) / rmse for rmse in theirs) < 1e-6


def test_features_are_the_courses(trips):
    rows = course_rows(trips.assign(PULocationID=10, DOLocationID=50))
    assert set(rows["PU_DO"]) == {"10_50"}
    assert course_features(rows) == ["PU_DO", "trip_distance"]


def test_service_without_distances_has_the_pair_alone(trips):
    rows = course_rows(trips.assign(trip_distance=np.float32(np.nan)))
    assert len(rows) == len(trips) and course_features(rows) == ["PU_DO"]


def test_long_window_gives_its_last_trips(trips):
    assert course_rows(trips, most=100).index.tolist() == trips.index[-100:].tolist()


@pytest.mark.parametrize("learnable", [True, False])
def test_course_has_as_many_of_the_last_months_as_it_takes(trips, learnable):
    class Kept:
        def __init__(self, at, unknown=0):
            self.frame = trips.assign(at=at)
            self.frame.loc[: unknown - 1, "trip_distance"] = np.nan

        def trips(self):
            return self.frame.assign(kind="trips")

        learnable = property(lambda self: lambda: self.frame.assign(kind="learnable"))

    def taken(months, most):
        frame = last_trips(months, learnable, most)
        assert set(frame["kind"]) == {"learnable" if learnable else "trips"}
        assert frame.index.equals(pd.RangeIndex(len(frame)))
        return frame["at"].unique().tolist()

    n, months = len(trips), [Kept(0), Kept(1), Kept(2)]
    assert [taken(months, most) for most in (n, n + 1, 9 * n)] == [[2], [1, 2], [0, 1, 2]]
    assert taken([Kept(0), Kept(1, unknown=1)], n) == [0, 1]  # such a trip is not taken


def test_our_linear_regression_is_the_courses_where_its_solver_stops_far_from_the_solution(home):
    months = prepare_months("green", parse_months("2021-01:2021-02"))
    train, validation = (month.trips() for month in months)
    assert train["trip_distance"].max() > 1000  # ill-conditioned: rounding decides
    theirs, ours = both_rmse(train, validation)
    assert ours == pytest.approx(theirs[0], rel=1e-6)
