"""GET /health, /ready and /ping."""

from __future__ import annotations

import pytest
from service_samples import make_card

from taxi_duration.live.prediction_log import open_log


def test_a_process_that_runs_is_healthy(client):
    answer = client.get("/health")
    assert (answer.status_code, answer.json["status"]) == (200, "ok")
    assert answer.json["model"] == "green-duration:1"


def test_with_model_and_log_it_is_ready(client):
    answer = client.get("/ready")
    assert (answer.status_code, answer.json["problems"]) == (200, [])


def test_without_a_model_it_is_alive_and_not_ready_and_says_how_to_get_one(home, make_app):
    client = make_app().test_client()
    ready = client.get("/ready")
    assert client.get("/health").status_code == 200
    assert ready.status_code == 503
    assert "make run" in ready.json["problems"][0]


@pytest.mark.parametrize("blocked", ["spool", "store"])
def test_without_a_log_it_is_not_ready(make_app, models, tmp_path, blocked):
    for name in ("spool", "store"):
        if name == blocked:
            (tmp_path / name).write_text("a file where a folder should be")
    log = open_log(f"sqlite:///{tmp_path / 'store' / 'x.db'}", tmp_path / "spool")
    client = make_app(model=(models[1], make_card(1, "LR")), log=log).test_client()
    ready = client.get("/ready")
    assert ready.status_code == 503
    assert ready.json["problems"][0].startswith("predictions are not logged: ")


def test_ping_answers_as_mlflow_does(client):
    answer = client.get("/ping")
    assert (answer.status_code, answer.data) == (200, b"\n")


def test_ping_without_a_model_is_refused(home, make_app):
    assert make_app().test_client().get("/ping").status_code == 503
