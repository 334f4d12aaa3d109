"""Moving old rides out of the log's tables into the archive.

A file is written under a temporary name, read back and compared, renamed, entered in
`archive_parts`, and only then are its rides deleted, a few at a time while the service serves.
After a kill at any point the next run goes on: it enters files that were not entered and deletes
rides that are in a file. Readers take a ride that is in both places once (`archive_reading`).
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, bindparam, func, make_url, select

from taxi_duration.errors import LogError
from taxi_duration.files import atomic_path, sync_folder
from taxi_duration.live.archive_files import LISTS, Ride, kept, read_rides, write_rides
from taxi_duration.live.archive_reading import ArchiveReader, Part, parts_of
from taxi_duration.live.hourly_sums import drop_sums
from taxi_duration.live.log_engine import give_back_space
from taxi_duration.live.log_tables import (
    archive_parts,
    chunks,
    count,
    feedback,
    insert_new,
    metadata,
    predictions,
    rows_of,
    voided_feedback,
)
from taxi_duration.timestamps import DAY_SECONDS

log = logging.getLogger(__name__)

PART_RIDES = 50_000  # of a file: 2 MB, read whole in some 50 ms to find one ride
SUMS_DAYS = 35  # hourly sums are kept at least so long; pages show a week
# Bytes of a row with its indexes, measured on SQLite with 100,000 rides of benchmarks/log.py. A
# shadow answer in a log of an older release takes 292.
BYTES = {"predictions": 307, "shadow_answers": 195, "feedback": 131}
LOCK_KEY = 0x7A11_0002  # of PostgreSQL's advisory locks

Begin = Callable[[], AbstractContextManager[Connection]]  # a transaction on the log


class Moved(NamedTuple):
    """What a run moved: numbers of rides, files and bytes."""

    rides: int
    files: int
    bytes: int


def oldest_to_keep(
    connection: Connection, now: float, keep_days: int, most_bytes: int
) -> float | None:
    """Return the time (unix seconds) before which rides go to the archive; None when all stay.

    Args:
        now: unix seconds.
        keep_days: whole days (UTC) that rides stay; 0 for ever.
        most_bytes: size of the tables; the oldest rides beyond it go. 0 for no bound.
    """
    ends = []
    if keep_days:
        ends.append((now - keep_days * DAY_SECONDS) // DAY_SECONDS * DAY_SECONDS)
    if most_bytes:
        rows = {name: count(connection, metadata.tables[name]) for name in BYTES}
        rides, taken = rows["predictions"], sum(BYTES[name] * rows[name] for name in BYTES)
        too_many = -(-rides * (taken - most_bytes) // taken) if taken > most_bytes else 0
        if too_many:
            column = predictions.c.asked_at
            first_kept = select(column).order_by(column).offset(min(too_many, rides - 1)).limit(1)
            ends.append(connection.scalar(first_kept) or 0.0)
    return max(ends, default=None)


class Archiver:
    """Moves old rides of one log; a lock keeps others from doing so at the same time.

    Args:
        begin: starts a transaction on the log.
        folder: of the archive.
        url: of the log.
    """

    def __init__(self, begin: Begin, folder: Path, url: str) -> None:
        self._begin, self._folder, self._url = begin, folder, url

    def move(self, before: float) -> Moved | None:
        """Move the rides asked before a time (unix seconds); None when another process is moving.

        Raises:
            LogError: log or archive cannot be written or read; nothing is lost, and the next run
                goes on.
        """
        with self._alone() as mine:
            if not mine:
                return None
            self._enter_unknown_files()
            for part in self._unfinished():
                self._empty(part.name, ArchiveReader(self._folder).read(part))
            moved = Moved(0, 0, 0)
            while rides := self._oldest(before):
                name, size = self._write(rides)
                self._enter(name, rides)
                self._empty(name, rides)
                moved = Moved(moved.rides + len(rides), moved.files + 1, moved.bytes + size)
            with self._begin() as connection:
                newest = connection.scalar(select(func.max(predictions.c.asked_at))) or before
                drop_sums(connection, min(before, newest - SUMS_DAYS * DAY_SECONDS))
            return moved

    # --- files --------------------------------------------------------------------------

    def _oldest(self, before: float) -> list[Ride]:
        """Return the oldest rides, of one month (UTC) and at most `PART_RIDES`."""
        asked = predictions.c
        query = (
            predictions.select()
            .where(asked.asked_at < before)
            .order_by(asked.asked_at, asked.prediction_id)
            .limit(PART_RIDES)
        )
        with self._begin() as connection:
            rows = list(map(dict, connection.execute(query).mappings()))
            month = month_of(rows[0]) if rows else ""
            return whole_rides(connection, [row for row in rows if month_of(row) == month])

    def _write(self, rides: Sequence[Ride]) -> tuple[str, int]:
        """Write a file and check it; return its name and size in bytes.

        Raises:
            LogError: it cannot be written or reads back otherwise; no file is left.
        """
        digest = sha256("".join(ride["prediction_id"] for ride in rides).encode()).hexdigest()
        name = f"{month_of(rides[0])}/{rides[0]['asked_at']:.0f}-{digest[:16]}.parquet"
        path = self._folder / name
        try:
            with atomic_path(path) as part:
                write_rides(part, rides)
                if read_rides(part) != list(map(kept, rides)):
                    raise LogError(f"{name} of the archive does not hold what was written to it")
            sync_folder(self._folder)  # so that the month's folder survives a power cut
            return name, path.stat().st_size
        except (OSError, ValueError) as error:
            raise LogError(f"the log's archive cannot be written: {error}") from error

    def _enter_unknown_files(self) -> None:
        """Enter files left by a killed run or known to a log that was lost."""
        with self._begin() as connection:
            known = {part.name for part in parts_of(connection)}
        for path in sorted(self._folder.glob("*/*.parquet")):
            name = path.relative_to(self._folder).as_posix()
            if name in known or path.name.startswith("."):
                continue
            try:
                self._enter(name, read_rides(path))
            except (OSError, ValueError, KeyError, IndexError) as error:
                log.warning("%s is no file of the log's archive: %s", name, error)

    def _enter(self, name: str, rides: Sequence[Ride]) -> None:
        """Enter a file in `archive_parts`: from now on readers use it."""
        ids, asked = ([ride[of] for ride in rides] for of in ("prediction_id", "asked_at"))
        received = [ride["received_at"] for ride in rides if ride["received_at"] is not None]
        gone = [row["received_at"] for ride in rides for row in ride["voided_feedback"]]
        spans = [of(times, default=None) for times in (received, gone) for of in (min, max)]
        entry = (name, len(rides), min(asked), max(asked), min(ids), max(ids), *spans, False)
        columns = [[value] for value in entry]
        with self._begin() as connection:
            insert_new(connection, archive_parts, archive_parts.c.keys(), columns)

    def _unfinished(self) -> list[Part]:
        with self._begin() as connection:
            return [part for part in parts_of(connection) if not part.emptied]

    # --- tables -------------------------------------------------------------------------

    def _empty(self, name: str, rides: Sequence[Ride]) -> None:
        """Delete the rides of a file from the tables, in small transactions."""
        for chunk in chunks([kept(ride) for ride in rides]):
            with self._begin() as connection:
                _delete(connection, {ride["prediction_id"]: ride for ride in chunk})
            with self._begin() as connection:
                give_back_space(connection)
        with self._begin() as connection:
            of_file = archive_parts.c.name == name
            connection.execute(archive_parts.update().where(of_file).values(emptied=True))

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Hold the lock for archiving this log; yields False when another process holds it."""
        address = make_url(self._url)
        if address.get_backend_name() != "sqlite":
            with self._begin() as connection:
                yield bool(connection.scalar(select(func.pg_try_advisory_xact_lock(LOCK_KEY))))
            return
        if not address.database:
            yield True
            return
        with Path(f"{address.database}.archiving").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def month_of(ride: Ride) -> str:
    """Return the month (UTC) in which a ride was asked."""
    return f"{datetime.fromtimestamp(ride['asked_at'], UTC):%Y-%m}"


