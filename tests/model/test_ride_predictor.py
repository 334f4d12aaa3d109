from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from cards import make_card
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_duration.data.trips import read_dataframe
from taxi_duration.domain.pair_miles import pair_miles
from taxi_duration.domain.rides import Rides
from taxi_duration.model import trees
from taxi_duration.model.bundle import load_bundle, save_bundle
from taxi_duration.model.ride_predictor import RidePredictor
from taxi_duration.training.kinds import KINDS

MONDAY = datetime(2021, 2, 1, 8, 30)


def questions(rides: Rides) -> list[tuple[int, int, datetime, float]]:
    """The rides as arguments of `RidePredictor.answer`."""
    return list(
        zip(
            rides.PULocationID.tolist(),
            rides.DOLocationID.tolist(),
            rides.pickup_at.tolist(),
            rides.trip_distance.tolist(),
            strict=True,
        )
    )


def assert_same_answers(model, rides: Rides) -> None:
    predictor, columns = RidePredictor(model), model.answer(rides)
    alone = [predictor.answer(*question) for question in questions(rides)]
    for name in ("duration", "p10", "p50", "p90"):
        minutes = np.array([getattr(answer, name) for answer in alone])
        np.testing.assert_allclose(minutes, getattr(columns, name), rtol=0, atol=1e-4, err_msg=name)
    assert [answer.support for answer in alone] == columns.support.tolist()
    assert [answer.used_distance for answer in alone] == columns.used_distance.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_one_ride_is_answered_like_a_frame_of_rides(fitted, sample_months, kind):
    rides = Rides.from_frame(sample_months[1])
    assert_same_answers(fitted(kind), rides)
    assert_same_answers(fitted(kind), rides.without_distance())


@pytest.mark.slow
@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["LR", "RF", "XGB"])
def test_rides_of_a_real_month_are_answered_like_the_frame(fitted, real_months, kind, every):
    path = real_months / "trip-data" / "green_tripdata_2021-02.parquet"
    rides = Rides.from_frame(read_dataframe(path).iloc[::every])
    assert_same_answers(fitted(kind), rides)
    assert_same_answers(fitted(kind), rides.without_distance())


MILES = st.one_of(st.none(), st.floats(0, 300), st.sampled_from([float("nan"), 1e-50, 100.0]))
ZONE = st.integers(1, 265)
WHEN = st.datetimes(datetime(2009, 1, 1), datetime(2035, 12, 31))


@pytest.mark.parametrize("kind", ["LR", "XGB"])
def test_any_zones_time_and_distance_are_answered_like_the_frame(fitted, kind):
    model = fitted(kind)
    predictor = RidePredictor(model)

    @settings(max_examples=200, deadline=None)
    @given(ZONE, ZONE, WHEN, MILES)
    def check(pickup, dropoff, pickup_at, miles):
        alone = predictor.answer(pickup, dropoff, pickup_at, miles)
        ride = {"PULocationID": pickup, "DOLocationID": dropoff, "trip_distance": miles}
        columns = model.answer(Rides.from_dicts([{**ride, "pickup_datetime": pickup_at}]))
        for name, value in alone._asdict().items():
            assert value == pytest.approx(getattr(columns, name)[0].item(), abs=1e-4), name
        assert alone.p10 <= alone.p50 <= alone.p90

    check()


def test_answer_holds_plain_python_numbers(fitted):
    answer = RidePredictor(fitted("XGB")).answer(74, 75, MONDAY, 2.0)
    assert [type(value) for value in answer] == [float, float, float, float, int, bool]


@pytest.mark.parametrize("miles", [0.0, -1.0, 33.0, 100.1, 244_152.0, float("nan")])
def test_distance_that_cannot_be_true_is_not_used_by_trees(fitted, miles):
    predictor = RidePredictor(fitted("XGB"))
    refused, none = (predictor.answer(74, 75, MONDAY, asked) for asked in (miles, None))
    given = not np.isnan(miles)  # such rides differ more, and have intervals of their own
    assert refused == (none._replace(p10=refused.p10, p90=refused.p90) if given else none)
    assert (refused.p90 - refused.p10 >= none.p90 - none.p10) and not refused.used_distance


@pytest.mark.parametrize("end", [0, 1])
def test_both_ways_agree_at_the_ends_of_what_a_pair_can_be(fitted, end):
    miles = pair_miles()[end][40, 124]
    asked = [np.nextafter(miles, np.float32(to)) for to in (0, 200)] + [miles]
    rides = Rides.from_dicts(
        [{"PULocationID": 40, "DOLocationID": 124, "pickup_datetime": MONDAY}] * 3
    )
    rides = replace(rides, trip_distance=np.array(asked, "float32"))
    assert fitted("XGB").answer(rides).used_distance.sum() == 2
    assert_same_answers(fitted("XGB"), rides)


def test_predictor_without_the_compiled_walker_answers_the_same(fitted, monkeypatch):
    compiled = RidePredictor(fitted("XGB")).answer(74, 132, MONDAY, 11.0)
    monkeypatch.setattr(trees, "_walker", None)
    slower = RidePredictor(fitted("XGB")).answer(74, 132, MONDAY, 11.0)
    assert slower == pytest.approx(compiled, abs=1e-4)


SLIM = """
import json, sys
for name in {blocked!r}:
    sys.modules[name] = None  # importing it fails
from datetime import datetime
from taxi_duration.model.bundle import load_bundle
from taxi_duration.model.ride_predictor import RidePredictor
predictor = RidePredictor(load_bundle(sys.argv[1])[0])
asked = (74, 75, datetime(2021, 2, 1, 8, 30))
answers = [predictor.answer(*asked, miles) for miles in (2.0, None)]
print(json.dumps([answers, [predictor.explain(*asked, miles) for miles in (2.0, None)]]))
"""
# numpy.ma is there, but would cost every start a sixth of its time.
BLOCKED = ["pandas", "sklearn", "xgboost", "mlflow", "scipy", "pyarrow", "sqlalchemy", "flask",
           "numpy.ma"]  # fmt: skip


@pytest.mark.parametrize("kind", ["LR", "RF", "XGB"])
def test_bundle_answers_and_explains_where_only_numpy_is_installed(fitted, tmp_path, kind):
    save_bundle(tmp_path, fitted(kind), make_card(kind), key=None)
    done = subprocess.run(
        [sys.executable, "-c", SLIM.format(blocked=BLOCKED), str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    predictor = RidePredictor(load_bundle(tmp_path)[0])
    answers, reasons = json.loads(done.stdout)
    assert answers == [list(predictor.answer(74, 75, MONDAY, miles)) for miles in (2.0, None)]
    assert reasons == [
        [list(reason) for reason in predictor.explain(74, 75, MONDAY, miles)]
        for miles in (2.0, None)
    ]
