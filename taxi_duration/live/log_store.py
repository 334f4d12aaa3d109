"""The SQL side of the prediction log: SQLite in WAL mode or PostgreSQL."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from taxi_duration.errors import ContentError, LogError
from taxi_duration.files import open_file
from taxi_duration.live.log_file import LogFile, open_log_file, reason_of
from taxi_duration.live.log_rows import FeedbackResult, LastTimes
from taxi_duration.live.spool import LOCK_FILE, folder_lock, is_free, spool_files, whole_lines
from taxi_duration.live.spool_lines import ROWS, read_lines

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from taxi_duration.live.archive_reading import ArchiveReader
    from taxi_duration.live.log_archive import Moved
    from taxi_duration.live.traffic_bins import TrafficBins

logger = logging.getLogger(__name__)
LOCK_SECONDS = 5.0  # how long a writer waits for another one of SQLite
READ_SECONDS = 2.0  # for queries of pages and metrics: the sums are read in milliseconds
REJECTED_FILE = "rejected.jsonl"


class Opened(NamedTuple):
    """What a store has open; `file` is None for a server, which looks after its own files."""

    engine: Engine
    file: LogFile | None

    def is_current(self) -> bool:
        return self.file is None or self.file.is_current()


_loading = threading.Lock()


def load_sql() -> None:
    """Import SQLAlchemy and what is built on it, by one thread: call it before the store is used.

    It is imported late, since most commands need no log. Of two threads that import its circular
    modules at once each may be given halves of them, and the process keeps those for good.
    """
    with _loading:
        from taxi_duration.live import (  # noqa: F401
            archive_reading,
            log_engine,
            traffic_sums,
            true_durations,
        )


class LogStore:
    """The SQL side; its queries are described at `PredictionLog`.

    SQLAlchemy is imported on first use: it costs as much as Flask.
    """

    def __init__(self, url: str, spool: Path, archive: Path) -> None:
        self._url = url
        self._archive_folder = archive
        self._spool = spool
        self._lock = threading.RLock()
        self._draining = threading.Lock()
        self._now: Opened | None = None

    # --- connection ---------------------------------------------------------------------

    @contextmanager
    def _begin(self, wanted: Opened | None = None, writes: bool = False) -> Iterator[Connection]:
        """A transaction; errors of the database become LogErrors.

        Args:
            wanted: the store of the first of several transactions that belong together.
            writes: check afterwards that the file written to is still the one at the path.
        """
        from sqlalchemy.exc import DBAPIError

        from taxi_duration.live.log_schema import is_of_schema

        with _as_log_error():
            opened = self._opened()
            if wanted not in (None, opened):
                raise LogError("the prediction log was replaced meanwhile")
            try:
                with opened.engine.begin() as connection:
                    yield connection
            except DBAPIError as error:
                if is_of_schema(error):  # opening again creates what somebody dropped
                    self._leave(opened)
                raise
            if writes and not opened.is_current():
                raise LogError("the prediction log was deleted or replaced at this moment")

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A transaction for pages and metrics: cancelled after `READ_SECONDS`."""
        from taxi_duration.live.log_engine import end_after

        with self._begin() as connection, end_after(connection, READ_SECONDS):
            yield connection

    def _opened(self) -> Opened:
        """Return the open store; opened again when the file on disk is another one."""
        with self._lock:
            if self._now is not None and not self._now.is_current():
                logger.error("the prediction log was deleted, replaced or overwritten")
                if self._now.file is not None:
                    self._now.file.let_go()
                self._now = None
            if self._now is None:
                self._now = self._open()
            return self._now

    def _open(self) -> Opened:
        if (path := _path_of(self._url)) is not None:
            file = open_log_file(self._url, path, LOCK_SECONDS)
            return Opened(file.engine, file)
        from taxi_duration.live.log_engine import make_engine

        return Opened(make_engine(self._url, LOCK_SECONDS), None)

    def close(self) -> None:
        if (now := self._now) is not None:
            self._leave(now)

    def _leave(self, opened: Opened) -> None:
        """Close a store, unless another thread has."""
        with self._lock:
            if self._now is not opened:
                return
            self._now = None
            if opened.file is None:
                opened.engine.dispose()
            elif opened.is_current():
                opened.file.close()
            else:
                with _as_log_error():
                    opened.file.let_go()

    def check_file(self) -> None:
        """Checkpoint the -wal into the database file.

        Raises:
            LogError: the file cannot be written, though its -wal may be.
        """
        with _as_log_error():
            if (file := self._opened().file) is not None:
                for place in (file.path, file.path.parent):
                    if not os.access(place, os.W_OK):  # open files still work, the next open fails
                        raise LogError(f"{place.name} may not be written any more")
                file.checkpoint()

    # --- spool to store -----------------------------------------------------------------

    def drain(self, wait: bool) -> int | None:
        """Move waiting lines into the tables and return how many; None when another thread or
        process is doing so.

        Args:
            wait: for the other one to finish.
        Raises:
            LogError: the store cannot be written or a spool file not read; the lines wait.
        """
        if self._now is not None:  # checked even when another process moves the rows
            with _as_log_error():
                self._opened()
        if not spool_files(self._spool):
            return 0
        if not self._draining.acquire(blocking=wait):
            return None
        try:
            with _as_log_error(self._spool.name), folder_lock(self._spool, wait) as mine:
                return self._drain_files() if mine else None
        finally:
            self._draining.release()

    def _drain_files(self) -> int:
        """Move all files; one that cannot be read does not hold up the others."""
        moved, problem = 0, None
        for path in spool_files(self._spool):
            try:
                moved += self._drain_file(path)
            except FileNotFoundError:
                continue  # the folder was moved away or deleted at this moment
            except (OSError, ContentError) as error:
                problem = error
        if problem is not None:
            raise LogError(f"{self._spool.name}/ cannot be read: {problem}") from problem
        self._show_life()
        return moved

    def _drain_file(self, path: Path) -> int:
        """Move one file's whole lines; remove it when its writer is gone and it is empty."""
        moved = 0
        with _as_log_error():
            store = self._opened()  # the offset belongs to this store only
        with open_file(path) as file:
            ended = is_free(file.fileno())  # asked first: later lines are not missed
            # Lines written meanwhile are left for the next time: following a busy writer would
            # take a transaction for every few rows, without end.
            size = os.fstat(file.fileno()).st_size
            offset = self._offset(store, path.name)
            if offset > size:  # the file was truncated; duplicate rows are ignored
                offset = 0
            while offset < size and (lines := whole_lines(file.fileno(), offset)):
                offset += len(lines)
                content = lines.splitlines(keepends=True)
                moved += len(content)
                self._insert(store, path.name, content, offset)
                self._show_life()
        if ended:
            self._forget(store, path.name)
            path.unlink(missing_ok=True)
        return moved

    def _show_life(self) -> None:
        """Touch the lock file: whoever waits for the lock sees that rows are moving."""
        with suppress(OSError):
            os.utime(self._spool / LOCK_FILE)

    def _offset(self, store: Opened, name: str) -> int:
        from taxi_duration.live.log_tables import spool_offsets

        with self._begin(store) as connection:
            query = spool_offsets.select().where(spool_offsets.c.name == name)
            row = connection.execute(query).first()
            return row.bytes if row else 0

    def _insert(self, store: Opened, name: str, lines: list[bytes], offset: int) -> None:
        from taxi_duration.live import hourly_sums, log_tables

        columns, rejected = read_lines(lines)
        if rejected:
            logger.error("%d damaged lines of the spool are kept in %s", len(rejected),
                         REJECTED_FILE)  # fmt: skip
            with (self._spool / REJECTED_FILE).open("ab") as file:
                file.writelines(rejected)
        with self._begin(store, writes=True) as connection:
            # Written first: this takes SQLite's write lock, so that new rows stay new.
            log_tables.save_offset(connection, name, offset)
            hourly_sums.insert_rides(connection, columns[b"p"])
            for tag, table in (
                (b"s", log_tables.shadow_answers),
                (b"f", log_tables.model_failures),
            ):
                names = ROWS[tag].__struct_fields__
                log_tables.insert_new(connection, table, names, columns[tag])

    def _forget(self, store: Opened, name: str) -> None:
        from taxi_duration.live.log_tables import spool_offsets

        with self._begin(store, writes=True) as connection:
            connection.execute(spool_offsets.delete().where(spool_offsets.c.name == name))

    def is_shared(self) -> bool:
        """Return whether rows may come from another spool: another host's, or another home's."""
        from taxi_duration.live.log_tables import spool_offsets

        if not self._url.startswith("sqlite"):
            return True
        path = _path_of(self._url)
        if path is not None and path.resolve().parent != self._spool.resolve().parent:
            return True
        with self._begin() as connection:
            names = set(connection.scalars(spool_offsets.select()))
        return not names <= {file.name for file in spool_files(self._spool)}

    # --- queries ------------------------------------------------------------------------

    def unknown_ids(self, ids: Iterable[str]) -> set[str]:
        from taxi_duration.live import log_tables

        asked = set(ids)
        with self._begin() as connection:
            return asked.difference(log_tables.known_ids(connection, list(asked)))

    def add_feedback(self, rows: list[Mapping[str, Any]]) -> FeedbackResult:
        from taxi_duration.live import true_durations

        with self._begin(writes=True) as connection:
            return true_durations.add_feedback(connection, self._archive(), rows)

    def count_feedback(self, since: float, until: float) -> int:
        from taxi_duration.live import true_durations

        with self._begin() as connection:
            return true_durations.count_feedback(connection, self._archive(), since, until)

    def void_feedback(
        self, since: float, until: float, by: str, why: str, but: tuple[float, float] | None
    ) -> int:
        from taxi_duration.live.true_durations import void_feedback

        with self._begin(writes=True) as connection:
            return void_feedback(connection, self._archive(), since, until, by, why, but)

    def find_many(self, prediction_ids: Sequence[str]) -> list[dict[str, Any]]:
        from taxi_duration.live.archive_reading import as_answered
        from taxi_duration.live.log_tables import chunks, joined, predictions

        found: list[dict[str, Any]] = []
        with self._begin() as connection:
            for chunk in chunks(list(prediction_ids)):
                query = joined().where(predictions.c.prediction_id.in_(chunk))
                found += map(dict, connection.execute(query).mappings())
            missing = set(prediction_ids) - {row["prediction_id"] for row in found}
            archived = self._archive().find(connection, missing)
        return found + [as_answered(ride) for ride in archived.values()]

    def find_trace(self, trace_id: str) -> list[str]:
        from taxi_duration.live.archive_reading import order_of
        from taxi_duration.live.log_tables import predictions

        query = predictions.select().where(predictions.c.traceparent.like(f"__-{trace_id}-%"))
        with self._begin() as connection:
            found = map(dict, connection.execute(query).mappings())
            rows = {row["prediction_id"]: row for row in found}
            rows |= self._archive().in_trace(connection, trace_id)
        return [row["prediction_id"] for row in sorted(rows.values(), key=order_of)]

    def answered(
        self,
        since: float | None,
        until: float | None,
        model: str | None,
        pair: tuple[str, str] | None,
    ) -> Iterator[dict[str, Any]]:
        from taxi_duration.live.archive_reading import order_of, unique
        from taxi_duration.live.log_tables import joined, predictions, tested

        query = joined() if pair is None else tested(pair)
        query = query.order_by(predictions.c.asked_at, predictions.c.prediction_id)
        if since is not None:
            query = query.where(predictions.c.asked_at >= since)
        if until is not None:
            query = query.where(predictions.c.asked_at < until)
        if model is not None:
            query = query.where(predictions.c.model == model)
        with self._begin() as connection:
            result = connection.execution_options(yield_per=1000).execute(query)
            # Queried after the tables: rides that have left them by then are in the archive.
            rides = self._archive().answered(connection, since, until, model, pair)
            rows = merge(map(dict, result.mappings()), rides, key=order_of)
            yield from unique(rows)

    def summary(self, since: float | None, until: float | None = None) -> list[dict[str, Any]]:
        from taxi_duration.live.hourly_sums import summarize

        with self._reading() as connection:
            return summarize(connection, since, until)

    def hours(self, since: float, until: float) -> list[dict[str, Any]]:
        from taxi_duration.live.hourly_sums import by_hour

        with self._reading() as connection:
            return by_hour(connection, since, until)

    def feedback_rate(self, since: float, name: str) -> dict[str, Any]:
        from taxi_duration.live.log_tables import feedback_rate

        with self._begin() as connection:
            return dict(connection.execute(feedback_rate(since, name)).mappings().one())

    def last_times(self, now: float) -> LastTimes:
        from taxi_duration.live import log_tables
        from taxi_duration.live.archive_reading import last_archived

        with self._reading() as connection:
            here, old = log_tables.last_times(connection, now), last_archived(connection, now)
            pairs = zip(here, old, strict=True)
            return LastTimes(*(max((a for a in pair if a), default=None) for pair in pairs))

    def counts(self) -> dict[str, int]:
        from taxi_duration.live import log_tables

        tables = (log_tables.predictions, log_tables.shadow_answers, log_tables.feedback)
        with self._begin() as connection:
            here = {table.name: log_tables.count(connection, table) for table in tables}
            archived = self._archive().counts(connection)
            return {name: rows + archived[name] for name, rows in here.items()}

    def traffic_bins(self, model_sha256: str, days: float, now: float) -> TrafficBins:
        from taxi_duration.live.traffic_sums import read_bins

        with self._reading() as connection:
            return read_bins(connection, model_sha256, days, now)

    # --- archive ------------------------------------------------------------------------

    def _archive(self) -> ArchiveReader:
        from taxi_duration.live.archive_reading import ArchiveReader

        return ArchiveReader(self._archive_folder)

    def archive(self, now: float, keep_days: int, most_bytes: int) -> Moved | None:
        from taxi_duration.live.log_archive import Archiver, Moved, oldest_to_keep

        with self._begin() as connection:
            before = oldest_to_keep(connection, now, keep_days, most_bytes)
        if before is None:
            return Moved(0, 0, 0)
        begin = partial(self._begin, writes=True)
        return Archiver(begin, self._archive_folder, self._url).move(before)


@contextmanager
def _as_log_error(what: str = "the prediction log") -> Iterator[None]:
    """Turn errors of the database and the disk into a LogError of one line."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise LogError(f"{what} cannot be used: {reason_of(error)}") from error


def _path_of(url: str) -> Path | None:
    """Return the file of an SQLite log; None in memory, read-only or on a server."""
    from sqlalchemy import make_url

    address = make_url(url)
    if address.get_backend_name() != "sqlite" or address.query.get("mode") == "ro":
        return None
    return Path(address.database) if address.database else None
