"""GET /openapi.json and GET /docs."""

from __future__ import annotations

import html
import re

import msgspec
import pytest
from service_samples import make_card

from serve.openapi import COMPONENTS
from serve.routes.docs import markdown


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


def test_every_call_has_a_name_of_its_own_to_which_the_list_on_top_leads(client, api):
    named = [call["operationId"] for calls in api["paths"].values() for call in calls.values()]
    assert len(set(named)) == len(named) > 20
    assert {"post_predict", "get_v2_models_name_ready", "get_page"} < set(named)
    text = client.get("/docs").text
    for name in named:
        assert f'<section id="{name}">' in text
        assert 0 < text.index(f'<a href="#{name}">') < text.index("<section")


STRUCTS = {struct.__name__: struct for struct in COMPONENTS}


def answers(api):
    """Content of each call's good answer: path, and what OpenAPI says of it."""
    for path, operations in api["paths"].items():
        for operation in operations.values():
            for kind, content in operation["responses"]["200"]["content"].items():
                yield path, kind, content


def is_part(part, whole) -> bool:
    """Whether a value is within another, which may have more fields."""
    if isinstance(part, dict):
        return all(name in whole and is_part(value, whole[name]) for name, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(is_part, part, whole))
    return part == whole


def test_every_call_but_pages_shows_a_sample_answer(api):
    assert [path for path, kind, found in answers(api)
            if "example" not in found and kind != "text/html"] == []  # fmt: skip


def test_samples_are_what_the_schemas_say(api):
    checked = set()
    for path, _, content in answers(api):
        schema = content["schema"]
        ref = schema.get("$ref") or (schema.get("oneOf") or [{}])[0].get("$ref")
        if ref and "example" in content:
            struct = STRUCTS[ref.rsplit("/", 1)[1]]
            found = msgspec.to_builtins(msgspec.convert(content["example"], struct))
            assert is_part(content["example"], found)  # no field more
            checked.add(path)
    assert {"/predict", "/feedback", "/reach", "/model", "/ready"} <= checked


def test_examples_of_requests_are_answered(client, api):
    for path, operations in api["paths"].items():
        for operation in operations.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body:
                where = path.format(name="green-duration", version=1)
                assert client.post(where, json=body["example"]).status_code == 200
    query = {"PULocationID": 74, "DOLocationID": 138}
    for path in ("/profile", "/leave-by", "/reach"):
        found = {p["name"]: p["schema"]["examples"][0]
                 for p in api["paths"][path]["get"]["parameters"]}  # fmt: skip
        assert found.items() >= {k: v for k, v in query.items() if k in found}.items()
        assert client.get(path, query_string=found).status_code == 200


def test_docs_call_the_service_where_it_is(client):
    text = client.get("/docs", base_url="http://taxi.example:1234").text
    assert "curl -X POST http://taxi.example:1234/predict" in text
    assert '-d \'{"PULocationID": 74, "DOLocationID": 138, ' in html.unescape(text)
    assert "curl http://taxi.example:1234/v2/models/green-duration/versions/7/ready" in text
    assert "9696" not in text


@pytest.mark.parametrize("host", ['a"><script>x</script>', "", "a b", "[::1]:80", "é.example"])
def test_docs_show_any_host_as_text(client, host):
    answer = client.get("/docs", headers={"Host": host})
    assert answer.status_code in (200, 400)
    assert "<script>x" not in answer.text


def test_docs_show_no_raw_markdown(client):
    text = html.unescape(re.sub(r"<pre.*?</pre>", "", client.get("/docs").text, flags=re.DOTALL))
    assert "`" not in text
    assert "<code>ride_id</code>" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`a` and `b<c`", "<code>a</code> and <code>b&lt;c</code>"),
        ("**so** it is", "<b>so</b> it is"),
        ("see [docs](/docs)", 'see <a href="/docs">docs</a>'),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ('[x](https://a.b/"on=)', '<a href="https://a.b/&#34;on=">x</a>'),
        ("<script>", "&lt;script&gt;"),
        ("one\n\ntwo", "one<br><br>two"),
        ("2 * 3 * 4, a `", "2 * 3 * 4, a `"),
    ],
)
def test_markdown_is_rendered_and_everything_else_is_text(text, expected):
    assert markdown(text) == expected


@pytest.mark.parametrize("path", ["/docs", "/", "/monitor"])
def test_pages_need_no_other_host(client, path):
    assert not re.search(r"""(src|href|action)=["']?(https?:)?//""", client.get(path).text)
