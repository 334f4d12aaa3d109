"""GET /profile, GET /leave-by and GET /reach."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from examples import bounded
from hypothesis import given

from taxi_duration.domain.rides import NEW_YORK

ZONES = {"PULocationID": 74, "DOLocationID": 42}


def test_profile_has_every_hour_with_its_interval(client):
    answer = client.get("/profile", query_string={**ZONES, "date": "2021-02-15"}).json
    assert [hour["hour"] for hour in answer["hours"]] == list(range(24))
    assert all(h["interval"]["p10"] <= h["interval"]["p90"] for h in answer["hours"])
    assert (answer["date"], answer["model"]) == ("2021-02-15", "green-duration:1")


def test_profile_is_what_predict_answers_at_the_hour(client):
    profile = client.get("/profile", query_string={**ZONES, "date": "2021-02-15"}).json
    ride = client.post("/predict", json={**ZONES, "pickup_datetime": "2021-02-15T17:00:00"}).json
    assert profile["hours"][17]["duration"] == pytest.approx(ride["duration"], abs=1e-4)


def test_profile_is_of_today_without_a_date(client):
    assert client.get("/profile", query_string=ZONES).status_code == 200


@pytest.mark.parametrize(
    ("path", "query", "wrong", "taken"),
    [("/profile", {**ZONES, "when": "2021-02-15"}, "when", "PULocationID, DOLocationID, date"),
     ("/leave-by", {**ZONES, "arrive": "2021-02-15T09:00", "P": "0.5"}, "P", "arrive, p"),
     ("/reach", {**ZONES, "date": "2021-02-15"}, "DOLocationID", "takes PULocationID, when"),
     ("/predict", {"explian": "true"}, "explian", "takes explain")],
)  # fmt: skip
def test_misspelt_parameter_is_named_and_not_passed_over(client, path, query, wrong, taken):
    ask = client.post if path == "/predict" else client.get
    answer = ask(path, query_string=query, **({"json": ZONES} if path == "/predict" else {}))
    error = answer.json["error"]
    assert (answer.status_code, error["code"]) == (400, "unknown_parameter")
    assert error["field"] == wrong and taken in error["message"]


@pytest.mark.parametrize("query", ["/predict?explain=true&explain=false", "/reach?when=a&when=b"])
def test_parameter_that_comes_twice_is_refused(client, query):
    answer = client.post(query, json=ZONES) if "predict" in query else client.get(query)
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "duplicate_key")


def leave(client, p: float):
    query = {**ZONES, "arrive": "2021-02-15T09:00:00", "p": p}
    return client.get("/leave-by", query_string=query).json


def test_leaving_then_arrives_in_time(client):
    answer = leave(client, 0.9)
    start = datetime.fromisoformat(answer["leave_by"])
    arrive = datetime.fromisoformat(answer["arrive"])
    assert start + timedelta(minutes=answer["minutes"]) <= arrive
    assert start + timedelta(minutes=answer["minutes"] + 1.01) > arrive


def test_leaving_by_p90_uses_the_interval_of_predict(client):
    answer = leave(client, 0.9)
    ride = client.post("/predict", json={**ZONES, "pickup_datetime": answer["leave_by"]}).json
    assert answer["minutes"] == pytest.approx(ride["interval"]["p90"], abs=1e-3)


def test_being_surer_means_leaving_earlier(client):
    assert leave(client, 0.9)["leave_by"] < leave(client, 0.5)["leave_by"]


def reach(client, **query):
    return client.get("/reach", query_string={"PULocationID": 74, **query}).json


def test_reach_is_what_predict_answers_to_every_zone(client):
    found = reach(client, when="2021-02-15T08:30")
    rides = [
        {"PULocationID": 74, "DOLocationID": zone, "pickup_datetime": "2021-02-15T08:30"}
        for zone in range(1, 264)
    ]
    answers = client.post("/predict", json=rides).json
    assert (found["PULocationID"], found["model"]) == (74, "green-duration:1")
    assert found["when"] == "2021-02-15T08:30:00"
    assert found["zones"] == [
        {"DOLocationID": ride["DOLocationID"]}
        | {name: answer[name] for name in ("duration", "interval", "support")}
        for ride, answer in zip(rides, answers, strict=True)
    ]


def test_reach_asks_for_the_hour_in_new_york(client, app, monkeypatch):
    answering, asked = app.extensions["taxi"], []
    plan = answering.plan
    monkeypatch.setattr(answering, "plan", lambda rides: asked.append(rides) or plan(rides))
    assert reach(client, when="2021-02-15T15:00+01:00")["when"] == "2021-02-15T09:00:00"
    (rides,) = asked
    assert set(rides.pickup_at.tolist()) == {datetime(2021, 2, 15, 9)}
    assert set(rides.PULocationID.tolist()) == {74}


def test_nothing_is_reached_without_a_model(home, make_app):
    answer = make_app().test_client().get("/reach", query_string={"PULocationID": 74})
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "no_model")


def test_reach_is_of_now_without_a_time(client):
    start = datetime.fromisoformat(reach(client)["when"])
    assert abs(start - datetime.now(NEW_YORK).replace(tzinfo=None)) < timedelta(minutes=1)


def test_nothing_asked_here_is_in_the_prediction_log(client, log):
    client.get("/profile", query_string=ZONES)
    reach(client)
    leave(client, 0.5)
    assert log.counts()["predictions"] == 0


@pytest.mark.parametrize(
    ("path", "changes", "field"),
    [
        ("/profile", {"PULocationID": None}, "PULocationID"),
        ("/profile", {"PULocationID": "0"}, "PULocationID"),
        ("/profile", {"DOLocationID": "266"}, "DOLocationID"),
        ("/profile", {"DOLocationID": "1.0"}, "DOLocationID"),
        ("/profile", {"DOLocationID": "²"}, "DOLocationID"),
        ("/profile", {"DOLocationID": "9" * 5000}, "DOLocationID"),
        ("/profile", {"PULocationID": ["10", "11"]}, "PULocationID"),
        ("/profile", {"date": "soon"}, "date"),
        ("/profile", {"date": ["2021-02-15", "2021-02-16"]}, "date"),
        ("/profile", {"date": "0001-01-01"}, "date"),
        ("/reach", {"PULocationID": None}, "PULocationID"),
        ("/reach", {"PULocationID": "266"}, "PULocationID"),
        ("/reach", {"when": "soon"}, "when"),
        ("/reach", {"when": ["2021-02-15T09:00", "2021-02-15T10:00"]}, "when"),
        ("/reach", {"when": ""}, "when"),
        ("/reach", {"when": "1999-12-31T23:59"}, "when"),
        ("/reach", {"when": "0001-01-01T00:00+14:00"}, "when"),
        ("/leave-by", {}, "arrive"),
        ("/leave-by", {"arrive": "noon"}, "arrive"),
        ("/leave-by", {"arrive": "2021-02-15T09:00", "p": ["0.5", "0.9"]}, "p"),
        ("/leave-by", {"arrive": "1066-10-14T09:00"}, "arrive"),
        ("/leave-by", {"arrive": "2021-02-15T09:00", "p": "0.95"}, "p"),
        ("/leave-by", {"arrive": "2021-02-15T09:00", "p": "nan"}, "p"),
        ("/leave-by", {"arrive": "2021-02-15T09:00", "p": "x"}, "p"),
    ],
)
def test_a_bad_question_is_refused_by_the_name_of_its_field(client, path, changes, field):
    zones = {"PULocationID": 74} if path == "/reach" else ZONES
    query = {name: value for name, value in {**zones, **changes}.items() if value is not None}
    response = client.get(path, query_string=query)
    assert response.status_code == 400
    assert response.json["error"]["field"] == field


def test_arrival_with_an_unescaped_offset_is_understood(client):
    response = client.get("/leave-by?PULocationID=74&DOLocationID=42&arrive=2021-02-15T15:00+01:00")
    assert response.json["arrive"] == "2021-02-15T09:00:00"


def test_leaving_before_clocks_change_counts_minutes_that_pass(client):
    query = {**ZONES, "arrive": "2021-03-14T03:05:00", "p": 0.9}
    answer = client.get("/leave-by", query_string=query).json
    start, end = (
        datetime.fromisoformat(answer[name]).replace(tzinfo=NEW_YORK).astimezone(UTC)
        for name in ("leave_by", "arrive")
    )
    minutes = (end - start) / timedelta(minutes=1)
    assert answer["minutes"] <= minutes < answer["minutes"] + 1.01
    assert not answer["leave_by"].startswith("2021-03-14T02")  # a time that there is not


def moment_of(text: str) -> datetime:
    """The moment at which New York's clock shows a time, which it must do once."""
    at = datetime.fromisoformat(text)
    first, second = (at.replace(tzinfo=at.tzinfo or NEW_YORK, fold=fold) for fold in (0, 1))
    assert first.utcoffset() == second.utcoffset(), f"{text} is left out or comes twice"
    assert first.astimezone(NEW_YORK).utcoffset() == first.utcoffset()
    return first.astimezone(UTC)


