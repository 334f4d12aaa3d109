"""An operator takes bad feedback out: which times, said how, and written down once."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from truth_sets import log_rows, told_rides

import pipeline
from taxi_duration.domain.rides import NEW_YORK
from taxi_duration.errors import SettingError
from taxi_duration.live.audit import read_audit, user_name
from taxi_duration.live.prediction_log import open_log
from taxi_duration.live.voiding import void_feedback
from taxi_duration.timestamps import DAY_SECONDS

NOON = datetime(2021, 3, 1, 12, tzinfo=NEW_YORK).timestamp()


@pytest.fixture
def log(home):
    """Feedback in seconds at noon, a good one a minute later."""
    log = open_log()
    log.add(log_rows(told_rides(days=1, a_day=3).assign(prediction_id=list("abc"))))
    for name, minutes, received_at in (("a", 600.0, NOON), ("b", 9.0, NOON + 60)):
        told = {"prediction_id": name, "duration": minutes, "received_at": received_at}
        log.add_feedback([told])
    yield log
    log.close()


def truths(log):
    return {name: log.find(name)["true_duration"] for name in "ab"}


@pytest.mark.parametrize(
    ("since", "until"),
    [("2021-03-01T12:00", "2021-03-01T12:01"), ("2021-03-01T17:00:00+00:00", "2021-03-01 12:00:30"),
     ("2021-03-01", "2021-03-01T18:00:59+01:00")],
)  # fmt: skip
def test_times_are_new_yorks_unless_they_say_otherwise(log, since, until):
    assert "1 true durations" in void_feedback(log, since, until, "seconds")
    assert truths(log) == {"a": None, "b": 9.0}


@pytest.mark.parametrize("given", ["", "noon", "0001-01-01T00:00+14:00", "2021-02-30"])
def test_what_is_no_time_is_refused_by_its_option(log, given):
    with pytest.raises(SettingError, match=r"--from .* is no time"):
        void_feedback(log, given, "2021-03-01", "", dry_run=True)


def test_it_is_written_down_who_took_out_what_and_why(log):
    said = void_feedback(log, "2021-03-01T12:00", "2021-03-01T12:01", "seconds")
    when = "received from 2021-03-01T17:00:00+00:00 until 2021-03-01T17:01:00+00:00"
    assert said == f"1 true durations {when} are voided"
    (line,) = read_audit()
    assert line["what"] == "void 1 true durations"
    assert line["why"] == f"seconds; {when}"
    assert line["who"] == user_name()
    assert line["numbers"] == {"from": NOON, "to": NOON + 60, "voided": 1}


def test_a_repeat_says_the_same_and_leaves_what_was_given_instead(log):
    asked = ("2021-03-01T12:00", "2021-03-01T12:01", "seconds")
    said = void_feedback(log, *asked)
    log.add_feedback([{"prediction_id": "a", "duration": 10.0}])
    assert void_feedback(log, *asked) == said
    assert truths(log) == {"a": 10.0, "b": 9.0}
    assert len(read_audit()) == 1


def test_a_line_that_a_crash_prevented_is_written_by_the_repeat(log):
    log.void_feedback(NOON, NOON + 60, "ann", "seconds")
    void_feedback(log, "2021-03-01T12:00", "2021-03-01T12:01", "seconds")
    assert [line["what"] for line in read_audit()] == ["void 1 true durations"]


def test_nothing_to_void_leaves_no_line(log):
    assert void_feedback(log, "2020-01-01", "2020-01-02", "seconds").startswith("0 true durations")
    assert read_audit() == []


def test_a_dry_run_changes_nothing(log):
    said = void_feedback(log, "2021-03-01", "2021-03-02", "seconds", dry_run=True)
    assert said.startswith("2 true durations") and said.endswith("would be voided")
    assert truths(log) == {"a": 600.0, "b": 9.0}
    assert read_audit() == []


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [("yesterday", "2021-03-02", "--from 'yesterday' is no time"),
     ("2021-03-01", "2021-13-02", "--to '2021-13-02' is no time"),
     ("2021-03-02", "2021-03-02", "is not before"), ("2021-03-03", "2021-03-02", "is not before"),
     ("2021-03-01", "2999-01-01", "lies ahead")],
)  # fmt: skip
def test_times_that_cannot_be_are_refused(log, since, until, said):
    with pytest.raises(SettingError, match=said):
        void_feedback(log, since, until, "seconds")
    assert truths(log) == {"a": 600.0, "b": 9.0}


def test_feedback_of_the_day_that_is_not_over_can_be_voided_until_now(log):
    log.add_feedback([{"prediction_id": "c", "duration": 600.0}])
    time.sleep(0.01)
    now = datetime.now(NEW_YORK).isoformat()
    void_feedback(log, "2021-04-01", now, "seconds")
    assert log.find("c")["true_duration"] is None


def around(now: float, since_days: float, until_days: float) -> tuple[str, str, str]:
    """A period as an operator gives it, and the reason."""
    return (*(datetime.fromtimestamp(now + days * DAY_SECONDS, UTC).isoformat()
              for days in (since_days, until_days)), "the clock was ahead")  # fmt: skip


@pytest.mark.parametrize("since_days", [-1, 0.5])
@pytest.mark.parametrize("later_days", [0.1, 0.8, 1.5, 3])
def test_feedback_dated_ahead_can_be_voided_and_a_repeat_leaves_what_came_since(
    log, monkeypatch, since_days, later_days
):
    """The clock was a day ahead; the repeat may come before, within or after the voided time."""
    now = time.time()
    asked = around(now, since_days, 2)
    log.add_feedback([{"prediction_id": "c", "duration": 600.0, "received_at": now + 86_400}])
    assert void_feedback(log, *asked, dry_run=True).startswith("1 true durations")
    said = void_feedback(log, *asked)
    assert said.startswith("1 true durations") and log.find("c")["true_duration"] is None
    came_at = now + 0.95 * later_days * DAY_SECONDS
    log.add_feedback([{"prediction_id": "c", "duration": 10.0, "received_at": came_at}])
    monkeypatch.setattr(time, "time", lambda: now + later_days * DAY_SECONDS)
    assert void_feedback(log, *asked, dry_run=True).startswith("0 true durations")
    assert void_feedback(log, *asked) == said
    assert log.find("c")["true_duration"] == 10.0
    assert len(read_audit()) == 1


def test_what_another_clock_still_dates_ahead_is_voided_by_the_repeat(log):
    now = time.time()
    asked = around(now, -1, 2)
    for at, name in enumerate("bc", 1):
        log.void_feedback(NOON, NOON + 90, "ann", "seconds")  # room for another on b
        told = {"prediction_id": name, "duration": 600.0, "received_at": now + 86_400}
        log.add_feedback([told])
        assert void_feedback(log, *asked).startswith(f"{at} true durations")


def test_line_that_a_crash_prevented_is_written_for_feedback_dated_ahead_too(log):
    now = time.time()
    asked = around(now, -1, 2)
    log.add_feedback([{"prediction_id": "c", "duration": 600.0, "received_at": now + 86_400}])
    log.void_feedback(now - DAY_SECONDS, now + 2 * DAY_SECONDS, "ann", "killed after this")
    log.add_feedback([{"prediction_id": "c", "duration": 10.0}])
    for _ in range(2):
        assert void_feedback(log, *asked).startswith("1 true durations")
    assert log.find("c")["true_duration"] == 10.0
    assert [line["what"] for line in read_audit()] == ["void 1 true durations"]


def test_the_command_voids_what_its_options_say(log):
    asked = ["feedback", "void", "--from", "2021-03-01T12:00", "--to", "2021-03-01T12:01"]
    reason = ["--reason", "app 4.2"]
    said = CliRunner().invoke(pipeline.cli, [*asked, *reason, "--dry-run"])
    assert (said.exit_code, said.output[:16]) == (0, "1 true durations")
    assert truths(log) == {"a": 600.0, "b": 9.0}
    assert CliRunner().invoke(pipeline.cli, [*asked, *reason]).exit_code == 0
    assert truths(log) == {"a": None, "b": 9.0}
    assert [line["why"].split(";")[0] for line in read_audit()] == ["app 4.2"]
