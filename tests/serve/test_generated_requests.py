"""Requests nobody thought of: no 500, whatever is sent."""

from __future__ import annotations

import json
from contextlib import suppress

import hypothesis.strategies as st
import pytest
from examples import bounded
from hypothesis import given
from hypothesis.errors import Unsatisfiable
from service_samples import RIDE

from serve import create_app
from serve.app import close_app
from taxi_duration.live.prediction_log import open_log

FEW, MANY = 30, 1200
CHECKED = {400, 404, 405, 413, 415, 422}


@pytest.fixture(scope="module")
def client(models, tmp_path_factory):
    """One service for all generated requests."""
    from service_samples import make_card

    folder = tmp_path_factory.mktemp("live")
    log = open_log(f"sqlite:///{folder / 'predictions.db'}", folder / "spool")
    app = create_app({"BACKGROUND": False, "MAX_RIDES": 100}, (models[1], make_card(1, "LR")), log)
    yield app.test_client()
    close_app(app)


# --- from our own OpenAPI document ------------------------------------------------------


def schema_of(client):
    """Our own document, asked in this process."""
    import schemathesis  # here, for each worker imports this file and one runs the test

    return schemathesis.openapi.from_wsgi("/openapi.json", client.application)


def check_operations(schema, examples: int) -> int:
    """Send generated requests, right and wrong, to every operation; return how many."""
    import schemathesis

    sent = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in schemathesis.GenerationMode:

            @bounded(examples)
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                nonlocal sent
                sent += 1
                response = case.call()
                assert response.status_code < 500, case.as_curl_command()
                case.validate_response(
                    response,
                    checks=[
                        schemathesis.checks.not_a_server_error,
                        schemathesis.checks.content_type_conformance,
                        schemathesis.checks.response_schema_conformance,
                    ],
                )

            with suppress(Unsatisfiable):  # there is no wrong way to ask for /health
                ask()
    return sent


def test_every_operation_answers_generated_requests_as_described(client):
    assert check_operations(schema_of(client), 4) > 30


@pytest.mark.long
def test_a_thousand_requests_of_the_document_bring_no_500(client):
    assert check_operations(schema_of(client), 120) > 1000


# --- from what rides look like ----------------------------------------------------------

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
almost_rides = st.fixed_dictionaries(
    {
        "PULocationID": st.integers(-2, 270) | anything,
        "DOLocationID": st.integers(1, 265) | anything,
    },
    optional={
        "trip_distance": st.floats(-1, 1e7) | anything,
        "pickup_datetime": st.datetimes(timezones=st.none() | st.timezones()).map(
            lambda at: at.isoformat()
        )
        | st.text(max_size=30)
        | anything,
        "ride_id": st.text(max_size=120) | st.integers() | anything,
        "surge": anything,
    },
)


def check_answer(response, asked) -> None:
    """A ride is answered with numbers in order, or refused by the name of a field."""
    if response.status_code == 200:
        answers = response.json if isinstance(asked, list) else [response.json]
        for answer in answers:
            interval = answer["interval"]
            assert interval["p10"] <= interval["p50"] <= interval["p90"] <= 60
            assert isinstance(answer["duration"], float)
    else:
        assert response.status_code in CHECKED, response.text
        assert set(response.json["error"]) >= {"code", "message", "field"}


@pytest.mark.parametrize(
    "examples", [FEW, pytest.param(MANY, marks=pytest.mark.long)], ids=["few", "many"]
)
def test_rides_that_are_almost_right_are_answered_or_refused(client, examples):
    @bounded(examples)
    @given(almost_rides | st.lists(almost_rides, max_size=5))
    def ask(asked):
        response = client.post("/predict", data=json.dumps(asked), content_type="application/json")
        check_answer(response, asked)

    ask()


@pytest.mark.parametrize(
    "examples", [FEW, pytest.param(MANY, marks=pytest.mark.long)], ids=["few", "many"]
)
@pytest.mark.parametrize("path", ["/predict", "/feedback", "/invocations"])
@pytest.mark.parametrize(
    "kind", ["application/json", "text/csv", "application/x-www-form-urlencoded", "\x7f/\xff"]
)
def test_any_bytes_are_answered_or_refused(client, path, kind, examples):
    good = json.dumps(RIDE).encode()

    @bounded(examples)
    @given(
        st.binary(max_size=200)
        | st.tuples(st.integers(0, len(good)), st.binary(max_size=5)).map(
            lambda cut: good[: cut[0]] + cut[1] + good[cut[0] + 1 :]
        )
    )
    def ask(body):
        response = client.post(path, data=body, content_type=kind)
        assert response.status_code in {200, *CHECKED}, response.text

    ask()


@pytest.mark.parametrize(
    "examples", [FEW, pytest.param(MANY, marks=pytest.mark.long)], ids=["few", "many"]
)
def test_any_query_is_answered_or_refused(client, examples):
    values = st.text(max_size=20) | st.integers().map(str) | st.floats().map(str)

    @bounded(examples)
    @given(
        st.sampled_from(["/profile", "/leave-by", "/reach", "/predict"]),
        st.dictionaries(
            st.sampled_from(
                ["PULocationID", "DOLocationID", "arrive", "date", "p", "explain", "when"]
            ),
            values | st.integers(1, 265).map(str),
        ),
    )
    def ask(path, query):
        query = {name: value.encode("utf-8", "ignore").decode() for name, value in query.items()}
        response = client.get(path, query_string=query)
        assert response.status_code in {200, *CHECKED}, response.text

    ask()


def test_the_quick_way_and_the_thorough_way_agree(client):
    """Rides that the quick decoder takes are those that the thorough one takes, and equal."""
    from serve.bodies.errors import ApiError
    from serve.bodies.json_text import read_json
    from serve.bodies.ride_body import _quick_rides
    from taxi_duration.domain.asked_rides import Ride, check

    taken = 0

    @bounded(300)
    @given(almost_rides)
    def compare(asked):
        nonlocal taken
        body = json.dumps(asked).encode()
        quick = _quick_rides(body)
        if quick is not None:
            thorough = check(read_json(body), Ride)
            assert [getattr(quick, n) for n in Ride.__struct_fields__] == [
                getattr(thorough, n) for n in Ride.__struct_fields__
            ]
            taken += 1

    compare()
    assert taken > 0
    for twice in (
        b'"DOLocationID": 3',
        b'"ride_id": "a", "ride_id": "b"',
        b'"ride_id": "a", "ride_id": 1',
        b'"ride_id": 1, "ride_id": null',
        b'"trip_distance": null',
        b'"pickup_datetime": "2021-02-15", "pickup_datetime": "2021-02-16"',
    ):
        ride = b'{"PULocationID": 1, "DOLocationID": 2, %b}' % twice
        assert _quick_rides(ride) is None
        assert _quick_rides(b'[%b, {"PULocationID": 1, "DOLocationID": 2}]' % ride) is None
    named = b'{"PULocationID": 1, "DOLocationID": 2, "ride_id": "ride_id"}'
    assert _quick_rides(named).ride_id == "ride_id"
    with pytest.raises(ApiError, match="twice"):
        read_json(b'{"PULocationID": 1, "DOLocationID": 2, "DOLocationID": 3}')
