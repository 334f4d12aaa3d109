"""POST /feedback: kept once, before the answer; what nobody knows is said."""

from __future__ import annotations

import pytest
from service_samples import RIDE, make_card

from taxi_duration.live.prediction_log import open_log

ARM = 'arm="champion",version="green-duration:1"'


@pytest.fixture
def prediction(client) -> dict:
    """An answered ride."""
    return client.post("/predict", json=RIDE).json


def give(client, content):
    return client.post("/feedback", json=content)


def about(prediction_id: str, duration: float = 18.0) -> dict:
    return {"prediction_id": prediction_id, "duration": duration}


def test_feedback_on_a_fresh_prediction_is_kept(client, log, prediction):
    answer = give(client, about(prediction["prediction_id"]))
    assert answer.status_code == 200
    assert answer.json == {"known": [prediction["prediction_id"]], "unknown": [], "duplicate": []}
    assert log.find(prediction["prediction_id"])["true_duration"] == 18.0


def test_feedback_is_idempotent(client, log, prediction):
    give(client, about(prediction["prediction_id"], 18.0))
    again = give(client, about(prediction["prediction_id"], 30.0))
    assert again.json["duplicate"] == [prediction["prediction_id"]]
    assert log.find(prediction["prediction_id"])["true_duration"] == 18.0


def test_unknown_ids_are_said_and_the_others_kept(client, prediction):
    answer = give(client, [about("nobody"), about(prediction["prediction_id"])]).json
    assert answer["unknown"] == ["nobody"]
    assert answer["known"] == [prediction["prediction_id"]]


def test_feedback_finds_predictions_of_an_earlier_process(make_app, models, log, client):
    before = client.post("/predict", json=RIDE).json["prediction_id"]
    later = make_app(model=(models[1], make_card(1, "LR"))).test_client()
    assert give(later, about(before)).json["known"] == [before]


def test_feedback_is_counted_by_version_and_arm(client, metric, prediction):
    give(
        client, [about(prediction["prediction_id"], prediction["duration"] + 2.2), about("nobody")]
    )
    assert metric(f"taxi_feedback_total{{{ARM}}}") == 1
    assert metric("taxi_feedback_unknown_total") == 1
    assert metric(f"taxi_absolute_error_minutes_sum{{{ARM}}}") == pytest.approx(2.2)


@pytest.mark.parametrize(
    ("place", "covered"), [("p10", 1), ("p50", 1), ("p90", 1), ("below", 0), ("above", 0)]
)
def test_coverage_counts_what_lies_within_the_interval(client, metric, prediction, place, covered):
    interval = prediction["interval"]
    true = {**interval, "below": interval["p10"] * 0.9, "above": interval["p90"] + 1}
    give(client, about(prediction["prediction_id"], true[place]))
    assert metric(f"taxi_interval_covered_total{{{ARM}}}") == covered


def test_a_repeat_is_not_counted_again(client, metric, prediction):
    for _ in range(3):
        give(client, about(prediction["prediction_id"]))
    assert metric(f"taxi_feedback_total{{{ARM}}}") == 1


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"duration": 5}, "prediction_id"),
        ({"prediction_id": "a"}, "duration"),
        ({"prediction_id": "", "duration": 5}, "prediction_id"),
        ({"prediction_id": 5, "duration": 5}, "prediction_id"),
        ({"prediction_id": "x" * 101, "duration": 5}, "prediction_id"),
        ({"prediction_id": "a", "duration": 0}, "duration"),
        ({"prediction_id": "a", "duration": -1}, "duration"),
        ({"prediction_id": "a", "duration": "5"}, "duration"),
        ({"prediction_id": "a", "duration": True}, "duration"),
        ({"prediction_id": "a", "duration": 1e9}, "duration"),
        ({"prediction_id": "a", "duration": None}, "duration"),
    ],
)
def test_bad_feedback_is_refused_by_the_name_of_its_field(client, content, field):
    alone, among = give(client, content), give(client, [about("a"), content])
    assert (alone.status_code, among.status_code) == (400, 400)
    assert alone.json["error"]["field"] == field
    assert among.json["error"]["element"] == 1


@pytest.mark.parametrize("content", [5, "text", [5], [None]])
def test_what_is_no_feedback_is_refused(client, content):
    assert give(client, content).status_code == 400


@pytest.mark.parametrize("prediction_id", ["a\u0000b", "\ud800", "a b"])
def test_ids_that_cannot_be_stored_are_refused(client, prediction_id):
    response = client.post("/feedback", json=about(prediction_id))
    assert response.status_code == 400
    assert response.json["error"]["field"] == "prediction_id"


def test_feedback_must_be_json(client):
    assert client.post("/feedback", data="x", content_type="text/plain").status_code == 415


def test_feedback_that_cannot_be_kept_is_not_acknowledged(make_app, models, tmp_path):
    (tmp_path / "blocked").write_text("")
    log = open_log(f"sqlite:///{tmp_path / 'blocked' / 'x.db'}", tmp_path / "spool")
    client = make_app(model=(models[1], make_card(1, "LR")), log=log).test_client()
    response = give(client, about("a"))
    assert response.status_code == 503
    assert response.json["error"]["code"] == "log_unavailable"
    assert response.headers["Retry-After"]


# --- which truths count ---------------------------------------------------------------------


def asked(client, n: int) -> list[dict]:
    return client.post("/predict", json=[RIDE] * n).json


def test_only_scored_durations_have_an_error(client, metric):
    """One of each kind; the error and the coverage are the first one's alone."""
    first, *others = asked(client, 5)
    minutes = [first["interval"]["p50"], 0.5, 90.0, 2000.0, 60.5]
    told = zip([first, *others], minutes, strict=True)
    give(client, [about(answer["prediction_id"], true) for answer, true in told])
    assert metric(f"taxi_feedback_total{{{ARM}}}") == 5
    assert metric(f"taxi_feedback_outside_total{{{ARM}}}") == 3
    assert metric('taxi_feedback_quarantined_total{reason="whole_day"}') == 1
    assert metric(f"taxi_absolute_error_minutes_count{{{ARM}}}") == 1
    error = abs(first["duration"] - first["interval"]["p50"])
    assert metric(f"taxi_absolute_error_minutes_sum{{{ARM}}}") == pytest.approx(error, abs=1e-3)
    assert metric(f"taxi_interval_covered_total{{{ARM}}}") == 1


def test_a_call_in_hours_is_counted_as_such(client, metric):
    answers = asked(client, 25)
    give(client, [about(a["prediction_id"], a["duration"] / 60) for a in answers])
    assert metric('taxi_feedback_quarantined_total{reason="off_by_factor"}') == 25
    assert metric(f"taxi_feedback_outside_total{{{ARM}}}") == 0


def test_voided_feedback_is_gone_and_given_again(client, log, prediction, metric):
    name = prediction["prediction_id"]
    give(client, about(name, 50.0))
    assert log.void_feedback(0.0, 1e12, "ann", "wrong") == 1
    assert log.find(name)["true_duration"] is None
    assert give(client, about(name, 20.0)).json["known"] == [name]
    assert log.find(name)["true_duration"] == 20.0
