"""The audit trail."""

from __future__ import annotations

import pytest

from taxi_duration.live import audit
from taxi_duration.live.audit import audit_lines, last_training, lines_about, read_audit, record
from taxi_duration.registry import tracking
from taxi_duration.registry.tracking import log_decision


def test_decision_says_when_who_what_why_and_numbers(home):
    record("promote green-duration:2", "nearer by 0.3 min", {"gain_min": 0.3})
    (line,) = read_audit()
    assert line["what"] == "promote green-duration:2"
    assert line["why"] == "nearer by 0.3 min"
    assert line["numbers"] == {"gain_min": 0.3}
    assert line["who"].startswith("auto")
    assert line["at"].endswith("+00:00")


def test_decision_repeated_after_a_crash_leaves_one_line(home):
    for _ in range(3):
        record("drop green-duration:2", "worse", key="7:drop")
    assert len(read_audit()) == 1


def test_digests_are_in_the_line_of_who_made_them_and_found_by_the_version(home):
    for number in (1, 11):
        key = f"register green-duration:{number} {'a' * 64}"
        record(
            f"register green-duration:{number}", "made", key=key, who="run (me)", sha256={"x": "1"}
        )
    record("finish run", "made", key=f"finish green-duration:1 {'a' * 64} 2021", sha256={"y": "2"})
    record("register green-duration:1", "another", key=f"register green-duration:1 {'b' * 64}")
    record("promote green-duration:1", "better", key="7:ab:promote green-duration:1")
    found = lines_about(audit_lines(), "green-duration:1", "a" * 64)
    assert [line.record["sha256"] for line in found] == [{"x": "1"}, {"y": "2"}]
    assert found[0].record["who"] == "run (me)"
    assert "sha256" not in read_audit()[-1]


def test_waiting_twice_leaves_two_lines(home):
    record("wait", "no feedback yet")
    record("wait", "no feedback yet")
    assert len(read_audit()) == 2


def test_line_cut_by_a_crash_spoils_neither_the_trail_nor_the_next_line(home):
    record("first", "whole")
    path = home / "deployment" / audit.AUDIT_FILE
    with path.open("a") as file:
        file.write('{"at": "2021-03-')
    record("second", "whole")
    assert [line["what"] for line in read_audit()] == ["first", "second"]


def test_the_last_training_is_the_newest_line_that_has_its_cost():
    lines = [
        {"at": "1", "what": "pass a:2", "why": "nearer", "numbers": {"training_minutes": 3.0}},
        {"at": "2", "what": "promote a:2", "why": "proved", "numbers": {"training_minutes": 3.5}},
        {"at": "3", "what": "wait", "why": "no news", "numbers": {}},
        {"at": "4", "what": "odd", "why": "by hand", "numbers": None},
    ]
    found = {"minutes": 3.5, "what": "promote a:2", "gain": "proved", "at": "2"}
    assert last_training(lines) == found
    assert last_training(lines[2:]) is None


def test_no_trail_yet_is_empty(home):
    assert read_audit() == []


@pytest.mark.slow
def test_decision_is_kept_in_mlflow_once(moved_home):
    client = tracking.connect()
    line = record("refuse green-duration:2", "worse", {"gate": {"gain_min": -0.2}}, key="3:gate")
    for _ in range(2):
        log_decision(client, line)
    mine = "tags.audit_key = '3:gate'"
    runs = client.search_runs([tracking.experiment_id(client)], filter_string=mine)
    assert [run.data.tags["decision"] for run in runs] == ["refuse green-duration:2"]
    assert runs[0].data.metrics["gate.gain_min"] == -0.2
