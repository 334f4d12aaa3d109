"""A distance that no ride of a pair can have: named, left out, and the same at every door."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from service_samples import make_card

from taxi_duration.domain.pair_miles import pair_miles
from taxi_duration.domain.rides import Rides
from taxi_duration.model.curves import Curve
from taxi_duration.registry.pyfunc import TaxiDurationModel

PAIR = {"PULocationID": 40, "DOLocationID": 124, "pickup_datetime": "2021-02-15T08:30:00"}
SHORTEST, LONGEST = (float(miles[40, 124]) for miles in pair_miles())
MILES = [0.1, SHORTEST - 0.01, SHORTEST, LONGEST, LONGEST + 0.01, 100.5, None]
IMPOSSIBLE = [True, True, False, False, True, True, False]
USED = [False, False, True, True, False, False, False]


@pytest.fixture(scope="module")
def models(fitted):
    """Trees serve, and a linear model stands by, which uses any distance."""
    return {1: fitted("XGB"), 2: fitted("LR")}


@pytest.fixture
def rides() -> list[dict]:
    return [{**PAIR, "trip_distance": miles} for miles in MILES]


def post(client, content):
    return client.post("/predict", json=content).json


def test_one_ride_and_many_say_so_and_answer_as_without_distance(client, rides):
    none = post(client, PAIR)
    for answers in ([post(client, ride) for ride in rides], post(client, rides)):
        assert [answer["used_distance"] for answer in answers] == USED
        assert [answer.get("impossible_distance", False) for answer in answers] == IMPOSSIBLE
        alike = [answer["duration"] for answer, used in zip(answers, USED, strict=True) if not used]
        assert alike == pytest.approx([none["duration"]] * 5, abs=1e-4)
    assert "impossible_distance" not in none


def test_nothing_is_said_of_a_distance_by_a_model_that_knows_none(make_app, models, rides):
    """As one of FHV months: it is not the ride's distance that cannot be."""
    flat = Curve(np.array([0.0, 1.0]), np.full(2, 9.0), np.zeros(1), 9.0)
    point = models[1].point
    point = replace(point, tables=replace(point.tables, minutes_of_miles=flat))
    blind = replace(models[1], point=point)
    client = make_app(model=(blind, make_card(1, "XGB"))).test_client()
    none = post(client, PAIR)
    for answers in ([post(client, ride) for ride in rides], post(client, rides)):
        assert not any(answer["used_distance"] for answer in answers)
        assert not any("impossible_distance" in answer for answer in answers)
        alike = [answer["duration"] for answer in answers]
        assert alike == pytest.approx([none["duration"]] * len(rides), abs=1e-4)


def test_a_parquet_file_says_so_too(client, rides):
    file = io.BytesIO()
    pd.DataFrame(rides).to_parquet(file, index=False)
    kind = "application/vnd.apache.parquet"
    answers = client.post("/predict", data=file.getvalue(), content_type=kind).json
    assert [answer["used_distance"] for answer in answers] == USED
    assert [answer.get("impossible_distance", False) for answer in answers] == IMPOSSIBLE


def test_other_protocols_and_the_registered_model_do_not_use_it(client, rides, models):
    answer = client.post("/invocations", json={"dataframe_records": rides}).json
    assert [one["used_distance"] for one in answer["predictions"]] == USED
    registered = TaxiDurationModel()
    registered.model = models[1]
    assert registered.predict(None, pd.DataFrame(rides))["used_distance"].tolist() == USED


def test_the_log_has_the_distance_and_that_it_was_not_used(client, log, rides):
    ids = [answer["prediction_id"] for answer in post(client, rides)]
    rows = {row["prediction_id"]: row for row in log.find_many(ids)}
    found = [(rows[i]["trip_distance"], rows[i]["used_distance"]) for i in ids]
    assert found == list(zip(MILES, USED, strict=True))


def test_a_linear_model_uses_any_distance(fitted):
    answers = fitted("LR").answer(Rides.from_dicts([{**PAIR, "trip_distance": 0.1}]))
    assert answers.used_distance.all()
