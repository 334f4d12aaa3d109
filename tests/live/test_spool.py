"""The spool on its way: files that are moved, cut, spoilt or held by somebody else."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from log_samples import row

from taxi_duration.errors import LogError
from taxi_duration.live.prediction_log import PredictionLog, open_log


@pytest.fixture
def spool(tmp_path) -> Path:
    return tmp_path / "live" / "spool"


@pytest.fixture
def log(tmp_path, spool) -> Iterator[PredictionLog]:
    log = open_log(f"sqlite:///{tmp_path / 'predictions.db'}", spool)
    yield log
    log.close()


def ids(log: PredictionLog) -> set[str]:
    return {found["prediction_id"] for found in log.answered()}


def test_rows_do_not_follow_a_spool_that_was_moved_away(log, spool):
    log.add([row("before")])
    spool.rename(spool.with_name("moved"))
    log.add([row("after")])
    assert ids(log) == {"after"}


def test_rows_after_a_cut_of_their_file_get_in(log, spool):
    log.add([row("before"), row("also before")])
    log.drain()
    os.truncate(next(spool.glob("*.spool")), 0)
    log.add([row("after")])
    assert ids(log) == {"before", "also before", "after"}


@pytest.mark.parametrize(
    "spoil", [lambda path: os.mkfifo(path), lambda path: path.mkdir()], ids=["pipe", "folder"]
)
def test_what_is_no_spool_file_is_said_and_keeps_no_row_waiting(log, spool, spoil):
    spool.mkdir(parents=True)
    spoil(spool / "0-first.spool")
    log.add([row("a")])
    with pytest.raises(LogError, match=r"spool/ cannot be read: 0-first\.spool is a"):
        log.drain()
    with pytest.raises(LogError, match="cannot be read"):
        log.check_writable()
    path = spool / "0-first.spool"
    path.rmdir() if path.is_dir() else path.unlink()
    assert ids(log) == {"a"}
    log.check_writable()


def test_pipe_in_place_of_the_lock_holds_nobody(log, spool):
    spool.mkdir(parents=True)
    os.mkfifo(spool / ".lock")
    log.add([row("a")])
    assert ids(log) == {"a"}


def test_file_that_can_no_longer_be_written_is_followed_by_a_new_one(log, spool, monkeypatch):
    log.add([row("a")])
    held, real = log._spool._file, os.write

    def write(file: int, content: bytes) -> int:
        if file == held and os.fstat(file).st_ino == inode:
            raise OSError(errno.EPERM, "Operation not permitted")
        return real(file, content)

    inode = os.fstat(held).st_ino
    monkeypatch.setattr("os.write", write)
    log.add([row("b")])
    monkeypatch.undo()
    assert ids(log) == {"a", "b"}


def test_full_disk_is_not_filled_with_empty_files(log, spool, monkeypatch):
    def full(file: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    for _ in range(5):
        with pytest.raises(LogError, match="No space left"):
            log.add([row("a")])
    assert list(spool.iterdir()) == []


# --- the thread that looks after it ----------------------------------------------------------


def start(log: PredictionLog) -> None:
    log.start()
    while not log.is_watched:
        time.sleep(0.01)
    wait_for(log, None)


def wait_for(log: PredictionLog, said: str | None) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            log.check_writable()
            found = None
        except LogError as error:
            found = str(error)
        if found == said or (said and found and said in found):
            return
        time.sleep(0.02)
    pytest.fail(f"expected {said}, found {found}")


def test_lock_that_is_held_without_moving_rows_is_said(log, spool, monkeypatch):
    monkeypatch.setattr("taxi_duration.live.log_watch.SILENT_SECONDS", 1.0)
    log.add([row("a")])
    start(log)
    with (spool / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        wait_for(log, "who holds the spool's lock moves no rows")
        assert log.waiting_seconds() >= 1
        for _ in range(20):  # somebody who moves rows shows it
            os.utime(spool / ".lock")
            time.sleep(0.1)
        wait_for(log, None)
    wait_for(log, None)


def test_store_that_does_not_answer_is_said_without_waiting_for_it(log, spool, monkeypatch):
    monkeypatch.setattr("taxi_duration.live.log_watch.SILENT_SECONDS", 0.7)
    start(log)
    released = threading.Event()
    monkeypatch.setattr(log._store, "drain", lambda wait: released.wait(30) and 0)
    wait_for(log, "has not answered for")
    (spool / ".lock").touch()  # it answers: rows are being moved, very many of them
    wait_for(log, None)
    released.set()
    wait_for(log, None)


def test_error_that_nobody_foresaw_is_said_and_outlived(log, monkeypatch):
    start(log)

    def fail(wait: bool) -> int:
        raise OverflowError("too large")

    with monkeypatch.context() as patch:
        patch.setattr(log._store, "drain", fail)
        wait_for(log, "cannot be looked after: OverflowError")
    wait_for(log, None)


def test_what_an_earlier_process_left_waits_since_it_began(tmp_path, spool):
    began = time.time_ns() - 60 * 10**9
    spool.mkdir(parents=True)
    (spool / f"{began:020d}-0123.spool").write_bytes(b"")
    blocked = tmp_path / "no folder"
    blocked.write_text("")
    log = open_log(f"sqlite:///{blocked / 'x.db'}", spool)
    log.start()
    assert log.waiting_seconds() >= 60
    log.close()
