"""The whole service while somebody does something to its log: said, outlived, and mended.

Two workers answer rides and take feedback all the while. Nothing that was acknowledged may be
missing in the end, but for what lay in a file that was deleted.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from faulty_service import Place, missing, riding
from servers import service_process

from taxi_duration.live.deployment import deploy_champion

pytestmark = [pytest.mark.long, pytest.mark.faults]

FAULTS = {  # rows of docs/reliability.md
    "test_log_that_is_gone_is_made_again_and_keeps_all_that_follows":
        "log deleted, moved or emptied",
    "test_older_log_is_brought_forward_while_it_serves":
        "log replaced by one of an older release; a table dropped",
    "test_lost_side_files_cost_nothing": "-wal or -shm of the log deleted",
    "test_what_is_no_log_is_said_and_all_comes_in_once_it_is_moved_away":
        "log replaced by another database, garbage or a folder",
    "test_read_only_files_are_said_and_written_again_when_they_may":
        "log, spool or folder read-only",
    "test_lock_of_another_process_is_said_and_waited_for": "log locked by another process",
    "test_stopped_process_that_holds_the_spool_is_said": "spool held by a stopped process",
}  # fmt: skip


@pytest.fixture
def place(home, registered, tmp_path, request, reliability) -> Iterator[Place]:
    deploy_champion(registered[1], "first")
    with service_process(tmp_path, WORKERS="2") as address:
        place = Place(address)
        yield place
    if place.back_after is not None:  # the test came to its end
        reliability(FAULTS[request.function.__name__], 1, place.acknowledged, 0, place.back_after)


def delete(place: Place) -> None:
    place.database.unlink()


def delete_all(place: Place) -> None:
    for path in place.files():
        path.unlink()


def delete_folder(place: Place) -> None:
    """At once: what the service made in it meanwhile would be deleted with it."""
    gone = place.folder.with_name("deleted")
    place.folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def move_folder(place: Place) -> None:
    place.folder.rename(place.folder.with_name("moved"))


def truncate(place: Place) -> None:
    os.truncate(place.database, 0)


@pytest.mark.parametrize("fault", [delete, delete_all, delete_folder, move_folder, truncate])
def test_log_that_is_gone_is_made_again_and_keeps_all_that_follows(place, fault):
    with riding(place) as client:
        fault(place)
        at = time.time()
        place.wait(None)
        time.sleep(1)
        assert place.database.stat().st_size > 0
        assert client.told[-1][0] > at
    assert missing(client, at) == []


def replace_by_older_log(place: Place) -> None:
    """A log of the first release: two tables fewer, no schema number."""
    with closing(sqlite3.connect(place.database)) as connection:
        query = "SELECT sql FROM sqlite_master WHERE name = 'predictions'"
        (schema,) = connection.execute(query).fetchone()
    path = place.folder.parent / "older.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(schema)
        connection.commit()
    path.replace(place.database)


def drop_table(place: Place) -> None:
    with closing(sqlite3.connect(place.database, 30)) as connection:
        connection.execute("DROP TABLE feedback")
        connection.commit()


@pytest.mark.parametrize("fault", [replace_by_older_log, drop_table])
def test_older_log_is_brought_forward_while_it_serves(place, fault):
    with riding(place) as client:
        fault(place)
        at = time.time()
        time.sleep(2)
        place.wait(None)
        assert client.told[-1][0] > at
    assert missing(client, at + 2) == []


@pytest.mark.parametrize("sides", ["-wal", "-shm", "-*"])
def test_lost_side_files_cost_nothing(place, sides):
    with riding(place) as client:
        for path in place.folder.glob(f"predictions.db{sides}"):
            path.unlink()
        time.sleep(1)
        place.wait(None)
    assert missing(client) == []
    with closing(sqlite3.connect(place.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def another(place: Place) -> Path:
    path = place.folder.parent / "another.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE cakes (name TEXT)")
        connection.commit()
    return path


def replace_by_another(place: Place) -> None:
    another(place).replace(place.database)


def overwrite_by_another(place: Place) -> None:
    shutil.copyfile(another(place), place.database)


def overwrite_by_garbage(place: Place) -> None:
    place.database.write_bytes(b"garbage" * 5000)


def replace_by_folder(place: Place) -> None:
    place.database.unlink()
    place.database.mkdir()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (replace_by_another, "is another program's database"),
        (overwrite_by_another, "is another program's database"),
        (overwrite_by_garbage, "is damaged or no database"),
        (replace_by_folder, "is a folder, no file"),
    ],
)
def test_what_is_no_log_is_said_and_all_comes_in_once_it_is_moved_away(place, fault, said):
    with riding(place) as client:
        fault(place)
        at = time.time()
        place.wait(said)
        place.database.rename(place.folder / "aside")
        place.wait(None)
    assert missing(client, at) == []


@contextmanager
def immutable(*paths: Path) -> Iterator[None]:
    """Files and folders that nobody may change: rights do not stop root, this does."""
    done = subprocess.run(["chattr", "+i", *paths], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"files cannot be made immutable here: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *paths], check=True)


def without_shm(place: Place) -> list[Path]:
    """SQLite maps the -shm: a write into one made immutable ends the worker (SIGBUS)."""
    return [path for path in place.files() if path.suffix != ".db-shm"]


@pytest.mark.parametrize(
    ("choose", "said", "is_logged"),
    [
        (lambda place: [place.database], "may not be written", True),
        (without_shm, "may not be written", True),
        (lambda place: [*place.spool.glob("*.spool"), place.spool], "cannot be written", False),
        (lambda place: [*without_shm(place), *place.spool.glob("*"), place.spool, place.folder],
         "cannot be written", False),
    ],
    ids=["database", "database and wal", "spool", "all"],
)  # fmt: skip
def test_read_only_files_are_said_and_written_again_when_they_may(place, choose, said, is_logged):
    with riding(place) as client:
        with immutable(*choose(place)):
            place.wait(said)
            if not is_logged:
                assert client.unlogged > 0
        place.wait(None)
        before = client.unlogged
        time.sleep(1)
        assert client.unlogged == before
    assert missing(client) == []


def test_full_disk_is_said_and_outlived(home, registered, tmp_path, reliability):
    disk = home / "data"
    disk.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", disk]).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        deploy_champion(registered[1], "first")
        with service_process(tmp_path, WORKERS="2") as address:
            place = Place(address)
            with riding(place) as client:
                with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
                    while True:
                        file.write(b"\0" * 4096)
                place.wait("full")
                assert client.unlogged > 0
                (disk / "filler").unlink()
                place.wait(None)
        assert missing(client) == []
        reliability("disk full", 1, place.acknowledged, 0, place.back_after)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_lock_of_another_process_is_said_and_waited_for(place):
    with riding(place) as client:
        with closing(sqlite3.connect(place.database, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            place.wait("database is locked|moves no rows")  # one worker tries, one waits for it
            connection.execute("ROLLBACK")
        place.wait(None)
    assert missing(client) == []


def test_stopped_process_that_holds_the_spool_is_said(place):
    with riding(place) as client:
        with (place.spool / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            place.wait("moves no rows")
        place.wait(None)
    assert missing(client) == []
