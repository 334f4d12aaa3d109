"""GET /openapi.json and GET /docs."""

from __future__ import annotations

import re

import pytest
from service_samples import make_card


@pytest.fixture
def api(client) -> dict:
    return client.get("/openapi.json").json


def test_every_route_is_described_and_nothing_else(app, api):
    routes = {
        (rule.rule.translate(str.maketrans("<>", "{}")), verb.lower())
        for rule in app.url_map.iter_rules()
        for verb in rule.methods - {"HEAD", "OPTIONS"}
        if rule.endpoint != "static"
    }
    described = {(path, verb) for path, verbs in api["paths"].items() for verb in verbs}
    assert described == routes


def test_limits_are_those_that_validate(api):
    ride = api["components"]["schemas"]["Ride"]
    assert ride["required"] == ["PULocationID", "DOLocationID"]
    assert (ride["properties"]["PULocationID"]["minimum"],
            ride["properties"]["PULocationID"]["maximum"]) == (1, 265)  # fmt: skip


def test_every_reference_leads_somewhere(client, api):
    names = set(re.findall(r"#/components/schemas/(\w+)", client.get("/openapi.json").text))
    assert names <= set(api["components"]["schemas"])


def test_keys_are_described_when_they_are_needed(make_app, models):
    app = make_app({"API_KEYS": ("secret",)}, model=(models[1], make_card(1, "LR")))
    api = app.test_client().get("/openapi.json").json
    assert api["paths"]["/predict"]["post"]["security"] == [{"key": []}]


def test_docs_tell_every_path(client, api):
    text = client.get("/docs").text
    assert all(f"{path}</code>" in text for path in api["paths"])


@pytest.mark.parametrize("path", ["/docs", "/", "/monitor"])
def test_pages_need_no_other_host(client, path):
    assert not re.search(r"""(src|href|action)=["']?(https?:)?//""", client.get(path).text)
