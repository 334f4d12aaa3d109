"""Optional API keys."""

from __future__ import annotations

import pytest
from service_samples import RIDE, make_card

KEYED = [
    ("POST", "/predict"),
    ("POST", "/feedback"),
    ("POST", "/invocations"),
    ("GET", "/profile"),
    ("GET", "/leave-by"),
]


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
        {"X-API-Key": "schlüssel".encode().decode("latin-1")},  # UTF-8, as WSGI hands it over
    ],
)
def test_with_a_key_one_is_let_in(keyed, headers):
    assert keyed.post("/predict", json=RIDE, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/model", "/docs", "/ping", "/"])
def test_the_rest_is_open(keyed, path):
    assert keyed.get(path).status_code == 200


def test_without_keys_everybody_is_let_in(client):
    assert client.post("/predict", json=RIDE).status_code == 200


def test_keys_come_from_the_environment(monkeypatch, make_app, models):
    monkeypatch.setenv("API_KEYS", "one, two")
    client = make_app(model=(models[1], make_card(1, "LR"))).test_client()
    assert client.post("/predict", json=RIDE).status_code == 401
    assert client.post("/predict", json=RIDE, headers={"X-API-Key": "two"}).status_code == 200
