"""One of several processes moves the rows of all; the others do so when it does not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from log_samples import row

from taxi_duration.errors import LogError
from taxi_duration.live import log_watch
from taxi_duration.live.prediction_log import PredictionLog, open_log


@pytest.fixture
def log(tmp_path, monkeypatch) -> Iterator[PredictionLog]:
    """A log that nothing has opened: it can be forked."""
    monkeypatch.setattr(log_watch, "KEPT_SECONDS", 1.0)
    log = open_log(f"sqlite:///{tmp_path / 'predictions.db'}", tmp_path / "spool")
    yield log
    log.close()


@pytest.fixture
def keeper(log) -> Iterator[multiprocessing.process.BaseProcess]:
    """A process that keeps the log."""

    def keep() -> None:
        log.start(as_keeper=True)
        signal.pause()

    process = multiprocessing.get_context("fork").Process(target=keep, daemon=True)
    process.start()
    wait_until(lambda: log._watch._read_kept_at() > 0)
    yield process
    process.kill()
    process.join()


@pytest.fixture
def moved(log, monkeypatch) -> list[int | None]:
    """What this process's own moving returned, each time."""
    found: list[int | None] = []
    drain = log._sql.drain

    def noted(wait: bool) -> int | None:
        found.append(drain(wait))
        return found[-1]

    monkeypatch.setattr(log._sql, "drain", noted)
    return found


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rows(tmp_path: Path) -> int:
    """Rides in the table, without moving those that wait; 0 before there is one."""
    with closing(sqlite3.connect(tmp_path / "predictions.db")) as connection:
        if not connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'predictions'"
        ).fetchall():
            return 0
        return int(connection.execute("SELECT count(*) FROM predictions").fetchone()[0])


def test_rows_are_moved_by_the_keeper_alone(log, keeper, moved, tmp_path):
    log.start()
    log.add([row("a")])
    wait_until(lambda: rows(tmp_path) == 1)
    time.sleep(3 * log_watch.DRAIN_SECONDS)
    assert moved == []
    assert log.waiting_seconds() < log_watch.KEPT_SECONDS
    log.check_writable()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_the_keeper_rows_are_moved_all_the_same(log, keeper, moved, tmp_path, number):
    log.start()
    wait_until(lambda: log.is_watched)
    os.kill(keeper.pid, number)
    time.sleep(log_watch.KEPT_SECONDS)
    log.add([row("a")])
    wait_until(lambda: rows(tmp_path) == 1)
    assert sum(n or 0 for n in moved) >= 1
    log.check_writable()


def test_what_the_keeper_cannot_write_is_a_fault_for_all(log, keeper, tmp_path):
    log.start()
    wait_until(lambda: log.is_watched)
    log.check_writable()
    with closing(sqlite3.connect(tmp_path / "predictions.db", timeout=20)) as connection:
        connection.executescript("DROP TABLE predictions; CREATE TABLE predictions (a)")
    log.add([row("a")])

    def is_said() -> bool:
        try:
            log.check_writable()
        except LogError:
            return True
        return False

    wait_until(is_said)


def test_reads_see_what_the_keeper_has_not_moved_yet(log, keeper):
    os.kill(keeper.pid, signal.SIGSTOP)
    log.add([row("a")])
    assert log.find("a")["duration"] == 21.25
