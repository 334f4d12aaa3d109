"""The trace of a request is found again in the answer's header and in the log."""

from __future__ import annotations

import http.client
import json

import pytest
from service_samples import RIDE

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GIVEN = f"00-{TRACE}-00f067aa0ba902b7-01"
BODIES = {
    "/predict": RIDE,
    "/predict?explain=true": RIDE,
    "/invocations": {"inputs": [RIDE, RIDE]},
}


def ids_of(answer) -> list[str]:
    """The prediction ids of an answer of any endpoint."""
    if isinstance(answer, list):
        return [one["prediction_id"] for one in answer]
    return answer.get("prediction_ids") or [answer["prediction_id"]]


@pytest.mark.parametrize(("path", "body"), [*BODIES.items(), ("/predict", [RIDE, RIDE])])
def test_header_and_log_say_the_same(client, log, path, body):
    answer = client.post(path, json=body, headers={"traceparent": GIVEN})
    told = answer.headers["traceparent"]
    assert told.startswith(f"00-{TRACE}-")
    assert told != GIVEN
    ids = ids_of(answer.json)
    assert [row["traceparent"] for row in log.find_many(ids)] == [told] * len(ids)
    assert log.find_trace(TRACE) == sorted(ids)


@pytest.mark.parametrize("headers", [{}, {"traceparent": GIVEN.upper()}])
@pytest.mark.parametrize(("path", "body"), BODIES.items())
def test_without_a_valid_one_nothing_is_said(client, log, path, body, headers):
    answer = client.post(path, json=body, headers=headers)
    assert "traceparent" not in answer.headers
    assert {row["traceparent"] for row in log.find_many(ids_of(answer.json))} == {None}


def test_an_error_is_told_in_the_same_trace(client):
    answer = client.post("/predict", json={}, headers={"traceparent": GIVEN})
    assert (answer.status_code, answer.headers["traceparent"][:36]) == (400, f"00-{TRACE}-")


def test_other_traces_are_not_found(client, log):
    other = TRACE.replace("4b", "5b")
    for trace in (GIVEN, GIVEN.replace(TRACE, other)):
        client.post("/predict", json=RIDE, headers={"traceparent": trace})
    assert len(log.find_trace(other)) == 1
    assert log.find_trace("0" * 32) == []


def test_the_quick_way_says_the_same_and_takes_no_two(served):
    service = served()

    def ask(*given: str) -> list[str]:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
        connection.putrequest("POST", "/predict")
        body = json.dumps(RIDE).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        for name, value in [*headers, *(("Traceparent", one) for one in given)]:
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
        connection.close()
        return answer.headers.get_all("traceparent") or []

    (told,) = ask(GIVEN)
    assert told.startswith(f"00-{TRACE}-")
    assert ask() == ask(GIVEN, GIVEN) == ask("") == []
