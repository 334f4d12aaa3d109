"""The whole service while somebody does something to its log: said, outlived, and mended.

Two workers answer rides and take feedback all the while. Nothing that was acknowledged may be
missing in the end, but for what lay in a file that was deleted.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from servers import ask, service_process
from service_samples import RIDE

from taxi_duration import environment
from taxi_duration.live.deployment import deploy_champion
from taxi_duration.live.prediction_log import open_log

pytestmark = pytest.mark.long

PATIENCE = 30.0  # seconds until it is said, and until it is well again; usually one to eleven


class Client(threading.Thread):
    """Asks rides and tells their durations until it is stopped; remembers what was promised."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.stopped = threading.Event()
        self.promised: list[tuple[float, str]] = []  # when it was asked, and the id in the log
        self.told: list[tuple[float, str]] = []
        self.unlogged = 0
        self.failed: list[tuple[int, str]] = []

    def run(self) -> None:
        while not self.stopped.wait(0.02):
            at = time.time()
            status, body = ask(f"{self.address}/predict", RIDE)
            if status != 200:
                self.failed.append((status, body))
                continue
            answer = json.loads(body)
            if answer.get("logged") is False:
                self.unlogged += 1
                continue
            self.promised.append((at, answer["prediction_id"]))
            if len(self.promised) % 5 == 0:
                told = {"prediction_id": answer["prediction_id"], "duration": 9.0}
                at = time.time()
                status, body = ask(f"{self.address}/feedback", told)
                if status == 200 and json.loads(body)["known"]:
                    self.told.append((at, answer["prediction_id"]))

    def finish(self) -> None:
        self.stopped.set()
        self.join(60)


class Place:
    """A service, and where its log lies."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.folder = environment.live_dir()
        self.database = self.folder / "predictions.db"
        self.spool = self.folder / "spool"

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("predictions.db*"))

    def wait(self, problem: str | None) -> None:
        """Wait until both workers say this at /ready and in the metrics, or that all is well."""
        until, said = time.monotonic() + PATIENCE, "nothing"
        in_a_row = 0
        while in_a_row < 6:  # of two workers, one may be asked again and again
            assert time.monotonic() < until, f"expected {problem}, found {said}"
            status, said = ask(f"{self.address}/ready")
            writable = "taxi_log_writable 1.0" in ask(f"{self.address}/metrics")[1]
            is_as_wanted = (
                status == 200 and writable
                if problem is None
                else status == 503 and re.search(problem, said) and not writable
            )
            in_a_row = in_a_row + 1 if is_as_wanted else 0
            time.sleep(0.05)


@pytest.fixture
def place(home, registered, tmp_path) -> Iterator[Place]:
    deploy_champion(registered[1], "first")
    with service_process(tmp_path, WORKERS="2") as address:
        yield Place(address)


@contextmanager
def riding(place: Place) -> Iterator[Client]:
    client = Client(place.address)
    client.start()
    try:
        time.sleep(1.5)
        yield client
        time.sleep(1.5)
    finally:
        client.finish()
    assert client.failed == []
    assert len(client.promised) > 20


def missing(client: Client, since: float = 0.0) -> list[str]:
    """What was promised since then and is not in the log."""
    with closing(open_log()) as log:
        found = {row["prediction_id"]: row["true_duration"] for row in log.answered()}
    lost = [name for at, name in client.promised if at >= since and name not in found]
    untold = [name for at, name in client.told if at >= since and found.get(name) is None]
    return lost + untold


def delete(place: Place) -> None:
    place.database.unlink()


def delete_all(place: Place) -> None:
    for path in place.files():
        path.unlink()


def delete_folder(place: Place) -> None:
    shutil.rmtree(place.folder)


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


@pytest.mark.parametrize(
    ("choose", "said", "is_logged"),
    [
        (lambda place: [place.database], "may not be written", True),
        (lambda place: place.files(), "may not be written", True),
        (lambda place: [*place.spool.glob("*.spool"), place.spool], "cannot be written", False),
        (lambda place: [*place.files(), *place.spool.glob("*"), place.spool, place.folder],
         "cannot be written", False),
    ],
    ids=["database", "all three", "spool", "all"],
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


def test_full_disk_is_said_and_outlived(home, registered, tmp_path):
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
