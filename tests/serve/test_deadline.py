"""A store that hangs: who asks is refused in time, and rides are answered all the same."""

from __future__ import annotations

import threading

import pytest
from service_samples import RIDE, make_card

from serve.core.deadline import Deadline
from taxi_duration.errors import LogError


@pytest.fixture
def stuck(log, monkeypatch):
    """A store that answers nothing until the event is set."""
    released = threading.Event()
    for name in ("check_writable", "add_feedback", "summary"):
        monkeypatch.setattr(log, name, lambda *_: released.wait(30))
    yield released
    released.set()


@pytest.fixture
def client(make_app, models):
    """A service that waits a second for its store."""
    app = make_app({"LOG_SECONDS": 1.0}, model=(models[1], make_card(1, "LR")))
    return app.test_client()


def test_what_is_done_in_time_is_returned_and_errors_are_raised():
    assert Deadline(5).call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        Deadline(5).call(divmod, 7, 0)


def test_what_takes_too_long_is_an_error_and_the_next_one_does_not_wait():
    deadline, released = Deadline(0.1), threading.Event()
    with pytest.raises(LogError, match="does not answer within"):
        deadline.call(released.wait, 30)
    with pytest.raises(LogError, match="still"):
        deadline.call(divmod, 7, 2)
    released.set()
    while True:  # it is asked again as soon as the late call has ended
        try:
            assert deadline.call(divmod, 7, 2) == (3, 1)
            break
        except LogError:
            continue


def test_a_stuck_store_costs_no_answer(client, stuck):
    ready = client.get("/ready")
    assert ready.status_code == 503
    assert "within 1 s" in ready.json["problems"][0]
    feedback = client.post("/feedback", json={"prediction_id": "a", "duration": 5})
    assert feedback.status_code == 503
    assert "send it again" in feedback.json["error"]["message"]
    assert client.get("/monitor/data").json["trouble"]
    assert client.post("/predict", json=RIDE).status_code == 200


@pytest.mark.parametrize("stuck_call", ["summary", "last_times"])
def test_a_stuck_page_costs_no_feedback_and_no_readiness(client, log, monkeypatch, stuck_call):
    released = threading.Event()
    monkeypatch.setattr(log, stuck_call, lambda *_: released.wait(30))
    answer = client.post("/predict", json=RIDE).json
    for path in ("/monitor/data", "/metrics") * 2:
        assert client.get(path).status_code == 200
    assert client.get("/ready").status_code == 200
    told = {"prediction_id": answer["prediction_id"], "duration": 5}
    assert client.post("/feedback", json=told).status_code == 200
    released.set()


def test_overdue_feedback_costs_no_readiness(client, log, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(log, "add_feedback", lambda *_: released.wait(30))
    assert client.post("/feedback", json={"prediction_id": "a", "duration": 5}).status_code == 503
    assert client.get("/ready").status_code == 200
    released.set()
