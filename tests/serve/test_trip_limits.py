"""What riders get of a linear model: minutes within the limits of a trip, logged as given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from service_samples import RIDE, make_card, make_rides

from taxi_duration.domain.limits import TRIP_MINUTES
from taxi_duration.model.explain import LIMITS

SHIFTS = {"below": -25.0, "above": 70.0}  # minutes; all of some rides' answers lie beyond then


@pytest.fixture(params=SHIFTS)
def model(request, models):
    """The linear model, answering much less or more."""
    point = models[1].point
    return replace(
        models[1], point=replace(point, intercept=point.intercept + SHIFTS[request.param])
    )


@pytest.fixture
def client(make_app, model):
    return make_app(model=(model, make_card(1, "LR"))).test_client()


def expected(model, rides):
    raw = model.point.predict_minutes(rides)
    assert ((raw < TRIP_MINUTES[0]) | (raw > TRIP_MINUTES[1])).any()
    return np.clip(raw, *TRIP_MINUTES)


def test_rides_alone_and_together_are_answered_within_and_logged_as_given(client, model, log):
    rides, _ = make_rides(40)
    asked = [
        {"PULocationID": int(p), "DOLocationID": int(d), "trip_distance": float(m),
         "pickup_datetime": str(at)}
        for p, d, at, m in zip(rides.PULocationID, rides.DOLocationID, rides.pickup_at,
                               rides.trip_distance, strict=True)
    ]  # fmt: skip
    together = client.post("/predict", json=asked).json
    alone = [client.post("/predict", json=ride).json for ride in asked]
    for answers in (together, alone):
        given = [answer["duration"] for answer in answers]
        np.testing.assert_allclose(given, expected(model, rides), atol=1e-4)
    logged = {row["prediction_id"]: row["duration"] for row in log.answered()}
    assert logged == {answer["prediction_id"]: answer["duration"] for answer in together + alone}


def test_reasons_name_the_limit_and_sum_to_the_answer(client):
    for answer in (
        client.post("/predict?explain=true", json=RIDE).json,
        client.post("/predict?explain=true", json=[RIDE]).json[0],
    ):
        assert answer["duration"] in TRIP_MINUTES
        assert answer["reasons"][-1]["name"] == LIMITS
        total = sum(reason["minutes"] for reason in answer["reasons"])
        assert total == pytest.approx(answer["duration"], abs=1e-3)


def test_scores_are_those_of_the_model_itself(model):
    rides, _ = make_rides(40)
    raw = model.point.predict_minutes(rides)
    assert model.answer(rides).duration.tolist() == raw.tolist()
    assert model.for_riders().answer(rides).duration.tolist() == expected(model, rides).tolist()
