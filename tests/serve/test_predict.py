"""POST /predict: what is answered, logged, and refused."""

from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import pytest
from service_samples import RIDE, make_card, make_rides

from taxi_duration.domain.refused_values import MAX_MILES
from taxi_duration.domain.rides import NEW_YORK, Rides


def ride(**changes):
    return {**RIDE, **changes}


def post(client, content, **options):
    return client.post("/predict", json=content, **options)


def post_text(client, text, kind="application/json"):
    return client.post("/predict", data=text, content_type=kind)


def error_of(response) -> dict:
    assert response.content_type == "application/json"
    assert set(response.json) == {"error"}
    return response.json["error"]


# --- answers ----------------------------------------------------------------------------


def test_course_client_gets_a_duration(client):
    answer = post(client, {"PULocationID": 10, "DOLocationID": 50, "trip_distance": 40})
    assert answer.status_code == 200
    assert isinstance(answer.json["duration"], float)


def test_answer_has_exactly_the_fields_of_the_contract(client):
    answer = post(client, RIDE).json
    assert set(answer) == {
        "duration", "interval", "support", "model", "arm", "prediction_id", "used_distance",
    }  # fmt: skip
    assert set(answer["interval"]) == {"p10", "p50", "p90"}
    assert (answer["model"], answer["arm"]) == ("green-duration:1", "champion")


def test_interval_is_in_order(client):
    interval = post(client, RIDE).json["interval"]
    assert interval["p10"] <= interval["p50"] <= interval["p90"]


def test_online_answers_equal_offline_answers_row_by_row(client, models):
    rides, _ = make_rides(50)
    offline = models[1].answer(rides)
    for i in range(len(rides)):
        asked = {
            "PULocationID": int(rides.PULocationID[i]),
            "DOLocationID": int(rides.DOLocationID[i]),
            "trip_distance": float(rides.trip_distance[i]),
            "pickup_datetime": str(rides.pickup_at[i]),
        }
        online = post(client, asked).json
        assert online["duration"] == pytest.approx(float(offline.duration[i]), abs=1e-4)
        assert online["interval"]["p90"] == pytest.approx(float(offline.p90[i]), abs=1e-4)
        assert online["support"] == offline.support[i]


def test_an_array_is_answered_in_its_order_as_one_by_one(client):
    asked = [ride(trip_distance=miles) for miles in (9.0, 1.0, 5.0, None)]
    many = post(client, asked).json
    single = [post(client, one).json for one in asked]
    assert [a["duration"] for a in many] == pytest.approx([a["duration"] for a in single], abs=1e-4)
    assert [a["used_distance"] for a in many] == [True, True, True, False]
    assert len({a["prediction_id"] for a in many}) == 4


def test_an_empty_array_has_an_empty_answer(client):
    assert post(client, []).json == []


@pytest.mark.parametrize("missing", [{}, {"trip_distance": None}])
def test_distance_is_optional_and_the_answer_says_so(client, missing):
    answer = post(client, {"PULocationID": 74, "DOLocationID": 42, **missing}).json
    assert answer["used_distance"] is False


def test_support_is_the_past_trips_of_the_pair(client, models):
    assert post(client, RIDE).json["support"] == models[1].pair_trips[74, 42]


def test_ride_id_comes_back(client):
    assert post(client, ride(ride_id="2021/02_7")).json["ride_id"] == "2021/02_7"
    assert post(client, ride(ride_id=156)).json["ride_id"] == 156


