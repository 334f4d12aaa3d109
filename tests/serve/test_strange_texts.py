"""Texts and numbers that JSON can write and others cannot hold: refused in words, never a 500."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from examples import bounded
from hypothesis import given
from service_samples import RIDE, make_card

from serve import create_app
from serve.app import close_app
from taxi_duration.live.prediction_log import open_log

HALF = "\ud800"
UNREAD = {"PULocationID": 74, "DOLocationID": 42}
EVERYWHERE = [
    {**UNREAD, "PULocationID": HALF},
    {**UNREAD, HALF: 1},
    {**UNREAD, "surge": [{"nested": [HALF]}]},
    {**UNREAD, "ride_id": f"ride {HALF}"},
    {**UNREAD, "pickup_datetime": HALF},
    [UNREAD, {**UNREAD, "ride_id": HALF}],
    HALF,
    [HALF],
    {"prediction_id": HALF, "duration": 3},
    [{"prediction_id": "known", "duration": 3, HALF: None}],
    {"dataframe_records": [{**UNREAD, "ride_id": HALF}]},
    {"dataframe_split": {"columns": [HALF, "PULocationID"], "data": [[1, 2]]}},
    {"dataframe_split": {"columns": ["PULocationID", "ride_id"], "data": [[1, HALF]]}},
    {"instances": [{**UNREAD, HALF: HALF}]},
    {"instances": {"PULocationID": [1], "DOLocationID": [HALF]}},
    {"inputs": {HALF: [1]}},
    {"params": {"x": HALF}, "inputs": [UNREAD]},
]
every_path = pytest.mark.parametrize("path", ["/predict", "/invocations", "/feedback"])


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """One log for all requests of this file."""
    folder = tmp_path_factory.mktemp("live")
    log = open_log(f"sqlite:///{folder / 'predictions.db'}", folder / "spool")
    yield log
    log.close()


@pytest.fixture(scope="module")
def client(models, log):
    """One service for all requests of this file."""
    app = create_app({"BACKGROUND": False}, (models[1], make_card(1, "LR")), log)
    yield app.test_client()
    close_app(app)


def post(client, path, content):
    body = content if isinstance(content, str | bytes) else json.dumps(content)
    return client.post(path, data=body, content_type="application/json")


@every_path
@pytest.mark.parametrize("content", EVERYWHERE, ids=range(len(EVERYWHERE)))
def test_half_a_surrogate_pair_is_refused_in_words(client, path, content):
    response = post(client, path, json.dumps(content))
    assert response.status_code == 400
    assert "\\ud800, half of a surrogate pair" in response.json["error"]["message"]


def test_the_refusal_names_the_field_and_the_element(client):
    error = post(client, "/predict", [UNREAD, {**UNREAD, "ride_id": HALF}]).json["error"]
    assert (error["code"], error["field"], error["element"]) == ("bad_value", "ride_id", 1)
    assert error["message"].startswith("element 1: ride_id is a text with \\ud800")
    error = post(client, "/predict", {**UNREAD, HALF: 1}).json["error"]
    assert (error["code"], error["field"]) == ("bad_json", None)


def test_whole_pairs_and_texts_that_look_like_halves_are_texts(client, log):
    for written, said in (('"\\ud83d\\ude00"', "\U0001f600"), ('"\\\\ud800"', "\\ud800")):
        body = json.dumps(UNREAD)[:-1] + f', "ride_id": {written}}}'
        answer = post(client, "/predict", body)
        assert (answer.status_code, answer.json["ride_id"]) == (200, said)
        assert log.find(answer.json["prediction_id"])["ride_id"] == said


@every_path
@pytest.mark.parametrize(
    "number", ["1e400", "-1e400", "9" * 400, "9" * 10**5, "-" + "9" * 10**5, "0." + "1" * 10**5]
)
@pytest.mark.parametrize(
    "field", ["PULocationID", "trip_distance", "duration", "prediction_id", "pickup_datetime"]
)
def test_numbers_beyond_all_measure_are_refused(client, path, field, number):
    body = '{"PULocationID": 74, "DOLocationID": 42, "%s": %s}' % (field, number)  # noqa: UP031
    response = post(client, path, body)
    # A fraction of a hundred thousand digits is a distance, and a field that is not read is none.
    assert response.status_code == 400 or (
        path == "/predict" and (field in ("duration", "prediction_id") or number[0] == "0")
    )
    assert response.status_code < 500
    assert len(response.text) < 2000


@pytest.mark.parametrize("length", [20, 99, 100])
def test_a_whole_number_is_an_id_of_the_ride_up_to_its_length(client, log, length):
    ride_id = int("7" * length)
    for content in ({**UNREAD, "ride_id": ride_id}, [{**UNREAD, "ride_id": ride_id}]):
        answer = post(client, "/predict", content)
        (given,) = answer.json if isinstance(content, list) else [answer.json]
        assert given["ride_id"] == ride_id
        assert log.find(given["prediction_id"])["ride_id"] == str(ride_id)
    assert post(client, "/predict", {**UNREAD, "ride_id": int("7" * 101)}).status_code == 400


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"PULocationID":'])
@every_path
def test_deep_nesting_is_refused(client, path, opening):
    response = post(client, path, opening * 100_000)
    assert response.status_code == 400


@pytest.mark.parametrize("field", ["ride_id", "pickup_datetime"])
@pytest.mark.parametrize("nul", ["\0", "2021-02-15T08:30:00\0", "\0" * 40])
def test_a_nul_is_refused(client, field, nul):
    for content in ({**UNREAD, field: nul}, [{**UNREAD, field: nul}]):
        error = post(client, "/predict", content)
        assert (error.status_code, error.json["error"]["field"]) == (400, field)


def test_what_came_is_told_in_part_however_long_it_is(client):
    for value in ("x" * 10**6, ["x"] * 10**5, {"x" * 10**6: 1}, "\x1b[31m\r\n" * 10**5):
        error = post(client, "/predict", {**UNREAD, "PULocationID": value}).json["error"]
        assert len(error["message"]) < 300
        assert error["message"].isprintable()


@pytest.mark.parametrize(
    "path", ["/v2//models", "/v2///health/live", "/monitor//data", "/static///ride.js", "/predict/"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_another_spelling_of_a_path_is_nothing_and_leads_nowhere(client, path, method):
    answer = client.open(path, method=method)
    assert (answer.status_code, answer.headers.get("Location")) == (404, None)
    assert method == "HEAD" or answer.json["error"]


# --- generated ------------------------------------------------------------------------------

letters = st.characters(codec=None, exclude_categories=()) | st.sampled_from("\ud800\udfff\0\x7f")
texts = st.text(letters, max_size=10)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts
    | st.sampled_from([10**19, 2**63, 2**64, -(2**64), 10**400, 1e308, -0.0]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
rides = st.dictionaries(
    st.sampled_from(list(RIDE)) | st.just("ride_id") | texts, anything
) | st.builds(
    lambda more: {**RIDE, **more},
    st.dictionaries(
        st.sampled_from(["ride_id", "trip_distance", "pickup_datetime"]) | texts, anything
    ),
)
feedback = st.fixed_dictionaries(
    {"prediction_id": texts | anything, "duration": st.floats() | anything}
)
frames = st.sampled_from(["dataframe_records", "dataframe_split", "instances", "inputs"]).flatmap(
    lambda name: st.fixed_dictionaries({name: st.lists(rides, max_size=3) | anything})
)
splits = st.fixed_dictionaries(
    {
        "dataframe_split": st.fixed_dictionaries(
            {"columns": st.lists(texts | st.sampled_from(list(RIDE)), max_size=4),
             "data": st.lists(st.lists(anything, max_size=4), max_size=3)}
        )
    }
)  # fmt: skip
CHECKED = {200, 400, 401, 404, 405, 413, 415, 422}


many = pytest.mark.parametrize(
    "examples", [60, pytest.param(1500, marks=pytest.mark.long)], ids=["few", "many"]
)


@many
def test_whatever_a_body_says_is_answered_or_refused(client, examples):
    @bounded(examples)
    @given(
        st.sampled_from(["/predict", "/predict?explain=1", "/invocations", "/feedback"]),
        rides | st.lists(rides, max_size=3) | feedback | st.lists(feedback) | frames | splits,
    )
    def ask(path, content):
        response = post(client, path, json.dumps(content))
        assert response.status_code in CHECKED, response.text
        assert response.json is not None  # JSON that a strict reader takes

    ask()


@many
def test_whatever_headers_and_addresses_say_is_answered_or_refused(make_app, models, examples):
    settings = {"API_KEYS": ("key",), "MONITOR_ACCESS": "local"}
    client = make_app(settings, model=(models[1], make_card(1, "LR"))).test_client()
    # As servers hand them over: bytes as Latin-1, without line ends.
    bytes_ = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=30)
    names = ["X-API-Key", "Authorization", "Accept", "Content-Type", "Content-Encoding", "Host",
             "Forwarded", "X-Forwarded-For", "Cookie", "Range", "If-None-Match"]  # fmt: skip

    @bounded(examples)
    @given(
        st.sampled_from(["/predict", "/feedback", "/metrics", "/monitor/data", "/model", "/profile",
                         "/leave-by", "/ready", "/static/dom.js"]),
        st.dictionaries(st.sampled_from(names), bytes_ | bytes_.map("Basic {}".format), max_size=4),
        st.binary(max_size=30).map(lambda raw: "".join(f"%{byte:02x}" for byte in raw)),
        st.sampled_from(["GET", "POST", "PUT", "OPTIONS", "TRACE"]),
    )  # fmt: skip
    def ask(path, headers, query, verb):
        address = f"{path}?explain={query}&PULocationID={query}&date={query}&{query}=1"
        response = client.open(address, method=verb, headers=headers, data=b"{}")
        assert response.status_code in {*CHECKED, 206, 304, 416}, response.text

    ask()
