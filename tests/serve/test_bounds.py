"""What one request may cost: bounds by work, counted in calls, rows and bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from service_samples import RIDE, make_card

from serve.bodies.ride_body import parse_rides
from serve.core import answering
from taxi_duration.domain.refused_values import RefusedError
from taxi_duration.live.prediction_log import PredictionLog
from taxi_duration.live.spool import SpoolWriter

LIMITS = {"MAX_RIDES": 50, "MAX_EXPLAINED": 20, "MAX_FEEDBACK": 30}


@pytest.fixture
def bounded(make_app, models):
    """A client of a service with small limits."""
    return make_app(LIMITS, model=(models[1], make_card(1, "LR"))).test_client()


@pytest.fixture
def calls(monkeypatch):
    """Count the calls of a function by the number of elements that they get."""

    def count(owner, name, at=1):
        found = []
        function = getattr(owner, name)

        def counted(*given, **named):
            found.append(len(given[at]))
            return function(*given, **named)

        monkeypatch.setattr(owner, name, counted)
        return found

    return count


def test_an_array_with_reasons_is_explained_and_logged_at_once(bounded, calls, models):
    explained, written = calls(answering, "explain_answers"), calls(SpoolWriter, "write")
    rides = [{**RIDE, "trip_distance": 1.0 + i, "ride_id": i} for i in range(20)]
    together = bounded.post("/predict?explain=true", json=rides).json
    assert (explained, len(written)) == ([20], 1)
    for ride, answer in zip(rides, together, strict=True):
        alone = bounded.post("/predict?explain=true", json=ride).json
        assert answer["reasons"] == alone["reasons"]
        assert answer["ride_id"] == ride["ride_id"]


@pytest.mark.parametrize(
    ("path", "n", "status"),
    [
        ("/predict", 50, 200),
        ("/predict", 51, 413),
        ("/predict?explain=true", 20, 200),
        ("/predict?explain=true", 21, 413),
        ("/predict?explain=false", 21, 200),
    ],
)
def test_rides_with_reasons_have_a_limit_of_their_own(bounded, path, n, status):
    response = bounded.post(path, json=[RIDE] * n)
    assert response.status_code == status
    if status == 413:
        asked, most = ("rides with explain", 20) if "explain" in path else ("rides", 50)
        message = f"{n} {asked} in one request; at most {most} are allowed"
        assert response.json["error"] == {"code": "too_many", "message": message, "field": None}


def test_what_is_over_a_limit_is_neither_answered_nor_logged(bounded, log, calls):
    explained = calls(answering, "explain_answers")
    bounded.post("/predict?explain=true", json=[RIDE] * 21)
    assert explained == []
    assert log.counts()["predictions"] == 0


def test_true_durations_have_a_limit_of_their_own(bounded, calls):
    kept = calls(PredictionLog, "add_feedback")
    told = [{"prediction_id": f"unknown-{i}", "duration": 3.0} for i in range(31)]
    assert bounded.post("/feedback", json=told[:30]).status_code == 200
    refused = bounded.post("/feedback", json=told)
    assert refused.status_code == 413
    assert refused.json["error"]["message"] == (
        "31 durations in one request; at most 30 are allowed"
    )
    assert kept == [30]


TIMES = [
    "", "2021-02-15T08:30:00", "2021-02-15T08:30:0", "02021-02-15T08:30:00", "2021-02-15T24:00:00",
    "2021-02-30T08:30:00", "2021-02-15 08:30:00", "２021-02-15T08:30:00", "2021-02-15T08:30:0é",
    "1999-12-31T23:59:59", "2099-12-31T23:59:59", "2021-03-14T02:30:00", "2021-02-15T08:30:60",
]  # fmt: skip


@pytest.mark.parametrize("first", TIMES)
@pytest.mark.parametrize("second", TIMES)
def test_times_of_an_array_are_read_at_once_as_each_alone(first, second):
    """Both ways of reading take the same times, and the log gets them as it writes them."""

    def read(texts):
        content = [{"PULocationID": 1, "DOLocationID": 2, "pickup_datetime": t} for t in texts]
        try:
            rides = parse_rides(json.dumps(content, ensure_ascii=False).encode(), 10)
        except RefusedError:
            return None
        as_logged = np.datetime_as_string(rides.columns.pickup_at).tolist()
        assert rides.pickups in (None, as_logged)
        return as_logged

    alone = [read([first]), read([second])]
    assert read([first, second]) == (None if None in alone else [*alone[0], *alone[1]])