def test_unknown_fields_are_ignored_and_named(client):
    odd = ride(passenger_count=2, fare={"a": 1})
    assert post(client, odd).json["ignored"] == ["fare", "passenger_count"]  # as the client sorts
    many = post(client, [RIDE, odd, ride(trip_distnace=2, dropoff_datetime=None)]).json
    assert [answer.get("ignored") for answer in many] == [
        None, ["fare", "passenger_count"], ["dropoff_datetime", "trip_distnace"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("lpep_pickup_datetime", "pickup_at", "2021-02-15T08:30:00"),
        ("tpep_pickup_datetime", "pickup_at", "2021-02-15T08:30:00"),
        ("Trip_Pickup_DateTime", "pickup_at", "2021-02-15T08:30:00"),
        ("pickup_at", "pickup_at", "2021-02-15T08:30:00"),
        ("trip_miles", "trip_distance", 4.5),
        ("Trip_Distance", "trip_distance", 4.5),
        ("PUlocationID", "PULocationID", 74),
        ("dolocationid", "DOLocationID", 42),
    ],
)
def test_names_that_tlc_uses_are_understood(client, log, name, field, value):
    ours = "pickup_datetime" if field == "pickup_at" else field
    asked = {other: RIDE[other] for other in RIDE if other != ours} | {name: value}
    for answer in (post(client, asked).json, *post(client, [asked, RIDE]).json):
        assert log.find(answer["prediction_id"])[field] == value
        assert "ignored" not in answer
    error = error_of(post(client, [RIDE, {**RIDE, name: value}]))
    assert (error["code"], error["field"], error["element"]) == ("duplicate_key", ours, 1)
    assert error["message"].startswith(f"element 1: {ours} comes 2 times, as ")


def test_json_with_a_byte_order_mark_is_read(client):
    body = b"\xef\xbb\xbf" + json.dumps(RIDE).encode()
    assert post_text(client, body).json["used_distance"] is True


def test_whole_floats_are_zones_too(client):
    assert post(client, ride(PULocationID=74.0)).status_code == 200


def test_explain_gives_reasons_that_add_up(client):
    answer = post(client, RIDE, query_string={"explain": "true"}).json
    assert sum(r["minutes"] for r in answer["reasons"]) == pytest.approx(
        answer["duration"], abs=0.01
    )


def test_explain_works_on_arrays(client):
    answers = post(client, [RIDE, RIDE], query_string={"explain": "true"}).json
    assert all(answer["reasons"] for answer in answers)


def test_explain_must_be_true_or_false(client):
    assert error_of(post(client, RIDE, query_string={"explain": "maybe"}))["field"] == "explain"


# --- the pickup time --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "logged"),
    [
        ("2021-02-15T08:30:00", "2021-02-15T08:30:00"),
        ("2021-02-15 08:30", "2021-02-15T08:30:00"),
        ("2021-02-15", "2021-02-15T00:00:00"),
        ("2021-02-15T13:30:00Z", "2021-02-15T08:30:00"),
        ("2021-07-15T14:30:00+02:00", "2021-07-15T08:30:00"),
        ("2021-02-15 13:30:00 UTC", "2021-02-15T08:30:00"),
        ("2021-02-15T08:30:00-05", "2021-02-15T08:30:00"),
    ],
)
def test_pickup_is_taken_as_new_york_time(client, log, given, logged):
    answer = post(client, ride(pickup_datetime=given)).json
    assert log.find(answer["prediction_id"])["pickup_at"] == logged


def test_pickup_is_now_when_missing(client, log):
    before = datetime.now(NEW_YORK).replace(tzinfo=None, microsecond=0)
    answer = post(client, {"PULocationID": 74, "DOLocationID": 42}).json
    pickup = datetime.fromisoformat(log.find(answer["prediction_id"])["pickup_at"])
    assert 0 <= (pickup - before).total_seconds() < 60


# --- the log ----------------------------------------------------------------------------


def test_every_answer_is_in_the_log_with_what_was_asked(client, log):
    answer = post(client, ride(ride_id=7)).json
    row = log.find(answer["prediction_id"])
    assert (row["PULocationID"], row["trip_distance"], row["ride_id"]) == (74, 4.5, "7")
    assert (row["duration"], row["p10"]) == (answer["duration"], answer["interval"]["p10"])
    assert (row["model"], row["arm"]) == ("green-duration:1", "champion")


def test_every_element_of_an_array_is_in_the_log(client, log):
    answers = post(client, [ride(trip_distance=float(i)) for i in range(40)]).json
    rows = {row["prediction_id"]: row for row in log.answered()}
    assert len(rows) == 40
    assert all(rows[a["prediction_id"]]["duration"] == a["duration"] for a in answers)


