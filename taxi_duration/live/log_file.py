"""The files of an SQLite log: whether the open ones are still those at the path.

SQLite does not check. It goes on writing into a file that was deleted, replaced or overwritten,
without an error, and those rows are lost when the last process closes it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxi_duration.errors import LogError
from taxi_duration.files import kind_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

SIDES = ("-wal", "-shm")  # SQLite keeps them beside a database that is open
MAGIC = b"SQLite format 3\0"  # the first bytes of every database of SQLite
MARK = b"TAXI"  # its application_id, bytes 68 to 71: a file copied over the log's has another
HEAD_BYTES = 72
MEND_SECONDS = 3.0  # who has the log open notices a deleted -wal within 1 s and repairs it
# What SQLite or the system says, and what it takes.
REMEDIES = {
    "is full": "free some room",
    "No space left": "free some room",
    "disk I/O error": "the disk is full or broken: free some room",
    "unable to open": "`python pipeline.py doctor` says what is wrong with its folder",
    "readonly database": "let it be written: it is mounted read-only, or another user's",
}

Identity = tuple[int, int] | None


class LogFile:
    """A database of SQLite that is open, with its side files.

    Args:
        path: of the database.
        engine: has it open, with its tables made.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self.engine = engine
        self._real = path.resolve()  # SQLite puts the side files beside a link's target
        # While a connection is open, SQLite removes no side file, and the content of a deleted
        # one can be saved.
        self._keeper = engine.connect()
        self._keeping = threading.Lock()
        query = self._keeper.exec_driver_sql
        if query("PRAGMA application_id").scalar() == 0:
            query(f"PRAGMA application_id = {int.from_bytes(MARK)}")
        self._keeper.commit()
        self.checkpoint()  # so that the mark is in the file
        self._database = identity(path)
        self._sides = {suffix: identity(self._side(suffix)) for suffix in SIDES}
        self._number = _number_of(self._database)
        self._marks = {MARK, self._head()[-len(MARK) :]}

    def is_current(self) -> bool:
        """Return whether all open files are still those at their paths, not overwritten."""
        return self._is_our_database() and all(
            identity(self._side(suffix)) == own for suffix, own in self._sides.items()
        )

    def let_go(self) -> None:
        """Close without writing into files that were deleted, replaced or overwritten.

        When only side files were deleted, their content is first moved into the database,
        which is still ours.

        Raises:
            SQLAlchemyError, LogError: that failed and must be tried again; nothing is closed.
        """
        from sqlalchemy import event

        with opening_lock(self.path.parent):
            if self._is_our_database() and not self._has_other_sides():
                self.checkpoint("TRUNCATE")
            else:
                event.listen(self.engine, "close", _close_without_checkpoint)
            self.close()
            for suffix, own in self._sides.items():
                if own is not None and identity(self._side(suffix)) == own:
                    self._side(suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the connections; those in use, when they are given back."""
        from sqlalchemy import event

        with self._keeping:
            self._keeper.close()
        # Or one that is given back later would stay open, and hold its lock, until Python collects
        # the pool.
        event.listen(self.engine, "checkin", _close_given_back)
        self.engine.dispose()

    def checkpoint(self, kind: str = "PASSIVE") -> None:
        """Move the content of the -wal into the database.

        Args:
            kind: SQLite's PASSIVE (moves what it can) or TRUNCATE (all, and empties the -wal).
        Raises:
            SQLAlchemyError: the file cannot be written.
            LogError: TRUNCATE, while somebody writes.
        """
        with self._keeping:
            if self._keeper.closed:  # another thread has just closed it
                return
            busy, *_ = self._keeper.exec_driver_sql(f"PRAGMA wal_checkpoint({kind})").one()
            self._keeper.rollback()
        if busy and kind != "PASSIVE":
            raise LogError(f"somebody writes into {self.path.name} whose side files were deleted")

    def _side(self, suffix: str) -> Path:
        return self._real.with_name(self._real.name + suffix)

    def _is_our_database(self) -> bool:
        if self._database is None or identity(self.path) != self._database:
            return False
        head = self._head()
        return not head or (head.startswith(MAGIC) and head[-len(MARK) :] in self._marks)

    def _has_other_sides(self) -> bool:
        """True when somebody opened the database after our side files were deleted."""
        found = {suffix: identity(self._side(suffix)) for suffix in SIDES}
        return any(found[suffix] not in (None, own) for suffix, own in self._sides.items())

    def _head(self) -> bytes:
        """Return the first bytes of the file on disk; none when they cannot be read.

        Read through SQLite's own descriptor: closing another one would release SQLite's locks.
        """
        with suppress(OSError):
            if _identity_of(os.fstat(self._number)) != self._database:
                self._number = _number_of(self._database)
            head = os.pread(self._number, HEAD_BYTES, 0)
            return head if len(head) == HEAD_BYTES else b"cut off"
        return b""


def open_log_file(url: str, path: Path, lock_seconds: float) -> LogFile:
    """Open an SQLite log; file and folder are created when missing.

    Args:
        url: SQLAlchemy address of the file.
        path: the same file.
        lock_seconds: how long to wait for another writer.
    Raises:
        LogError: the file is something else, or damaged; it is left as it is.
        SQLAlchemyError, OSError: it cannot be opened.
    """
    from taxi_duration.live.log_engine import make_engine

    path.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + MEND_SECONDS
    while True:
        with opening_lock(path.parent):
            if _make_way(path, time.monotonic() >= until):
                _refuse_others(path, lock_seconds)
                return LogFile(path, make_engine(url, lock_seconds))
        time.sleep(0.1)  # its -wal was deleted: the process that has it open repairs that


@contextmanager
def opening_lock(folder: Path) -> Iterator[None]:
    """Lock a folder: one process at a time opens, creates or repairs its log."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def identity(path: Path) -> Identity:
    """Return device and inode of the file at a path; None when there is none."""
    try:
        return _identity_of(path.stat())
    except OSError:
        return None


def _identity_of(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _number_of(file: Identity) -> int:
    """Return a descriptor of this process for an open file, -1 when there is none."""
    for name in os.listdir("/dev/fd"):  # noqa: PTH208
        with suppress(OSError):
            if _identity_of(os.fstat(int(name))) == file:
                return int(name)
    return -1


def _close_without_checkpoint(connection: sqlite3.Connection, _record: Any) -> None:
    """Keep SQLite from checkpointing the -wal into the file when it closes: interrupt it."""
    connection.interrupt()


def _close_given_back(_connection: sqlite3.Connection, record: Any) -> None:
    record.invalidate()


def _make_way(path: Path, is_late: bool) -> bool:
    """Remove side files left without a database; False while their owner may repair them.

    SQLite would take them for those of the database that is opened now.

    Raises:
        LogError: the path is a folder, a pipe or the like.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        status = None
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise LogError(f"{path.name} is {kind_of(status.st_mode)}, no file; move it away")
    wal, shm = (path.resolve().with_name(path.resolve().name + suffix) for suffix in SIDES)
    if status is not None and status.st_size:
        if wal.exists() or not shm.exists():
            return True
        if not is_late:
            return False
    for side in (wal, shm):
        side.unlink(missing_ok=True)
    return True


def reason_of(error: Exception) -> str:
    """Say in one line what the database or the disk refused, and what to do where that is known."""
    said = str(getattr(error, "orig", None) or error).splitlines()[0]
    remedies = (do for part, do in REMEDIES.items() if part in said)
    return "; ".join([said, *remedies])


def _refuse_others(path: Path, lock_seconds: float) -> None:
    """Check an existing file before anything is written into it.

    Raises:
        LogError: it is no SQLite database, or another program's.
    """
    if not path.exists() or not path.stat().st_size:
        return
    query = "SELECT group_concat(name) FROM pragma_table_info('predictions')"
    tables = "SELECT count(*) FROM sqlite_master WHERE type = 'table'"
    try:
        address = f"{path.resolve().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, lock_seconds, uri=True)) as connection:
            (names,) = connection.execute(query).fetchone()
            (count,) = connection.execute(tables).fetchone()
            (mark,) = connection.execute("PRAGMA application_id").fetchone()
    except sqlite3.OperationalError as error:
        raise LogError(f"the prediction log cannot be used: {reason_of(error)}") from error
    except sqlite3.DatabaseError as error:
        raise LogError(f"{path.name} is damaged or no database ({error}); move it away, a new one "
                       "is made and takes what waits") from error  # fmt: skip
    is_marked = mark == int.from_bytes(MARK)  # ours, even if somebody dropped the table
    if count and not is_marked and "prediction_id" not in (names or "").split(","):
        raise LogError(f"{path.name} is another program's database; move it away, or name another "
                       "place in LOG_URL")  # fmt: skip
