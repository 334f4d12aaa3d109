"""What pages read is ended in time, and feedback's work grows with its rows and no faster."""

from __future__ import annotations

import time

import pytest
from log_samples import row
from sqlalchemy import event, text

from taxi_duration.errors import LogError
from taxi_duration.live import log_store

ENDLESS = {
    "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n",  # noqa: E501
    "postgresql": "SELECT pg_sleep(600)",
}


def test_a_page_that_would_read_for_ever_is_stopped_and_the_log_goes_on(log, url, monkeypatch):
    log.add([row(f"{i:05d}") for i in range(2000)])
    log.drain()
    monkeypatch.setattr(log_store, "READ_SECONDS", 0.2)
    monkeypatch.setattr("taxi_duration.live.log_engine.PROGRESS_STEPS", 10)
    with pytest.raises(LogError), log._store._reading() as connection:
        connection.execute(text(ENDLESS[url.partition(":")[0]]))
    # The bound is taken off the connection again: whoever reads rows may read for minutes.
    assert len(list(log.answered())) == 2000
    assert log.add_feedback([{"prediction_id": "00007", "duration": 9.0}]).known == ["00007"]
    monkeypatch.undo()
    assert log.summary()[0]["feedback"] == 1


@pytest.mark.parametrize("known", [True, False])
def test_feedback_asks_the_database_in_proportion(log, monkeypatch, known):
    """On PostgreSQL unknown ids are looked for twice: another host may be moving them."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    log.add([row(f"{i:05d}") for i in range(3000 if known else 1)])
    log.drain()
    asked: list[str] = []
    engine = log._store._opened().engine
    event.listen(engine, "before_cursor_execute", lambda *found: asked.append(found[2]))
    counts = []
    for n in (1000, 2000):
        asked.clear()
        told = [{"prediction_id": f"{n + i - 1000:05d}", "duration": 9.0} for i in range(n)]
        result = log.add_feedback(told)
        assert len(result.known if known else result.unknown) >= n - 1
        counts.append(len(asked))
    once = 4 if known else 2  # statements for each 500 ids: rides, told before, told, sums
    assert counts[1] - counts[0] <= 2 * once
    assert counts[1] <= 4 * once + 6


def test_twenty_thousand_unknown_ids_are_answered(log, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    log.add([row("a")])
    told = [{"prediction_id": f"{i:032x}", "duration": 9.0} for i in range(20_000)]
    result = log.add_feedback([*told, {"prediction_id": "a", "duration": 9.0}])
    assert (result.known, len(result.unknown), result.duplicate) == (["a"], 20_000, [])


def test_ride_by_a_clock_that_was_ahead_does_not_hide_that_none_comes(log):
    now = time.time()
    log.add([row("now", now - 60), row("ahead", now + 30 * 86_400)])
    log.add_feedback([
        {"prediction_id": "now", "duration": 9.0, "received_at": now - 30},
        {"prediction_id": "ahead", "duration": 9.0, "received_at": now + 30 * 86_400},
    ])  # fmt: skip
    assert log.last_times() == (now - 60, now - 30)


def test_a_page_waits_for_no_writer(log, url, monkeypatch):
    """Also not where its connection is a new one, as when several pages are open at once."""
    monkeypatch.setattr("taxi_duration.live.log_store.LOCK_SECONDS", 0.1)
    log.add([row("a")])
    log.drain()
    engine = log._store._opened().engine
    with engine.connect() as writer, engine.connect():
        if url.startswith("sqlite"):
            writer.exec_driver_sql("BEGIN EXCLUSIVE")
        writer.execute(text("DELETE FROM predictions"))
        assert log.last_times().ride is not None
        assert log.summary()[0]["predictions"] == 1