@pytest.mark.parametrize("content", [RIDE, [RIDE, RIDE]])
def test_without_a_log_the_answer_says_that_it_is_not_logged(make_app, models, tmp_path, content):
    from taxi_duration.live.prediction_log import open_log

    (tmp_path / "spool").write_text("a file where a folder should be")
    log = open_log(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "spool")
    client = make_app(model=(models[1], make_card(1, "LR")), log=log).test_client()
    response = post(client, content)
    answers = response.json if isinstance(response.json, list) else [response.json]
    assert response.status_code == 200
    assert [answer["logged"] for answer in answers] == [False] * len(answers)
    assert f"taxi_log_failures_total {float(len(answers))}" in client.get("/metrics").text
    assert "taxi_log_writable 0.0" in client.get("/metrics").text


# --- bad input --------------------------------------------------------------------------


BAD_FIELDS = [
    ("PULocationID", 0),
    ("PULocationID", 266),
    ("PULocationID", -1),
    ("PULocationID", 10.5),
    ("PULocationID", True),
    ("PULocationID", "10"),
    ("PULocationID", None),
    ("PULocationID", [10]),
    ("PULocationID", 2**70),
    ("PULocationID", 10**400),
    ("DOLocationID", 0),
    ("DOLocationID", False),
    ("DOLocationID", {}),
    ("trip_distance", -0.1),
    ("trip_distance", MAX_MILES * 2),
    ("trip_distance", True),
    ("trip_distance", "4.5"),
    ("trip_distance", []),
    ("trip_distance", 10**400),
    ("pickup_datetime", "yesterday"),
    ("pickup_datetime", ""),
    ("pickup_datetime", "2021-13-01T00:00:00"),
    ("pickup_datetime", "0001-01-01T00:00:00+14:00"),
    ("pickup_datetime", "9999-12-31T23:59:59-12:00"),
    ("pickup_datetime", 1613377800),
    ("pickup_datetime", "2" * 50),
    ("ride_id", "x" * 101),
    ("ride_id", "a\u0000b"),
    ("ride_id", "\ud800"),
    ("ride_id", 10**101),
    ("ride_id", 1.5),
    ("ride_id", True),
]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_a_bad_value_is_refused_by_the_name_of_its_field(client, field, value):
    response = post_text(client, json.dumps(ride(**{field: value})))
    error = error_of(response)
    assert response.status_code == 400
    assert error["field"] == field
    assert error["message"].startswith(f"{field} is ")


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_in_an_array_the_error_says_which_element(client, field, value):
    response = post_text(client, json.dumps([RIDE, RIDE, ride(**{field: value}), RIDE]))
    error = error_of(response)
    assert response.status_code == 400
    assert (error["field"], error["element"]) == (field, 2)
    assert error["message"].startswith("element 2: ")


@pytest.mark.parametrize("field", ["PULocationID", "DOLocationID"])
def test_a_missing_field_is_named(client, field):
    asked = {name: value for name, value in RIDE.items() if name != field}
    assert error_of(post(client, asked))["field"] == field
    assert error_of(post(client, [RIDE, asked]))["element"] == 1


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_refused(client, number):
    text = '{"PULocationID": 10, "DOLocationID": 5, "trip_distance": NUMBER}'
    for body, element in ((text, None), (f"[{json.dumps(RIDE)}, {text}]", 1)):
        response = post_text(client, body.replace("NUMBER", number))
        error = error_of(response)
        assert response.status_code == 400
        assert (error["field"], error.get("element")) == ("trip_distance", element)
        assert f"trip_distance is {number}; it must be miles" in error["message"]


def test_such_numbers_are_refused_in_fields_that_are_ignored_too(client):
    text = '{"PULocationID": 10, "DOLocationID": 5, "surge": NaN}'
    error = error_of(post_text(client, text))
    assert (error["code"], error["field"]) == ("bad_json", None)
    assert "NaN" in error["message"]


def test_a_number_that_overflows_to_infinity_is_refused(client):
    text = '{"PULocationID": 10, "DOLocationID": 5, "trip_distance": 1e999}'
    assert error_of(post_text(client, text))["field"] == "trip_distance"


