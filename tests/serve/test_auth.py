"""Optional API keys."""

from __future__ import annotations

import base64

import pytest
from service_samples import RIDE, make_card

from taxi_duration.errors import SettingError

KEYED = [
    ("POST", "/predict"),
    ("POST", "/feedback"),
    ("POST", "/invocations"),
    ("GET", "/profile"),
    ("GET", "/leave-by"),
    ("GET", "/reach"),
]


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture
def keyed(make_app, models):
    """A client of a service that two keys open."""
    settings = {"API_KEYS": ("first-key", "schlüssel")}
    return make_app(settings, model=(models[1], make_card(1, "LR"))).test_client()


@pytest.mark.parametrize(("verb", "path"), KEYED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "first-ke"},
        {"Authorization": "Basic first-key"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": basic("first-key", "")},
        {"Authorization": basic("", "wrong")},
        {"Authorization": "Basic Zmlyc3Q"},
    ],
)
def test_without_a_right_key_nobody_is_let_in(keyed, verb, path, headers):
    response = keyed.open(path, method=verb, json=RIDE, headers=headers)
    assert response.status_code == 401
    assert response.json["error"]["code"] == "unauthorized"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "first-key"},
        {"Authorization": "Bearer first-key"},
        {"Authorization": basic("", "first-key")},
        {"X-API-Key": "schlüssel".encode().decode("latin-1")},  # UTF-8, as WSGI hands it over
    ],
)
def test_with_a_key_one_is_let_in(keyed, headers):
    assert keyed.post("/predict", json=RIDE, headers=headers).status_code == 200


INSIDE = ["/metrics", "/model", "/monitor", "/monitor/data", "/monitor/report"]
HERE = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:9696", "SERVER_PROTOCOL": "HTTP/1.1"}
ELSEWHERE = [
    {"REMOTE_ADDR": "203.0.113.7"},
    {"REMOTE_ADDR": "172.17.0.1"},
    {"REMOTE_ADDR": "::ffff:203.0.113.7"},
    {"REMOTE_ADDR": ""},
    {"REMOTE_ADDR": "unix:"},
    # A proxy on this machine, by what it adds or passes on.
    {"HTTP_X_FORWARDED_FOR": "203.0.113.7"},
    {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
    {"HTTP_X_FORWARDED_PROTO": "https"},
    {"HTTP_FORWARDED": "for=127.0.0.1"},
    {"HTTP_VIA": "1.1 proxy"},
    {"HTTP_X_REAL_IP": "127.0.0.1"},
    {"HTTP_X_ENVOY_EXTERNAL_ADDRESS": "127.0.0.1"},
    {"HTTP_CF_CONNECTING_IP": "203.0.113.7"},
    {"HTTP_HOST": "taxi.example.org"},
    {"HTTP_HOST": "127.0.0.1.example.org"},
    {"HTTP_HOST": "localhost.example.org:9696"},
    {"HTTP_HOST": ""},
    {"SERVER_PROTOCOL": "HTTP/1.0"},  # nginx, when it is told no more than where to pass on
]


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/docs", "/openapi.json", "/ping", "/", "/zones"]
)
@pytest.mark.parametrize("access", ["local", "key"])
def test_the_rest_is_open(make_app, models, path, access):
    settings = {"API_KEYS": ("first-key",), "MONITOR_ACCESS": access}
    client = make_app(settings, model=(models[1], make_card(1, "LR"))).test_client()
    assert client.get(path, environ_overrides={"REMOTE_ADDR": "203.0.113.7"}).status_code == 200


@pytest.mark.parametrize("path", INSIDE)
def test_the_inside_is_shown_to_this_machine_or_for_a_key(keyed, path):
    right = {200, 404}  # there may be no report
    assert keyed.get(path, environ_overrides=HERE).status_code in right
    assert keyed.get(path, environ_overrides={**HERE, "REMOTE_ADDR": "::1"}).status_code in right
    there = {**HERE, "REMOTE_ADDR": "203.0.113.7"}
    refused = keyed.get(path, environ_overrides=there)
    assert (refused.status_code, refused.json["error"]["code"]) == (401, "unauthorized")
    for headers in ({"X-API-Key": "first-key"}, {"Authorization": basic("anybody", "schlüssel")}):
        response = keyed.get(path, environ_overrides=there, headers=headers)
        assert response.status_code in right


@pytest.mark.parametrize("other", ELSEWHERE, ids=str)
def test_what_comes_through_a_proxy_or_from_elsewhere_is_not_of_this_machine(keyed, other):
    for path in INSIDE:
        assert keyed.get(path, environ_overrides={**HERE, **other}).status_code == 401


@pytest.mark.parametrize("host", ["localhost", "localhost:9696", "[::1]:9696", "LOCALHOST:1"])
def test_this_machine_may_call_itself_by_any_of_its_names(keyed, host):
    assert keyed.get("/model", environ_overrides={**HERE, "HTTP_HOST": host}).status_code == 200


def test_who_may_look_inside_can_be_set(monkeypatch, make_app, models):
    monkeypatch.setenv("API_KEYS", "one")
    there = {**HERE, "REMOTE_ADDR": "203.0.113.7"}
    found = {}
    for access in ("local", "key", "open"):
        monkeypatch.setenv("MONITOR_ACCESS", access)
        client = make_app(model=(models[1], make_card(1, "LR"))).test_client()
        found[access] = [
            client.get("/model", environ_overrides=e).status_code for e in (HERE, there)
        ]
    assert found == {"local": [200, 401], "key": [401, 401], "open": [200, 200]}
    monkeypatch.setenv("MONITOR_ACCESS", "nobody")
    with pytest.raises(SettingError, match="MONITOR_ACCESS is 'nobody'"):
        make_app()


@pytest.mark.parametrize(
    ("accept", "scheme"),
    [("text/html,application/xhtml+xml", 'Basic realm="taxi-duration"'), ("*/*", "Bearer")],
)
def test_a_browser_that_opens_a_page_is_asked_for_the_key(keyed, accept, scheme):
    there = {**HERE, "REMOTE_ADDR": "203.0.113.7"}
    response = keyed.get("/monitor", environ_overrides=there, headers={"Accept": accept})
    assert response.headers["WWW-Authenticate"].startswith(scheme)


def test_the_document_says_what_needs_a_key(keyed, client):
    paths = keyed.get("/openapi.json").json["paths"]
    secured = {path for path, verbs in paths.items() for v in verbs.values() if "security" in v}
    open_inference = {path for path in paths if path.startswith("/v2")}
    open_inference = {path for path in open_inference if not path.endswith(("/live", "/ready"))}
    assert secured == {path for _, path in KEYED} | set(INSIDE) | open_inference
    assert all("401" in v["responses"] for path in secured for v in paths[path].values())
    assert "security" not in client.get("/openapi.json").text


def test_without_keys_everybody_is_let_in(client):
    assert client.post("/predict", json=RIDE).status_code == 200


def test_keys_come_from_the_environment(monkeypatch, make_app, models):
    monkeypatch.setenv("API_KEYS", "one, two")
    client = make_app(model=(models[1], make_card(1, "LR"))).test_client()
    assert client.post("/predict", json=RIDE).status_code == 401
    assert client.post("/predict", json=RIDE, headers={"X-API-Key": "two"}).status_code == 200
