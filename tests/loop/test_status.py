"""One screen: each part is there, and one that cannot be read takes no other with it."""

from __future__ import annotations

import json
import shutil
import sys
import time
from datetime import UTC, datetime

import pytest
from msgspec import to_builtins
from test_dry_run import digest

import pipeline
from taxi_duration import environment
from taxi_duration.domain.version import Version
from taxi_duration.files import write_json
from taxi_duration.live.audit import record
from taxi_duration.live.deployment import deploy_champion, read_deployment, set_challenger
from taxi_duration.live.prediction_log import open_log
from taxi_duration.loop.pausing import pause
from taxi_duration.loop.state import State, write_state
from taxi_duration.loop.status import read_status
from taxi_duration.loop.status_text import status_text

FIRST, SECOND = (Version("green-duration", n, str(n) * 64, "tlc") for n in (1, 2))
TEST = {
    "verdict": "undecided", "gain_min": 0.125, "low_min": -0.02, "high_min": 0.26, "e_value": 3.14,
    "boundary": 20.0, "blocks": 5, "trips": 1203, "decided_at": None,
}  # fmt: skip


def shown() -> str:
    return status_text(read_status())


def test_nothing_deployed_says_how_to_begin(home):
    home.mkdir()
    text = shown()
    assert "nothing is deployed" in text and "python pipeline.py run" in text
    assert "PROBLEM" not in text
    assert digest(home) == {}


def test_whole_screen_of_a_test(home):
    deploy_champion(Version("green-duration", 3, "3" * 64, "tlc"), "the first")
    deploy_champion(FIRST, "better")
    set_challenger(SECOND, "test", ab_share=0.2, shadow=True)
    write_state(State("ab", serial=4, since=1.7e9, month="2021-03", challenger=SECOND,
                      champion=FIRST, looked_at="2021-02"))  # fmt: skip
    record("pass green-duration:2", "nearer by 0.31 min", {"training_minutes": 3.4}, "1:gate:pass")
    record("wait", "green-duration:9 is being tested", {"test": {**TEST, "trips": 9}})
    record("wait", "green-duration:2 is being tested", {"test": TEST})
    found = read_status()
    assert found["serving"]["champion"]["version"] == "green-duration:1"
    assert found["serving"]["champion"]["does"] == "champion, 80%"
    assert found["serving"]["challenger"]["does"] == "challenger, 20% and shadow"
    assert found["serving"]["challenger"]["since"].startswith(f"{datetime.now(UTC):%Y-%m-%d}")
    assert found["serving"]["previous"]["version"] == "green-duration:3"
    assert found["loop"] == {
        "stage": "ab", "since": "2023-11-14T22:13:20+00:00", "month": "2021-03", "why": "",
        "not_in_mlflow": 0,
    }  # fmt: skip
    assert {name: found["test"][name] for name in TEST} == TEST
    assert found["training"]["minutes"] == 3.4
    assert {"drop", "rollback", "auto pause", "auto"} <= found["commands"].keys()
    text = status_text(found)
    for words in (
        "3.14 of the 20", "5 days, 1,203 rides", "nearer by 0.125 min (", "took 3.4 minutes",
        "nearer by 0.31 min", "not paused", "end the test of green-duration:2",
    ):  # fmt: skip
        assert words in text


def test_interval_without_an_end_is_null_for_machines_and_left_out_for_people(home):
    deploy_champion(FIRST, "the first")
    set_challenger(SECOND, "test", shadow=True)
    endless = {**TEST, "low_min": float("-inf"), "high_min": float("inf")}
    record("wait", "green-duration:2 is being tested", {"test": endless})
    found = read_status()
    assert (found["test"]["low_min"], found["test"]["high_min"]) == (None, None)
    json.dumps(found, allow_nan=False)
    assert "nearer by 0.125 min\n" in status_text(found)


def test_bundle_that_is_gone_is_a_problem_and_the_rest_is_shown(home):
    deploy_champion(FIRST, "the first")
    found = read_status()
    assert found["serving"]["champion"]["version"] == "green-duration:1"
    assert found["next_turn"] == ["pull green-duration:1: its bundle is gone from disk"]
    assert found["months"] is None
    assert any("card.json" in problem for problem in found["problems"])


@pytest.mark.parametrize(
    ("name", "said", "still"),
    [
        ("auto.json", "begins anew", "green-duration:1"),
        ("deployment.json", "promote NAME:VERSION", "idle"),
        ("paused.json", "auto resume", "green-duration:1"),
        ("approval.json", "delete it", "green-duration:1"),
    ],
)
def test_file_that_cannot_be_read_is_named_with_what_to_do(home, name, said, still):
    deploy_champion(FIRST, "the first")
    (home / "deployment" / name).write_text("{")
    text = shown()
    (problem, *_) = [
        line for line in text.splitlines() if line.startswith("PROBLEM") and name in line
    ]
    assert said in problem
    assert still in text