changes = st.sampled_from(  # of the clocks; leap days; the first and last that are answered
    ["2021-03-14T02:00", "2021-11-07T01:00", "2021-11-07T02:00", "2006-04-02T02:00",
     "2024-02-29T00:00", "2100-01-01T00:00", "2000-01-01T00:00", "2000-02-29T23:59"]
).map(datetime.fromisoformat)  # fmt: skip
near_changes = st.builds(
    lambda at, minutes: at + timedelta(minutes=minutes), changes, st.integers(-150, 150)
)
arrivals = st.builds(
    lambda at, zone: at.isoformat() + zone,
    near_changes | st.datetimes(datetime(1999, 12, 31), datetime(2100, 1, 2)),
    st.sampled_from(["", "", "Z", "-05:00", "-04:00", "+14:00", "-12:00", " UTC", "+05:45"]),
)


@pytest.mark.parametrize("examples", [60, pytest.param(2000, marks=pytest.mark.long)])
def test_whoever_leaves_as_told_arrives_by_the_time_that_predict_says(client, examples):
    taken = 0

    @bounded(examples)
    @given(arrivals, st.sampled_from([("p50", 0.5), ("p90", 0.9), ("p10", 0.1)]))
    def ask(asked, level):
        nonlocal taken
        name, p = level
        found = client.get("/leave-by", query_string={**ZONES, "arrive": asked, "p": p})
        if found.status_code == 400:
            assert found.json["error"]["field"] == "arrive"
            return
        told, taken = found.json, taken + 1
        ride = client.post("/predict", json={**ZONES, "pickup_datetime": told["leave_by"]})
        assert ride.status_code == 200, (asked, told, ride.json)
        minutes = ride.json["interval"][name]
        assert minutes == pytest.approx(told["minutes"], abs=1e-3)
        left, arrive = moment_of(told["leave_by"]), moment_of(told["arrive"])
        assert left + timedelta(minutes=minutes) <= arrive, (asked, told)
        if asked.endswith("Z"):
            assert arrive == datetime.fromisoformat(asked).replace(microsecond=0)

    ask()
    assert taken > examples / 4
