"""GET / and GET /monitor, and what their scripts ask for: /zones and /monitor/data."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pandas as pd
import pytest
from msgspec import to_builtins
from service_samples import RIDE

import serve
from serve.core import live_page
from taxi_duration import environment
from taxi_duration.domain.findings import Drift, ErrorEstimate, Reason
from taxi_duration.domain.zone_shapes import stored_shapes
from taxi_duration.errors import LogError
from taxi_duration.evaluation import sequential_test
from taxi_duration.evaluation.health import Health
from taxi_duration.live.audit import record
from taxi_duration.live.deployment import deploy_champion, set_challenger
from taxi_duration.live.verdict import VERDICT_FILE, page_path, write_verdict
from taxi_duration.loop.monitor import make_verdict

STATIC = Path(serve.__file__).parent / "static"
SCRIPTS = sorted(path.name for path in STATIC.glob("*.js"))


@pytest.mark.parametrize(("path", "script"), [("/", "ride.js"), ("/monitor", "monitor.js")])
def test_page_whose_script_does_not_load_says_so(client, path, script):
    assert '<p id="silent" class="trouble">This page waits for JavaScript' in client.get(path).text
    assert 'byId("silent").remove();' in (STATIC / script).read_text()


@pytest.mark.parametrize("path", ["/", "/monitor", "/docs"])
def test_pages_carry_headers_that_keep_them_to_themselves(client, path):
    response = client.get(path)
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/static/ride.js", 200),
        ("GET", "/static/nothing.js", 404),
        ("GET", "/nothing", 404),
        ("PUT", "/predict", 405),
        ("POST", "/predict", 415),
        ("OPTIONS", "/predict", 200),
        ("GET", "/health", 200),
        ("GET", "/metrics", 200),
        ("GET", "/model", 200),
        ("GET", "/monitor/data", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/profile", 400),
    ],
)
def test_every_answer_carries_headers_against_misuse(home, client, verb, path, status):
    response = client.open(path, method=verb)
    assert response.status_code == status
    headers = response.headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert len(set(headers.keys())) == len(headers)  # none twice, as browsers then take the worse


def test_a_failure_of_ours_carries_them_too(client, app, monkeypatch):
    monkeypatch.setattr(app.extensions["taxi"], "one", lambda *_: 1 / 0)
    response = client.post("/predict", json=RIDE)
    assert response.status_code == 500
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/monitor", "/docs"])
def test_pages_hold_no_script_or_style_that_their_policy_forbids(client, path):
    text = client.get(path).text
    assert "<style" not in text
    assert " style=" not in text
    assert text.count("<script") == text.count('<script type="module" src="/static/')


@pytest.mark.parametrize("name", [*SCRIPTS, "style.css", "icon.svg"])
def test_files_of_the_pages_are_served(client, name):
    assert client.get(f"/static/{name}").status_code == 200


def test_files_outside_static_are_not_served(client):
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e/app.py").status_code == 404


def test_files_of_the_pages_stay_small():
    of_the_map = [STATIC / "map.js", STATIC / "reach.js"]
    sizes = {path: path.stat().st_size for path in STATIC.iterdir()}
    assert sum(sizes[path] for path in of_the_map) < 25_000
    assert sum(size for path, size in sizes.items() if path not in of_the_map) < 60_000


# --- /zones ---------------------------------------------------------------------------------


def test_zones_are_all_there_with_names_and_places(client):
    zones = client.get("/zones").json
    assert [zone["id"] for zone in zones] == list(range(1, 266))
    assert zones[131] == {
        "id": 132, "borough": "Queens", "name": "JFK Airport",
        "longitude": pytest.approx(-73.79, abs=0.02), "latitude": pytest.approx(40.65, abs=0.02),
        "area_km2": pytest.approx(20.1, rel=0.2),
    }  # fmt: skip


def test_zones_that_are_no_place_have_no_coordinates(client):
    assert client.get("/zones").json[263]["longitude"] is None


def test_shapes_are_those_of_the_package_and_may_be_kept(client):
    response = client.get("/zones/shapes")
    assert response.data == stored_shapes()
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "public, max-age=3600"


def test_shapes_are_small_enough_for_a_phone():
    assert len(gzip.compress(stored_shapes())) <= 70_000


# --- /monitor/data --------------------------------------------------------------------------


@pytest.fixture
def data(client):
    """Read /monitor/data."""
    return lambda: client.get("/monitor/data").json


def test_data_say_who_serves_with_what_share(registered, make_app):
    deploy_champion(registered[1], "first <b>model</b>")
    set_challenger(registered[2], "test", ab_share=0.25)
    found = make_app().test_client().get("/monitor/data").json
    assert found["serving"]["champion"]["model"] == "green-duration:1"
    assert found["serving"]["challenger"]["model"] == "green-duration:2"
    assert (found["serving"]["ab_share"], found["serving"]["baking"]) == (0.25, False)
    assert [line["reason"] for line in found["history"]] == ["test", "first <b>model</b>"]


def test_data_say_who_bakes(registered, make_app):
    deploy_champion(registered[1], "first")
    deploy_champion(registered[2], "better", bake=True)
    serving = make_app().test_client().get("/monitor/data").json["serving"]
    assert (serving["challenger"]["model"], serving["baking"]) == ("green-duration:1", True)


def test_data_can_be_had_with_nothing_deployed(home, make_app):
    found = make_app().test_client().get("/monitor/data").json
    assert found["serving"] is None
    assert found["verdict"] is None
    assert found["log"]["models"] == []


def test_data_change_after_feedback(home, client, data):
    answer = client.post("/predict", json=RIDE).json
    told = {"prediction_id": answer["prediction_id"], "duration": answer["duration"] + 2}
    client.post("/feedback", json=told)
    (row,) = data()["log"]["models"]
    assert (row["predictions"], row["feedback"]) == (1, 1)
    assert row["mean_error"] == pytest.approx(2.0)
    assert row["error_low"] is None  # one ride has no spread


def test_error_has_the_interval_of_independent_rides(home, client, data):
    for extra in (1.0, 2.0, 3.0):
        answer = client.post("/predict", json=RIDE).json
        told = {"prediction_id": answer["prediction_id"], "duration": answer["duration"] + extra}
        client.post("/feedback", json=told)
    (row,) = data()["log"]["models"]
    half = 1.96 * (1.0 / 3) ** 0.5  # errors 1, 2, 3 have a variance of 1
    assert row["error_low"] == pytest.approx(2 - half, abs=1e-4)
    assert row["error_high"] == pytest.approx(2 + half, abs=1e-4)


def test_log_shows_which_durations_count(home, client, data):
    answers = client.post("/predict", json=[RIDE] * 4).json
    minutes = [answers[0]["duration"] + 2, 0.5, 90.0, 2000.0]
    told = [
        {"prediction_id": answer["prediction_id"], "duration": true}
        for answer, true in zip(answers, minutes, strict=True)
    ]
    client.post("/feedback", json=told)
    (row,) = data()["log"]["models"]
    counts = {name: row[name] for name in ("feedback", "scored", "short", "long")}
    assert counts == {"feedback": 4, "scored": 1, "short": 1, "long": 1}
    assert row["quarantined"] == {"whole_day": 1}
    assert row["mean_error"] == pytest.approx(2.0)
    assert row["error_low"] is None


def test_the_log_is_asked_once_for_many_pages(home, app, monkeypatch):
    log = app.extensions["taxi"].log
    asked = []
    monkeypatch.setattr(log, "summary", lambda since: asked.append(since) or [])
    clock = iter([0.0] * 6 + [100.0] * 6)
    page = live_page.LivePage(app.extensions["taxi"], lambda: next(clock))
    page.content()
    page.content()
    assert len(asked) == 1
    page.content()
    page.content()
    assert len(asked) == 2


def test_a_large_log_is_asked_the_less_the_longer_it_takes(home, app, monkeypatch):
    """A summary of 10 seconds is kept for 20."""
    log, clock, asked = app.extensions["taxi"].log, [0.0], []

    def slow(since):
        asked.append(since)
        clock[0] += 10.0
        return []

    monkeypatch.setattr(log, "summary", slow)
    page = live_page.LivePage(app.extensions["taxi"], lambda: clock[0])
    for now, times in ((0.0, 1), (29.0, 1), (30.0, 2)):
        clock[0] = max(now, clock[0])
        page.content()
        assert len(asked) == times


def test_a_clock_that_is_set_holds_no_page_up(home, app, monkeypatch):
    log, clock, asked = app.extensions["taxi"].log, [0.0], []
    monkeypatch.setattr(log, "summary", lambda since: asked.append(since) or [])
    page = live_page.LivePage(app.extensions["taxi"], lambda: clock[0])
    for now, times in ((0.0, 1), (-86_400.0, 2), (-86_399.0, 2), (86_400.0, 3), (0.0, 4)):
        clock[0] = now
        page.content()
        assert len(asked) == times


DRIFT = Drift("hour", "psi", 0.06, "", "alarm", 0.015, 0.05)
HEALTH = Health("live log", "green-duration:1", 40, 12, pd.DataFrame(), [DRIFT],
                [Reason("drift", "alarm", DRIFT.text)], {"scored": 12, "too_fast": 3})  # fmt: skip


def test_the_monitors_verdict_is_shown(home, data):
    write_verdict(make_verdict(HEALTH))
    assert {**make_verdict(HEALTH).as_dict(), "at": ANY} == data()["verdict"]


def test_a_verdict_on_no_ride_at_all_is_shown_with_every_field(home, data):
    """Left out, they stopped the page at the first turn of a new installation."""
    write_verdict(
        make_verdict(Health("live log", "green-duration:1", 0, 0, pd.DataFrame(), [], []))
    )
    found = data()["verdict"]
    assert (found["truths"], found["estimate"]) == ({}, None)
    assert (found["last_ride_at"], found["last_feedback_at"]) == (None, None)


def test_the_monitors_last_report_is_shown_without_its_scripts(home, client, data):
    assert data()["report"] is None
    missing = client.get("/monitor/report")
    assert (missing.status_code, missing.json["error"]["code"]) == (404, "no_report")
    assert "pipeline.py monitor" in missing.json["error"]["message"]
    environment.live_dir().mkdir(parents=True, exist_ok=True)
    page_path().write_text("<h1>Monitor</h1>")
    assert data()["report"].startswith("20")
    report = client.get("/monitor/report")
    assert (report.status_code, report.text) == (200, "<h1>Monitor</h1>")
    assert "sandbox; default-src 'none'" in report.headers["Content-Security-Policy"]
    assert "script-src" not in report.headers["Content-Security-Policy"]


@pytest.mark.parametrize("content", ['{"verdict": ', "[]", '{"verdict": "ok"}', "\x00"])
def test_a_damaged_verdict_is_said_and_breaks_nothing(home, client, data, content):
    write_verdict(make_verdict(HEALTH))
    (environment.live_dir() / VERDICT_FILE).write_text(content)
    found = data()
    assert found["verdict"] is None
    assert "monitor.json cannot be read" in found["trouble"][0]
    assert client.get("/metrics").status_code == 200


def test_the_verdict_is_among_the_metrics(home, metric):
    assert metric('taxi_verdict{version="green-duration:1"}') == 0
    write_verdict(make_verdict(HEALTH))
    assert metric('taxi_verdict{version="green-duration:1"}') == 2
    told = 'taxi_truths{{truth="{}",version="green-duration:1"}}'
    assert [metric(told.format(code)) for code in ("scored", "too_fast", "long")] == [12, 3, 0]
    assert metric('taxi_drift{feature="hour",measure="psi"}') == 0.06
    assert metric('taxi_drift_level{feature="hour",measure="psi"}') == 2
    assert metric('taxi_verdict_age_seconds{version="green-duration:1"}') < 60


@pytest.mark.parametrize(
    ("level", "number"), [("ok", 0), ("unknown", 0.5), ("watch", 1), ("alarm", 2)]
)
def test_levels_are_numbers_that_rise_and_unknown_is_never_ok(home, metric, level, number):
    reasons = [] if level == "ok" else [Reason("error", level, "so it is")]
    verdict = make_verdict(replace(HEALTH, answered=30, reasons=reasons))
    write_verdict(verdict)
    assert metric('taxi_verdict{version="green-duration:1"}') == number
    assert metric('taxi_verdict_reason{kind="error",version="green-duration:1"}') == number
    assert metric('taxi_verdict_reason{kind="drift",version="green-duration:1"}') == 0


def test_errors_that_cannot_be_judged_are_unknown_beside_an_alarm_of_drift(home, metric):
    """AnswersWrong looks at error, bias and coverage, Drift at drift."""
    write_verdict(make_verdict(replace(HEALTH, answered=0)))
    for kind, number in (("error", 0.5), ("bias", 0.5), ("coverage", 0.5), ("drift", 2)):
        assert metric(f'taxi_verdict_reason{{kind="{kind}",version="green-duration:1"}}') == number


def test_the_estimate_is_among_the_metrics_and_on_the_page(home, metric, data):
    estimate = ErrorEstimate(70, 3.5, 3.2, 3.8, 0.79, 0.77, 0.83)
    write_verdict(make_verdict(replace(HEALTH, estimate=estimate)))
    of = '{version="green-duration:1"}'
    assert metric(f"taxi_estimated_rides{of}") == 70
    assert metric(f"taxi_estimated_mae_minutes{of}") == 3.5
    assert metric(f"taxi_estimated_coverage{of}") == 0.79
    assert data()["verdict"]["estimate"] == to_builtins(estimate)


def test_no_estimate_is_no_number(home, client):
    write_verdict(make_verdict(HEALTH))
    assert (
        'taxi_estimated_mae_minutes{version="green-duration:1"} NaN' in client.get("/metrics").text
    )


def test_time_since_the_last_ride_and_feedback_is_told(home, client, metric):
    assert "taxi_last_ride_age_seconds +Inf" in client.get("/metrics").text
    answer = client.post("/predict", json=RIDE).json
    assert 0 <= metric("taxi_last_ride_age_seconds") < 60
    assert "taxi_last_feedback_age_seconds +Inf" in client.get("/metrics").text
    client.post("/feedback", json={"prediction_id": answer["prediction_id"], "duration": 9.0})
    assert 0 <= metric("taxi_last_feedback_age_seconds") < 60


def test_metrics_can_be_had_while_the_log_cannot_be_read(home, app, client, monkeypatch):
    def broken():
        raise LogError("away")

    monkeypatch.setattr(app.extensions["taxi"].log, "last_times", broken)
    assert "taxi_last_ride_age_seconds" not in client.get("/metrics").text


def test_decisions_are_told_newest_first_with_the_last_test(home, data):
    test = {"verdict": "undecided", "e_value": 3.5, "boundary": 20.0, "blocks": 4}
    record("wait", "not yet", {"test": test})
    record("wait", "no news")
    found = data()
    assert [line["why"] for line in found["decisions"]] == ["no news", "not yet"]
    assert (found["test"]["e_value"], found["test"]["boundary"]) == (3.5, 20.0)


def test_the_last_training_is_told_with_cost_and_gain(home, data):
    assert data()["training"] is None
    record("pass green-duration:2", "nearer by 0.31 min", {"training_minutes": 3.4})
    record("wait", "no news")
    found = data()["training"]
    assert found == {"minutes": 3.4, "what": "pass green-duration:2",
                     "gain": "nearer by 0.31 min", "at": ANY}  # fmt: skip


def test_the_last_hours_come_from_the_log(home, client, data):
    answer = client.post("/predict", json=RIDE).json
    told = {"prediction_id": answer["prediction_id"], "duration": answer["duration"] + 2}
    client.post("/feedback", json=told)
    found = data()["log"]
    (hour,) = found["hours"]
    assert (hour["rides"], hour["scored"]) == (1, 1)
    assert hour["mean_error"] == pytest.approx(2.0)
    assert 0 <= found["last_ride_at"] - hour["at"] < 3600
    assert found["last_feedback_at"] >= found["last_ride_at"]


def test_one_line_says_that_nobody_asked(home, data):
    found = data()
    assert found["log"]["hours"] == []
    assert found["headline"] == {"level": "unknown", "text": "No ride was asked for yet."}


def test_answers_that_are_not_logged_are_told(home, app, client, data, monkeypatch):
    def full(*_):
        raise LogError("the disk is full")

    monkeypatch.setattr(app.extensions["taxi"].log, "add", full)
    assert client.post("/predict", json=RIDE).json["logged"] is False
    found = data()
    assert found["trouble"] == ["answers are not logged: the disk is full"]
    assert found["headline"]["text"] == "To be watched: answers are not logged: the disk is full"


def test_one_line_says_that_nobody_told(home, client, data):
    client.post("/predict", json=RIDE)
    assert data()["headline"]["text"].startswith("No feedback yet")


def test_the_last_test_has_what_the_page_shows():
    assert set(sequential_test.Outcome.__dataclass_fields__) >= {
        "e_value",
        "boundary",
        "blocks",
        "trips",
        "gain_min",
        "verdict",
    }


@pytest.mark.parametrize(
    ("address", "shown"),
    [("http://mlflow:5000/", "http://mlflow:5000"), ("sqlite:///runs.db", None), ("", None)],
)
def test_mlflow_is_linked_only_where_it_has_pages(home, data, monkeypatch, address, shown):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert data()["mlflow"] == shown