def whole_rides(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[Ride]:
    """Return rows of `predictions` joined with the other tables, each as a `Ride`."""
    ids = [row["prediction_id"] for row in rows]
    rides: dict[str, Ride] = {
        row["prediction_id"]: {
            **row, "true_duration": None, "received_at": None, "verdict": None,
            **{name: [] for name in LISTS},
        }
        for row in rows
    }  # fmt: skip
    for row in rows_of(connection, feedback, ids):
        rides[row["prediction_id"]] |= {
            "true_duration": row["duration"], "received_at": row["received_at"],
            "verdict": row["verdict"],
        }  # fmt: skip
    for name in LISTS:
        for row in rows_of(connection, metadata.tables[name], ids):
            rides[row["prediction_id"]][name].append(row)
    for ride in rides.values():
        for name in LISTS:
            ride[name].sort(key=lambda row: (row.get("model_sha256"), row.get("voided_at")))
    return list(rides.values())


def _delete(connection: Connection, archived: dict[str, Ride]) -> None:
    """Delete rides that are the same in tables and archive.

    Feedback and voidings since the file was written stay: they take precedence over the file.
    """
    now = whole_rides(connection, list(rows_of(connection, predictions, list(archived))))
    ids = [ride["prediction_id"] for ride in now if _is_same(ride, archived)]
    known = [archived[of] for of in ids]
    for table in (predictions, *(metadata.tables[name] for name in LISTS[:2])):
        connection.execute(table.delete().where(table.c.prediction_id.in_(ids)))
    judged = [ride for ride in known if ride["received_at"] is not None]
    _delete_rows(connection, feedback, "received_at", judged)
    voided = [row for ride in known for row in ride["voided_feedback"]]
    _delete_rows(connection, voided_feedback, "voided_at", voided)


def _delete_rows(
    connection: Connection, table: Table, moment: str, rows: Sequence[dict[str, Any]]
) -> None:
    """Delete the rows with these ids and times, not those that replaced them."""
    if rows:
        of_id = table.c.prediction_id == bindparam("id")
        statement = table.delete().where(of_id, table.c[moment] == bindparam("at"))
        connection.execute(
            statement, [{"id": row["prediction_id"], "at": row[moment]} for row in rows]
        )


def _is_same(ride: Ride, archived: dict[str, Ride]) -> bool:
    """Return whether the archive has all of a ride but its feedback, which may be newer."""
    other = archived[ride["prediction_id"]]
    newer = ("true_duration", "received_at", "verdict", "voided_feedback")
    return kept(ride) | {name: other[name] for name in newer} == other
