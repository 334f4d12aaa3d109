"""A log on SQLite whose file is deleted, replaced or spoilt while it is open."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from log_samples import row

from taxi_duration.errors import LogError
from taxi_duration.live.log_file import open_log_file
from taxi_duration.live.prediction_log import PredictionLog, open_log


class Place:
    """Where the log lies, and what can be done to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data" / "live"
        self.database = self.folder / "predictions.db"

    def open(self) -> PredictionLog:
        return open_log(f"sqlite:///{self.database}", self.folder / "spool")

    def side(self, suffix: str) -> Path:
        return self.database.with_name(self.database.name + suffix)

    def ids(self) -> set[str]:
        """What lies in the file, as somebody else reads it, who finds it whole."""
        with closing(sqlite3.connect(self.database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return {name for (name,) in connection.execute("SELECT prediction_id FROM predictions")}

    def another(self) -> Path:
        """Make a database of another program."""
        path = self.folder.parent / "another.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE cakes (name TEXT)")
            connection.execute("INSERT INTO cakes VALUES ('plum')")
            connection.commit()
        return path

    def cakes(self) -> list[tuple[str]]:
        with closing(sqlite3.connect(self.database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return connection.execute("SELECT * FROM cakes").fetchall()


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def log(place) -> Iterator[PredictionLog]:
    """A log into which row `before` was moved."""
    log = place.open()
    log.add([row("before")])
    log.drain()
    yield log
    log.close()


def delete(place: Place) -> None:
    place.database.unlink()


def delete_all_three(place: Place) -> None:
    for path in (place.database, place.side("-wal"), place.side("-shm")):
        path.unlink()


def delete_folder(place: Place) -> None:
    shutil.rmtree(place.folder)


def move_folder(place: Place) -> None:
    place.folder.rename(place.folder.with_name("moved"))


def empty(place: Place) -> None:
    os.truncate(place.database, 0)


def replace_by_older_log(place: Place) -> None:
    """One of the first release: fewer tables, another journal."""
    path = place.folder.parent / "older.db"
    with closing(sqlite3.connect(place.database)) as connection:
        (schema,) = connection.execute(
            "SELECT sql FROM sqlite_master WHERE name = 'predictions'"
        ).fetchone()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(schema)
    path.replace(place.database)


@pytest.mark.parametrize(
    "fault",
    [delete, delete_all_three, delete_folder, move_folder, empty, replace_by_older_log],
)
def test_what_is_gone_is_made_again_and_keeps_what_comes_after(log, place, fault):
    fault(place)
    log.add([row("after")])
    log.drain()
    assert "after" in place.ids()
    result = log.add_feedback([{"prediction_id": "after", "duration": 9.0}])
    assert result.known == ["after"]
    assert log.find("after")["true_duration"] == 9.0


def test_rows_that_still_wait_in_the_spool_come_back_with_a_new_file(log, place):
    delete(place)
    log.add([row("after")])
    log.drain()
    assert place.ids() == {"before", "after"}


@pytest.mark.parametrize("sides", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_without_its_side_files_nothing_is_lost(log, place, sides):
    log.add_feedback([{"prediction_id": "before", "duration": 8.0}])
    for suffix in sides:
        place.side(suffix).unlink()
    log.add([row("after")])
    log.drain()
    assert place.ids() == {"before", "after"}
    assert log.find("before")["true_duration"] == 8.0
    log.close()
    assert place.ids() == {"before", "after"}


@pytest.mark.parametrize("sides", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_two_processes_outlive_lost_side_files(log, place, sides):
    """Two stores stand for two workers; each finds out by itself."""
    other = place.open()
    other.add([row("other")])
    other.drain()
    for suffix in sides:
        place.side(suffix).unlink()
    for name, one in (("a", log), ("b", other), ("c", log), ("d", other)):
        one.add([row(name)])
        one.drain()
        assert one.add_feedback([{"prediction_id": name, "duration": 9.0}]).known == [name]
    expected = {"before", "other", "a", "b", "c", "d"}
    assert place.ids() == expected
    other.close()
    assert {found["prediction_id"] for found in log.answered()} == expected


def overwrite_by_garbage(place: Place) -> None:
    place.database.write_bytes(b"garbage" * 5000)


def replace_by_garbage(place: Place) -> None:
    (place.folder / "new").write_bytes(os.urandom(9000))
    (place.folder / "new").replace(place.database)


def overwrite_by_another(place: Place) -> None:
    shutil.copyfile(place.another(), place.database)


def replace_by_another(place: Place) -> None:
    place.another().replace(place.database)


def replace_by_folder(place: Place) -> None:
    place.database.unlink()
    place.database.mkdir()


def replace_by_pipe(place: Place) -> None:
    place.database.unlink()
    os.mkfifo(place.database)


FOREIGN = {
    overwrite_by_garbage: "is damaged or no database",
    replace_by_garbage: "is damaged or no database",
    overwrite_by_another: "is another program's database",
    replace_by_another: "is another program's database",
    replace_by_folder: "is a folder, no file",
    replace_by_pipe: "is a pipe, no file",
}


@pytest.mark.parametrize("fault", FOREIGN)
def test_what_is_no_log_is_refused_left_alone_and_followed_by_a_new_one(log, place, fault):
    fault(place)
    found = (
        None if place.database.is_dir() or place.database.is_fifo() else place.database.read_bytes()
    )
    log.add([row("after")])
    for _ in range(2):
        with pytest.raises(LogError, match=FOREIGN[fault]):
            log.drain()
        with pytest.raises(LogError, match=FOREIGN[fault]):
            log.add_feedback([{"prediction_id": "before", "duration": 9.0}])
    if "another" in fault.__name__:
        assert place.cakes() == [("plum",)]
    elif found is not None:
        assert place.database.read_bytes() == found
    place.database.rename(place.folder / "aside")
    log.drain()
    assert place.ids() == {"before", "after"}


def test_feedback_that_lands_in_a_deleted_file_is_not_acknowledged(log, place, monkeypatch):
    from taxi_duration.live import log_tables

    real = log_tables.insert_feedback

    def insert(connection, rows):
        new = real(connection, rows)
        delete(place)
        return new

    with monkeypatch.context() as patch:
        patch.setattr(log_tables, "insert_feedback", insert)
        with pytest.raises(LogError, match="deleted or replaced at this moment"):
            log.add_feedback([{"prediction_id": "before", "duration": 9.0}])
    assert log.add_feedback([{"prediction_id": "before", "duration": 9.0}]).known == ["before"]


def test_rows_that_land_in_a_deleted_file_are_moved_again(log, place, monkeypatch):
    from taxi_duration.live import log_tables

    real = log_tables.save_offset

    def save(connection, name, offset):
        real(connection, name, offset)
        delete(place)

    log.add([row("after")])
    log._spool.close()  # its file would be removed once it is empty
    with monkeypatch.context() as patch:
        patch.setattr(log_tables, "save_offset", save)
        with pytest.raises(LogError, match="deleted or replaced"):
            log.drain()
    log.drain()
    assert place.ids() == {"before", "after"}


def test_log_that_was_moved_and_put_back_goes_on(log, place):
    moved = place.folder.with_name("moved")
    place.folder.rename(moved)
    log.add([row("after")])
    with suppress(LogError):
        log.drain()
    shutil.rmtree(place.folder)
    moved.rename(place.folder)
    log.add([row("later")])
    log.drain()
    assert {"before", "later"} <= place.ids()


def test_shm_whose_wal_is_gone_is_left_to_who_has_it_open_or_removed(place, monkeypatch, log):
    """Somebody else opens the log first: what the deleted -wal holds is not lost to him."""
    import threading

    place.side("-wal").unlink()
    other = place.open()
    later = threading.Timer(0.5, log.drain)
    later.start()
    assert other.find("before") is not None
    later.join()
    other.close()


def test_stale_side_file_of_nobody_is_removed(place, monkeypatch):
    monkeypatch.setattr("taxi_duration.live.log_file.MEND_SECONDS", 0.2)
    with closing(place.open()) as log:
        log.add([row("a")])
    place.side("-shm").write_bytes(b"\0" * 32768)
    with closing(place.open()) as log:
        assert log.find("a") is not None


@pytest.mark.parametrize(
    "spoil",
    ["DROP TABLE feedback", "DROP TABLE predictions", "ALTER TABLE predictions DROP COLUMN arm"],
)
def test_tables_and_columns_that_somebody_dropped_are_made_again(log, place, spoil):
    with closing(sqlite3.connect(place.database)) as connection:
        connection.execute(spoil)
        connection.commit()
    log.add([row("after")])
    with suppress(LogError):  # that it is gone is found by failing once
        log.drain()
        log.add_feedback([{"prediction_id": "after", "duration": 9.0}])
    log.drain()
    assert "after" in place.ids()
    log.add_feedback([{"prediction_id": "after", "duration": 9.0}])
    assert log.find("after")["true_duration"] == 9.0


def test_log_of_a_newer_release_is_refused_until_it_is_moved_away(log, place):
    with closing(sqlite3.connect(place.folder.parent / "newer.db")) as newer:
        with closing(sqlite3.connect(place.database)) as connection:
            connection.backup(newer)
        newer.execute("UPDATE log_schema SET version = 99")
        newer.commit()
    (place.folder.parent / "newer.db").replace(place.database)
    log.add([row("after")])
    with pytest.raises(LogError, match="has schema 99"):
        log.drain()
    place.database.rename(place.folder / "aside")
    log.drain()
    assert "after" in place.ids()


def descriptors_of(path: Path) -> int:
    """How often this process has the file open."""
    found = 0
    for name in os.listdir("/dev/fd"):  # noqa: PTH208
        with suppress(OSError):
            found += os.path.samestat(os.fstat(int(name)), path.stat())
    return found


@pytest.mark.parametrize("is_overwritten", [False, True])
def test_a_connection_in_use_is_closed_when_it_is_given_back(tmp_path, is_overwritten):
    """It would hold its lock: nobody could make an emptied file a database again."""
    path = tmp_path / "predictions.db"
    file = open_log_file(f"sqlite:///{path}", path, 1.0)
    with file.engine.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM predictions").all()
        if is_overwritten:
            os.truncate(path, 0)
            file.let_go()
        else:
            file.close()
        assert descriptors_of(path)
    assert not descriptors_of(path)