@pytest.mark.parametrize("element", ["", "[%s]"])
def test_a_key_that_comes_twice_is_refused(client, element):
    text = '{"PULocationID": 10, "DOLocationID": 5, "PULocationID": 11}'
    response = post_text(client, element % text if element else text)
    error = error_of(response)
    assert (response.status_code, error["code"], error["field"]) == (
        400,
        "duplicate_key",
        "PULocationID",
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"5",
        b'"ride"',
        b"[[]]",
        b"[null]",
        b'{"PULocationID": 10',
        b'\xff\xfe{"PULocationID": 10}',
        b'{"ride_id": "\xff"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"PULocationID": ' + b"9" * 5000 + b"}",
        '{"PULocationID": 10}'.encode("utf-16"),
    ],
)
def test_what_is_not_a_ride_in_json_is_refused(client, body):
    response = post_text(client, body)
    assert response.status_code == 400
    assert error_of(response)["message"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""]
)
def test_other_types_are_refused_and_the_right_ones_named(client, kind):
    response = post_text(client, json.dumps(RIDE), kind)
    assert response.status_code == 415
    assert "application/json" in error_of(response)["message"]


def test_charset_and_vendor_json_are_accepted(client):
    assert post_text(client, json.dumps(RIDE), "application/json; charset=UTF-8").status_code == 200
    assert post_text(client, json.dumps(RIDE), "application/geo+json").status_code == 200


def test_other_charsets_and_compression_are_refused(client):
    kind = "application/json; charset=latin-1"
    assert post_text(client, json.dumps(RIDE), kind).status_code == 415
    packed = client.post("/predict", json=RIDE, headers={"Content-Encoding": "gzip"})
    assert packed.status_code == 415


def test_a_body_too_large_is_refused(make_app, models):
    app = make_app({"MAX_CONTENT_LENGTH": 1000}, model=(models[1], make_card(1, "LR")))
    response = app.test_client().post("/predict", json=[RIDE] * 100)
    assert response.status_code == 413
    assert error_of(response)["code"] == "too_large"


def test_an_array_too_long_is_refused_and_one_just_long_enough_is_not(make_app, models):
    client = make_app({"MAX_RIDES": 3}, model=(models[1], make_card(1, "LR"))).test_client()
    assert client.post("/predict", json=[RIDE] * 3).status_code == 200
    response = client.post("/predict", json=[RIDE] * 4)
    assert response.status_code == 413
    assert "at most 3" in error_of(response)["message"]


def test_other_methods_are_refused_as_json(client):
    response = client.get("/predict")
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]
    error = error_of(response)
    assert error["code"] == "method_not_allowed"
    assert error["message"] == "GET is not possible at /predict; it takes OPTIONS, POST"


def test_rides_that_are_refused_are_not_logged(client, log):
    post(client, [RIDE, ride(PULocationID=0)])
    assert log.counts()["predictions"] == 0


def test_answers_are_plain_numbers_for_every_pair_of_zones(client):
    zones = np.arange(1, 266)
    asked = [
        {"PULocationID": int(z), "DOLocationID": int(zones[-i])} for i, z in enumerate(zones, 1)
    ]
    answers = post(client, asked).json
    assert all(np.isfinite(answer["duration"]) for answer in answers)


def test_columns_of_rides_are_what_the_model_is_asked(models, make_app):
    """The service adds nothing of its own to what the rider says."""
    asked: list[Rides] = []

    class Spy:
        kind = "LR"

        def __getattr__(self, name):
            return getattr(models[1], name)

        def for_riders(self):
            return self

        def answer(self, rides):
            asked.append(rides)
            return models[1].answer(rides)

    client = make_app(model=(Spy(), make_card(1, "LR"))).test_client()
    client.post("/predict", json=[RIDE, ride(trip_distance=None)])
    assert asked[-1].PULocationID.tolist() == [74, 74]
    assert asked[-1].pickup_at.astype(str).tolist() == ["2021-02-15T08:30:00"] * 2
    assert np.array_equal(asked[-1].trip_distance, [4.5, np.nan], equal_nan=True)