def test_verdict_that_cannot_be_read_is_named(home):
    path = environment.live_dir() / "monitor.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert "monitor.json cannot be read" in shown()


def test_log_that_cannot_be_read_is_named(home):
    path = environment.live_dir() / "predictions.db"
    path.parent.mkdir(parents=True)
    path.write_text("no database")
    found = read_status()
    assert found["feedback"] is None
    assert any("prediction log cannot be used" in problem for problem in found["problems"])


def test_pause_is_shown_with_the_way_out(home):
    deploy_champion(FIRST, "the first")
    pause("street fair")
    text = shown()
    assert "PAUSED" in text and "street fair" in text and "auto resume" in text
    assert "auto pause" not in text


def test_what_waits_for_a_word_is_shown_until_it_was_given(home):
    deploy_champion(FIRST, "the first")
    set_challenger(SECOND, "test", shadow=True)
    write_state(State("shadow", serial=4, challenger=SECOND, champion=FIRST))
    asked = {
        "stage": "start_ab", "serial": 5, "version": to_builtins(SECOND), "why": "nearer",
        "since": "2026-01-02T03:04:05.000+00:00",
    }  # fmt: skip
    write_json(home / "deployment" / "approval.json", asked)
    found = read_status()
    assert found["waiting"]["who"] is None and "approve" in found["commands"]
    assert "needs approval" in status_text(found)
    write_json(home / "deployment" / "approval.json",
               {**asked, "who": "ann", "at": "2026-01-02T04:00:00.000+00:00"})  # fmt: skip
    found = read_status()
    assert "approve" not in found["commands"]
    assert "approved by ann" in status_text(found)


def prediction(i: int, age_days: float) -> dict:
    return {
        "prediction_id": str(i), "ride_id": None, "asked_at": time.time() - age_days * 86400,
        "PULocationID": 74, "DOLocationID": 75, "pickup_at": "2021-03-01T08:00:00",
        "trip_distance": 1.0, "duration": 8.0, "p10": 5.0, "p50": 8.0, "p90": 12.0, "support": 3,
        "used_distance": True, "model": FIRST.ref, "model_sha256": FIRST.sha256,
        "arm": "champion", "latency_ms": 1.0,
    }  # fmt: skip


def test_feedback_rate_counts_the_rides_of_the_last_days(home):
    log = open_log()
    log.add([prediction(i, age) for i, age in enumerate((0.1, 0.2, 3, 5, 100))])
    moment = time.time() - 3600
    log.add_feedback([{"prediction_id": i, "duration": 9.0, "received_at": moment} for i in "04"])
    log.add_feedback([{"prediction_id": "1", "duration": 9.0, "received_at": moment - 60}])
    log.close()
    feedback = read_status()["feedback"]
    assert (feedback["rides"], feedback["with_truth"], feedback["share"]) == (4, 2, 0.5)
    assert feedback["last_at"] == datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def test_feedback_rate_is_of_the_service_that_is_deployed(home):
    """A project of another service may use the same log."""
    deploy_champion(FIRST, "first")
    log, now = open_log(), time.time()
    log.add([prediction(1, 0.2), prediction(2, 0.1),
             prediction(3, 0.1) | {"model": "yellow-duration:1"}])  # fmt: skip
    log.add_feedback([{"prediction_id": "1", "duration": 9.0, "received_at": now - 3600}])
    log.add_feedback([{"prediction_id": "3", "duration": 9.0, "received_at": now}])
    log.close()
    feedback = read_status()["feedback"]
    assert (feedback["rides"], feedback["with_truth"]) == (2, 1)
    assert feedback["last_at"] == datetime.fromtimestamp(now - 3600, UTC).isoformat(
        timespec="seconds"
    )


@pytest.mark.slow
def test_status_of_a_real_home_needs_no_mlflow_and_changes_nothing(moved_home, monkeypatch, capsys):
    shutil.rmtree(moved_home / "tracking")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    before = digest(moved_home)
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "status", "--json"])
    assert pipeline.main() == 0
    assert digest(moved_home) == before
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    assert found["serving"]["champion"]["version"] == read_deployment().champion.ref
    assert found["months"] == {"champion": "2021-01:2021-02", "looked_at": None}
    assert found["verdict"] is None
    assert found["next_turn"]
