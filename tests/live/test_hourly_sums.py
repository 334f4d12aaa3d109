"""The sums by hour say what the rows say, whatever came to them, and from whom."""

from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np
import pytest
from sqlalchemy import event, select
from truth_sets import changed, feedback_rows, log_rows, told_rides, with_outside

from taxi_duration.domain.truths import NO_TIME, OUTSIDE, QUARANTINED, SCORED
from taxi_duration.evaluation.health import judge_frame
from taxi_duration.live import hourly_sums, log_tables
from taxi_duration.live.log_tables import feedback, hourly_rides, hourly_truths, predictions
from taxi_duration.live.prediction_log import open_log
from taxi_duration.loop.monitor import log_frame

HOUR = 3600.0


def mixed_rides():
    """Three days as they come: odd durations, late ones, a call in seconds, a day doubled."""
    frame = with_outside(told_rides(a_day=150))
    n = np.arange(len(frame))
    frame = changed(frame, n // 25 == 2, 60.0)
    frame = changed(frame, (n >= 300) & (n % 3 < 2), 5.0)
    frame.loc[n % 11 == 0, "true_duration"] = np.nan
    frame.loc[n % 37 == 5, "PULocationID"] = 264
    far = n % 41 == 7
    frame.loc[far, ["PULocationID", "DOLocationID", "true_duration"]] = [132, 259, 2.0]
    frame.loc[np.isin(n, (20, 210)), "true_duration"] = 2000.0
    return frame


def expected_summary(frame):
    """Figures of each model and arm, from the rule in numpy."""
    frame = frame.assign(verdict=judge_frame(frame))
    for (model, arm), rows in frame.groupby(["model", "arm"]):
        right = rows[rows["verdict"] == SCORED]
        error = right["duration"] - right["true_duration"]
        covered = right["true_duration"].between(right["p10"], right["p90"])
        yield {
            "model": model, "arm": arm, "predictions": len(rows),
            "feedback": int(rows["true_duration"].notna().sum()),
            **{code: int((rows["verdict"] == code).sum()) for code in
               (SCORED, *OUTSIDE, *QUARANTINED)},
            "mean_error": mean(error.abs()), "mean_square": mean(error**2),
            "coverage": mean(covered),
            "latency_ms": pytest.approx(0.5), "last_asked_at": rows["asked_at"].max(),
        }  # fmt: skip


def mean(values):
    return pytest.approx(values.mean()) if len(values) else None


def rows_of(frame, seconds: float = 60.0):
    """The rides as the service logs them, so far from each other: over several hours."""
    rows = log_rows(frame)
    for i, row in enumerate(rows):
        row.asked_at, row.latency_ms = seconds * i, None if i % 5 == 4 else 0.5
    return rows


def check_sums(log, since=None):
    """Hold the summary against the rule in numpy over rows, and return it."""
    by_name = lambda row: (row["model"], row["arm"])  # noqa: E731
    found = sorted(log.summary(since), key=by_name)
    logged = log_frame(log.answered(since=since))
    assert found == sorted(expected_summary(logged), key=by_name)
    return found


def total(found):
    return Counter({code: sum(row[code] for row in found) for code in (*OUTSIDE, *QUARANTINED)})


@pytest.mark.parametrize("hours", [None, 0, 2, 5])
def test_summary_counts_by_the_rule_of_numpy(log, hours):
    frame = mixed_rides()
    log.add(rows_of(frame))
    log.add_feedback(feedback_rows(frame))
    found = check_sums(log, None if hours is None else HOUR * hours)
    if not hours:
        assert total(found)[NO_TIME] == 0
        assert min(total(found)[code] for code in (*OUTSIDE, *QUARANTINED) if code != NO_TIME) > 0


@pytest.mark.parametrize("since", [0, 2, 5])
def test_hours_are_by_the_rule_of_numpy_too(log, since):
    frame = mixed_rides()
    log.add(rows_of(frame))
    log.add_feedback(feedback_rows(frame))
    logged = log_frame(log.answered(since=HOUR * since))
    logged = logged.assign(verdict=judge_frame(logged), hour=logged["asked_at"] // HOUR)
    expected = []
    for hour, rows in logged.groupby("hour"):
        right = rows[rows["verdict"] == SCORED]
        error = (right["duration"] - right["true_duration"]).abs()
        expected.append({"at": HOUR * hour, "rides": len(rows), "scored": len(right),
                         "mean_error": mean(error), "latency_ms": pytest.approx(0.5)})  # fmt: skip
    assert log.hours(HOUR * since) == expected
    assert since or any(one["scored"] for one in expected)


def test_an_hour_whose_truths_were_voided_has_no_error(log):
    frame = told_rides(days=1, a_day=40)
    log.add(rows_of(frame))
    log.add_feedback(feedback_rows(frame))
    assert log.hours(0.0)[0]["scored"] > 0
    log.void_feedback(0, 4e9, "ann", "all")
    (hour,) = log.hours(0.0)
    assert (hour["rides"], hour["scored"], hour["mean_error"]) == (40, 0, None)


def test_truths_that_were_never_counted_are_not_owed_by_those_that_come(log):
    """An older release goes on serving on a log that a newer one has migrated: it sums nothing."""
    frame = told_rides(days=1, a_day=40)
    log.add(rows_of(frame))
    log.add_feedback(feedback_rows(frame))
    with log._store._begin() as connection:
        connection.execute(hourly_truths.delete())
    assert log.void_feedback(0, 4e9, "ann", "all") == 40
    told = {(row["feedback"], row["scored"], row["mean_error"]) for row in log.summary()}
    assert told == {(0, 0, None)}
    assert [(hour["scored"], hour["mean_error"]) for hour in log.hours(0.0)] == [(0, None)]
    log.add_feedback(feedback_rows(frame))
    check_sums(log)


def test_the_hour_of_the_first_moment_counts_as_a_whole(log):
    log.add(rows_of(told_rides(days=1, a_day=180)))  # three hours, a ride a minute
    assert sum(row["predictions"] for row in log.summary(HOUR + 1800)) == 120
    assert sum(row["predictions"] for row in log.summary(2 * HOUR)) == 60


def test_rides_by_a_clock_that_was_ahead_count_when_their_hour_has_come(log, monkeypatch):
    """They would be among the last seven days for a year."""
    frame = told_rides(days=1, a_day=120)
    log.add(rows_of(frame))
    log.add_feedback(feedback_rows(frame))
    whole = log.summary(0.0), log.hours(0.0)
    monkeypatch.setattr(time, "time", lambda: HOUR - 1.0)
    (models, hours) = log.summary(0.0), log.hours(0.0)
    assert sum(row["predictions"] for row in models) == 60
    assert sum(row["feedback"] for row in models) == 60
    assert hours == whole[1][:1]
    monkeypatch.setattr(time, "time", lambda: HOUR + 1.0)
    assert (log.summary(0.0), log.hours(0.0)) == whole


def test_late_and_voided_feedback_turn_a_whole_day_and_back(log):
    """60 good rides of a day; then so many in seconds that the day is off; then those voided."""
    frame = told_rides(days=1, a_day=160)
    frame["received_at"] = 2e9 + np.arange(160)  # each told alone: no call is looked at
    good, bad = frame.iloc[:60], changed(frame, np.ones(160, bool), 60.0).iloc[60:]
    log.add(rows_of(frame))
    log.add_feedback(feedback_rows(good))
    assert total(check_sums(log))["off_by_factor"] == 0
    for row in feedback_rows(bad):
        log.add_feedback([row])
    assert total(check_sums(log))["off_by_factor"] == 160
    assert log.void_feedback(2e9 + 60, 3e9, "ann", "seconds") == 100
    assert total(check_sums(log))["off_by_factor"] == 0
    log.add_feedback(feedback_rows(frame.iloc[60:].assign(received_at=3e9)))
    assert sum(row["scored"] for row in check_sums(log)) > 150
    assert log.void_feedback(0, 4e9, "ann", "all") == 260
    for row in log.summary():
        assert (row["feedback"], row["mean_error"], row["coverage"]) == (0, None, None)


def test_a_call_that_reaches_over_hours_goes_as_a_whole(log):
    frame = changed(told_rides(days=1, a_day=50), np.arange(50) < 25, 60.0)
    log.add(rows_of(frame, seconds=HOUR))  # a ride an hour
    log.add_feedback(feedback_rows(frame))
    assert total(check_sums(log))["off_by_factor"] == 25


def test_what_is_known_already_is_counted_once(log):
    frame = told_rides(days=1, a_day=40)
    log.add([*rows_of(frame), *rows_of(frame.iloc[:7])])
    log.drain()
    log.add(rows_of(frame.iloc[:9]))
    log.add_feedback([*feedback_rows(frame), *feedback_rows(frame.iloc[:3])])
    log.add_feedback(feedback_rows(frame.assign(true_duration=1.5)))
    assert sum(row["predictions"] for row in check_sums(log)) == 40


def test_a_call_of_which_another_told_a_part_is_judged_without_it(log, monkeypatch):
    """20 rides in seconds are a call that is off; the 19 that were new are too few."""
    frame = changed(told_rides(days=1, a_day=20), np.ones(20, bool), 4.0)
    log.add(rows_of(frame))
    log.add_feedback(feedback_rows(frame.iloc[:1].assign(received_at=5.0)))
    known = log_tables.known_ids

    def too_early(connection, ids, table=predictions):
        return iter(()) if table is feedback else known(connection, ids, table)

    monkeypatch.setattr(log_tables, "known_ids", too_early)
    result = log.add_feedback(feedback_rows(frame.assign(received_at=9.0)))
    assert (len(result.known), len(result.duplicate)) == (19, 1)
    assert total(check_sums(log))["off_by_factor"] == 0


def test_two_writers_at_once_lose_no_sum(url, tmp_path):
    frame = told_rides(days=2, a_day=150)
    logs = [open_log(url, tmp_path / "live" / host) for host in ("here", "there")]
    errors: list[Exception] = []

    def write(k: int) -> None:
        try:
            mine = rows_of(frame)[k::2]
            for start in range(0, len(mine), 10):
                logs[k].add(mine[start : start + 10])
                logs[k].drain()
            # Both tell of every ride, in their own order: each is counted for one of them.
            told = feedback_rows(frame.assign(received_at=1e9 + k))
            for start in range(0, len(told), 100):
                logs[k].add_feedback(told[start : start + 100][:: 1 - 2 * k])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(k,)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    logs[0].add_feedback(feedback_rows(frame))  # of rides that the other had not moved yet
    # Calls are told apart by their time alone here, and both told in several.
    assert sum(row["feedback"] for row in logs[0].summary()) == 300
    assert sum(row["predictions"] for row in check_rides(logs[0])) == 300
    for each in logs:
        each.close()


def check_rides(log):
    """The summary, once the sums are those made anew of the rows."""
    found = log.summary()
    with log._store._begin() as connection:
        kept = everything(connection, hourly_rides)
        truths = summed(connection)
        connection.execute(hourly_rides.delete())
        connection.execute(hourly_truths.delete())
        hourly_sums.make_sums(connection, 0.0)
        assert everything(connection, hourly_rides) == kept
        assert summed(connection) == truths
    return found


def summed(connection):
    rides = connection.scalars(select(hourly_truths.c.rides)).all()
    errors = connection.scalars(select(hourly_truths.c.error)).all()
    return sum(rides), pytest.approx(sum(errors))


def test_a_transaction_that_ends_half_way_leaves_rows_and_sums_as_they_were(log, monkeypatch):
    frame = told_rides(days=1, a_day=60)
    log.add(rows_of(frame))
    log.add_feedback(feedback_rows(frame.iloc[:30]))
    before = log.summary()

    def killed(*_):
        raise RuntimeError("killed")

    for name in ("_add", "_counting_new"):
        monkeypatch.setattr(hourly_sums, name, killed)
    with pytest.raises(RuntimeError):
        log.add_feedback(feedback_rows(frame))
    with pytest.raises(RuntimeError):
        log.void_feedback(0, 2e9, "ann", "all")
    log.add(rows_of(told_rides(days=1, a_day=90)))
    with pytest.raises(RuntimeError):
        log.drain()
    with log._store._begin() as connection:
        rows = [len(connection.execute(table.select()).all()) for table in (predictions, feedback)]
    assert rows == [60, 30]
    assert log._store.summary(None) == before
    monkeypatch.undo()
    assert sum(row["predictions"] for row in check_sums(log)) == 90


def test_sums_made_of_rows_are_those_that_were_kept(log):
    """What an older log gets when it is migrated."""
    frame = mixed_rides()
    log.add(rows_of(frame))
    log.add_feedback(feedback_rows(frame))
    log.drain()
    tables = (hourly_rides, hourly_truths)
    with log._store._begin() as connection:
        kept = [everything(connection, table) for table in tables]
        for table in tables:
            connection.execute(table.delete())
        connection.execute(feedback.update().values(verdict=SCORED))
        hourly_sums.make_sums(connection, 0.0)
        assert [everything(connection, table) for table in tables] == kept
        verdicts = set(connection.scalars(select(feedback.c.verdict)))
    assert verdicts >= {SCORED, *OUTSIDE, "off_by_factor"}


@pytest.mark.parametrize("at_once", [1, 24, 26, 1000])
def test_calls_are_read_whole_however_many_rows_are_read_at_once(log, at_once):
    frame = told_rides(days=1, a_day=100)  # told in calls of 25
    log.add(rows_of(frame))
    log.add_feedback(feedback_rows(frame))
    with log._store._begin() as connection:
        read = list(hourly_sums.calls(connection, 0.0, at_once))
    times = [{row["received_at"] for row in part} for part in read]
    assert sum(map(len, read)) == 100
    assert sum(map(len, times)) == len(set().union(*times)) == 4


def everything(connection, table):
    rows = sorted(tuple(row) for row in connection.execute(table.select()))
    return [tuple(pytest.approx(v) if isinstance(v, float) else v for v in row) for row in rows]


def test_a_page_reads_sums_and_no_row(log):
    """However many rides there are: what is read grows with hours, models and arms."""
    log.add(rows_of(told_rides(days=1, a_day=100), seconds=1.0))
    log.drain()
    asked: list[str] = []
    engine = log._store._opened().engine
    event.listen(engine, "before_cursor_execute", lambda *found: asked.append(found[2]))
    log.summary(0.0)
    assert asked
    assert not [text for text in asked if "predictions" in text or "feedback" in text]


def test_forgotten_hours_are_gone_and_others_stay(log):
    log.add(rows_of(told_rides(days=1, a_day=180)))
    log.drain()
    with log._store._begin() as connection:
        hourly_sums.drop_sums(connection, 2 * HOUR)
        assert set(connection.scalars(select(hourly_rides.c.hour))) == {2}
