"""The prediction log: every answered prediction, its feedback, and the shadow answers.

A row is written in two steps. Before the answer leaves, one `write` appends it to a file of
the worker's own (the spool): a few microseconds, no lock, and the kernel keeps it whatever
happens to the process. Then a background thread moves rows from the spool into the SQL
store, SQLite in WAL mode or PostgreSQL. How far a file was read is stored in the same
transaction as its rows, so that a crash neither loses nor doubles one. Whoever reads moves
the waiting rows first, and therefore sees everything answered on this host.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from taxi_duration import config
from taxi_duration.errors import LogError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 8_000_000  # a worker goes on in a new spool file after as many
DRAIN_ROWS = 2_000  # rows of one transaction: feedback never waits long for the lock
DRAIN_SECONDS = 0.5
LOCK_SECONDS = 5.0  # how long a writer waits for another one of SQLite
MIN_FREE_BYTES = 1_000_000
IDS_AT_ONCE = 500
REJECTED_FILE = "rejected.jsonl"


class PredictionRow(msgspec.Struct):
    """One answered prediction; the columns of the table `predictions`.

    `asked_at` is unix seconds (UTC), `pickup_at` ISO text in New York local time,
    `trip_distance` miles, `duration` and the quantiles minutes, `support` past trips,
    `model` is `name:version` and `arm` champion or challenger.
    """

    prediction_id: str
    ride_id: str | None
    asked_at: float
    PULocationID: int
    DOLocationID: int
    pickup_at: str
    trip_distance: float | None
    duration: float
    p10: float
    p50: float
    p90: float
    support: int
    used_distance: bool
    model: str
    model_sha256: str
    arm: str
    latency_ms: float | None = None


class PredictionColumns(msgspec.Struct):
    """Many predictions of one model in one request: columns of length n, and what they share.

    `ride_id` is None when no ride has one.
    """

    prediction_id: list[str]
    ride_id: list[str | None] | None
    asked_at: float
    PULocationID: list[int]
    DOLocationID: list[int]
    pickup_at: list[str]
    trip_distance: list[float | None]
    duration: list[float]
    p10: list[float]
    p50: list[float]
    p90: list[float]
    support: list[int]
    used_distance: list[bool]
    model: str
    model_sha256: str
    arm: str
    latency_ms: float | None = None

    def part(self, start: int, stop: int) -> PredictionColumns:
        """Return the rows from start to stop."""
        values = msgspec.structs.astuple(self)
        return PredictionColumns(*(v[start:stop] if isinstance(v, list) else v for v in values))

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the values of each row, in the order of `PredictionRow`."""
        n = len(self.prediction_id)
        columns = [v if isinstance(v, list) else [v] * n for v in msgspec.structs.astuple(self)]
        yield from zip(*columns, strict=True)


class ShadowRow(msgspec.Struct):
    """What the challenger would have answered; the columns of `shadow_answers`."""

    prediction_id: str
    model: str
    model_sha256: str
    duration: float
    p10: float
    p50: float
    p90: float


class FeedbackResult(NamedTuple):
    """Prediction ids by what became of their feedback, each in the order given.

    `duplicate` had feedback before: the first true duration stays.
    """

    known: list[str]
    unknown: list[str]
    duplicate: list[str]


# The first byte of a spool line says which row follows.
_ROW_OF_TAG = {b"p": PredictionRow, b"m": PredictionColumns, b"s": ShadowRow}
_DECODERS = {tag: msgspec.json.Decoder(row) for tag, row in _ROW_OF_TAG.items()}
_encode = msgspec.json.Encoder().encode


def open_log(url: str | None = None, spool: Path | None = None) -> PredictionLog:
    """Return the log of this installation; nothing is opened or made before its first use.

    Args:
        url: SQLAlchemy address; default `LOG_URL`, else SQLite in data/live/.
        spool: folder of the rows on their way; default beside the default store.
    """
    return PredictionLog(url or config.log_url(), spool or config.live_dir() / "spool")


class PredictionLog:
    """The log of one process; safe to use from its threads, and in many processes at once."""

    def __init__(self, url: str, spool: Path) -> None:
        self._spool = SpoolWriter(spool)
        self._store = _Store(url, spool)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # --- writing ------------------------------------------------------------------------

    def add(
        self,
        rows: Iterable[PredictionRow | Mapping[str, Any]],
        shadow: Iterable[ShadowRow | Mapping[str, Any]] = (),
    ) -> None:
        """Keep answered predictions; when this returns, killing the process loses nothing.

        Raises:
            LogError: they could not be written, all or in part.
        """
        lines = [b"p%b\n" % _encode(row) for row in rows]
        lines += [b"s%b\n" % _encode(row) for row in shadow]
        self._spool.write(b"".join(lines))

    def add_many(
        self,
        parts: Iterable[PredictionColumns],
        shadow: Iterable[ShadowRow | Mapping[str, Any]] = (),
    ) -> None:
        """Keep many answered predictions; as `add`, at a fraction of its price for each."""
        lines = []
        for columns in parts:
            for start in range(0, len(columns.prediction_id), DRAIN_ROWS):
                part = columns.part(start, start + DRAIN_ROWS)
                lines.append(b"m%b\n" % _encode(part))
        lines += [b"s%b\n" % _encode(row) for row in shadow]
        self._spool.write(b"".join(lines))

    def add_shadow(self, rows: Iterable[ShadowRow | Mapping[str, Any]]) -> None:
        """Keep the challenger's answers to predictions that the champion answered."""
        self.add((), rows)

    def add_feedback(self, rows: Iterable[Mapping[str, Any]]) -> FeedbackResult:
        """Keep true durations; on disk when this returns. Safe to repeat.

        Args:
            rows: `prediction_id` and `duration` (minutes), optionally `received_at`.
        Raises:
            LogError: the store cannot be written; nothing of the call was kept.
        """
        rows = list(rows)
        self.drain()
        result = self._store.add_feedback(rows)
        if result.unknown and not self._store.is_local:
            # Another host may have answered a moment ago: its rows take a drain to get here.
            time.sleep(2 * DRAIN_SECONDS)
            again = [row for row in rows if row["prediction_id"] in set(result.unknown)]
            later = self._store.add_feedback(again)
            result = FeedbackResult(
                result.known + later.known, later.unknown, result.duplicate + later.duplicate
            )
        return result

    def check_writable(self) -> None:
        """Try both steps of a write.

        Raises:
            LogError: says what cannot be written and why.
        """
        self._spool.write(b"\n")
        if shutil.disk_usage(self._spool.folder).free < MIN_FREE_BYTES:
            raise LogError(f"the disk of {self._spool.folder.name}/ is full")
        self._store.check_writable()

    # --- reading ------------------------------------------------------------------------

    def find(self, prediction_id: str) -> dict[str, Any] | None:
        """Return a prediction as `answered` gives it, None when there is no such id."""
        return next(iter(self.find_many([prediction_id])), None)

    def find_many(self, prediction_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the predictions with these ids, in any order, as `answered` gives them."""
        self.drain()
        return self._store.find_many(prediction_ids)

    def answered(
        self,
        since: float | None = None,
        until: float | None = None,
        model: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield predictions in the order asked, joined with feedback and shadow answer.

        Each is a dict of the columns of `predictions` and `true_duration` (minutes),
        `received_at`, `shadow_model`, `shadow_model_sha256`, `shadow_duration`, `shadow_p10`,
        `shadow_p50`, `shadow_p90`; those are None as long as there is none.

        Args:
            since, until: unix seconds, since <= asked_at < until.
            model: `name:version` of the model that answered.
        """
        self.drain()
        yield from self._store.answered(since, until, model)

    def counts(self) -> dict[str, int]:
        """Return the rows of `predictions`, `shadow_answers` and `feedback`."""
        self.drain()
        return self._store.counts()

    def summary(self, since: float | None = None) -> list[dict[str, Any]]:
        """Return a dict for each model and arm that answered, the latest first.

        `model`, `arm`, `predictions`, `feedback` (counts), `mean_error` (absolute, minutes),
        `mean_square` (of the error), `coverage` (share of true durations within P10-P90),
        `latency_ms`, `last_asked_at`; error and coverage are None without feedback.
        """
        self.drain()
        return self._store.summary(since)

    # --- moving -------------------------------------------------------------------------

    def drain(self, wait: bool = True) -> int:
        """Move waiting rows into the store and return how many lines were moved.

        Args:
            wait: for another process that is at it; else 0 is returned at once.
        Raises:
            LogError: the store cannot be written; the rows wait on.
        """
        return self._store.drain(wait)

    def waiting_bytes(self) -> int:
        """Return the size of what the spool holds, moved or not; 0 when all is quiet."""
        total = 0
        for path in _spool_files(self._spool.folder):
            with suppress(FileNotFoundError):  # another worker may just have moved it
                total += path.stat().st_size
        return total

    def start(self) -> None:
        """Let a background thread move rows twice a second, until `close`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._drain_forever, daemon=True, name="drain")
            self._thread.start()

    def close(self) -> None:
        """Stop the thread, move what waits and give the files back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._spool.close()
        try:
            self.drain()
        except LogError as error:
            logger.warning("rows of the prediction log wait for the next start: %s", error)
        self._store.close()

    def _drain_forever(self) -> None:
        failing = False
        while not self._stop.wait(DRAIN_SECONDS):
            try:
                self.drain(wait=False)
                failing = False
            except LogError as error:
                if not failing:  # once, not twice a second
                    logger.warning("predictions wait in the spool: %s", error)
                failing = True


class SpoolWriter:
    """Appends to a file of this process alone, locked for as long as the process lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._file: int | None = None
        self._pid = 0
        self._size = 0

    def write(self, content: bytes) -> None:
        """Append whole lines in one system call.

        Raises:
            LogError: no space, no permission, no folder.
        """
        with self._lock:
            try:
                if self._file is None or self._is_over():
                    self._open()
                written = os.write(self._file, content)
                self._size += written
                if written != len(content):
                    self.close()  # the cut line ends this file; the next one starts clean
                    raise OSError("only a part could be written, the disk is full")
            except OSError as error:
                raise LogError(f"{self.folder.name}/ cannot be written: {error}") from error

    def close(self) -> None:
        """Give the file up; whoever drains it removes it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _is_over(self) -> bool:
        """True when the file is full, another process's (after a fork), or was deleted."""
        return (
            self._size > SEGMENT_BYTES
            or self._pid != os.getpid()
            or os.fstat(self._file).st_nlink == 0
        )

    def _open(self) -> None:
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{secrets.token_hex(6)}"
        hidden = self.folder / f".{name}"
        self._file = os.open(hidden, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        # The lock tells drainers that more may come. It is taken before they see the file.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        hidden.rename(self.folder / f"{name}.spool")
        self._pid, self._size = os.getpid(), 0


class _Store:
    """The SQL side. SQLAlchemy is imported on first use: it costs as much as Flask."""

    def __init__(self, url: str, spool: Path) -> None:
        self._url = url
        self._spool = spool
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self.is_local = url.startswith("sqlite")

    # --- connection ---------------------------------------------------------------------

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        """A transaction; whatever goes wrong in it is a LogError."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._connected().begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise LogError(f"the prediction log cannot be used: {reason}") from error

    def _connected(self) -> Engine:
        with self._lock:
            if self._engine is None:
                from taxi_duration.log_tables import make_engine

                self._engine = make_engine(self._url, LOCK_SECONDS)
            return self._engine

    def close(self) -> None:
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    def check_writable(self) -> None:
        with self._begin() as connection:
            from taxi_duration.log_tables import try_to_write

            try_to_write(connection)

    # --- spool to store -----------------------------------------------------------------

    def drain(self, wait: bool) -> int:
        if not _spool_files(self._spool):
            return 0
        with self._lock, _folder_lock(self._spool, wait) as mine:
            return sum(map(self._drain_file, _spool_files(self._spool))) if mine else 0

    def _drain_file(self, path: Path) -> int:
        """Move one file's whole lines; remove it when its writer is gone and it is empty."""
        moved = 0
        with path.open("rb") as file:
            ended = _is_free(file.fileno())  # asked first: what comes after is not missed
            offset = self._offset(path.name)
            # What comes meanwhile is left for the next time: following a busy writer would
            # mean a transaction for every few rows, and no end.
            size = os.fstat(file.fileno()).st_size
            while offset < size and (lines := _whole_lines(file.fileno(), offset)):
                offset += len(lines)
                content = lines.splitlines(keepends=True)
                moved += len(content)
                self._insert(path.name, content, offset)
        if ended:
            path.unlink()
            self._forget(path.name)
        return moved

    def _offset(self, name: str) -> int:
        from taxi_duration.log_tables import spool_offsets

        with self._begin() as connection:
            query = spool_offsets.select().where(spool_offsets.c.name == name)
            row = connection.execute(query).first()
            return row.bytes if row else 0

    def _insert(self, name: str, lines: list[bytes], offset: int) -> None:
        from taxi_duration import log_tables

        rows: dict[bytes, list[tuple[Any, ...]]] = {tag: [] for tag in _ROW_OF_TAG}
        rejected = []
        for line in lines:
            try:
                row = _DECODERS[line[:1]].decode(line[1:])
                if isinstance(row, PredictionColumns):
                    rows[b"p"] += list(row.rows())  # all of them or none
                else:
                    rows[line[:1]].append(msgspec.structs.astuple(row))
            except (KeyError, ValueError):  # not ours, not JSON, or columns of several lengths
                if line.strip():
                    rejected.append(line)
        with self._begin() as connection:
            for tag, table in ((b"p", log_tables.predictions), (b"s", log_tables.shadow_answers)):
                names = _ROW_OF_TAG[tag].__struct_fields__
                log_tables.insert_new(connection, table, names, rows[tag])
            log_tables.save_offset(connection, name, offset)
        if rejected:
            logger.error("%d damaged lines of the spool are kept in %s", len(rejected),
                         REJECTED_FILE)  # fmt: skip
            with (self._spool / REJECTED_FILE).open("ab") as file:
                file.writelines(rejected)

    def _forget(self, name: str) -> None:
        from taxi_duration.log_tables import spool_offsets

        with self._begin() as connection:
            connection.execute(spool_offsets.delete().where(spool_offsets.c.name == name))

    # --- queries ------------------------------------------------------------------------

    def add_feedback(self, rows: list[Mapping[str, Any]]) -> FeedbackResult:
        from taxi_duration import log_tables

        first: dict[str, dict[str, Any]] = {}
        for row in rows:
            prediction_id = row["prediction_id"]
            kept = {"prediction_id": prediction_id, "duration": row["duration"],
                    "received_at": row.get("received_at") or time.time()}  # fmt: skip
            first.setdefault(prediction_id, kept)
        with self._begin() as connection:
            there = set(log_tables.known_ids(connection, list(first)))
            new = set()
            for chunk in _chunks([row for key, row in first.items() if key in there]):
                new |= log_tables.insert_feedback(connection, chunk)
        known, unknown, duplicate = [], [], []
        for row in rows:
            prediction_id = row["prediction_id"]
            if prediction_id not in there:
                unknown.append(prediction_id)
            elif prediction_id in new:
                known.append(prediction_id)
                new.discard(prediction_id)  # a second one in the same call
            else:
                duplicate.append(prediction_id)
        return FeedbackResult(known, unknown, duplicate)

    def find_many(self, prediction_ids: Sequence[str]) -> list[dict[str, Any]]:
        from taxi_duration.log_tables import joined, predictions

        found: list[dict[str, Any]] = []
        with self._begin() as connection:
            for chunk in _chunks(list(prediction_ids)):
                query = joined().where(predictions.c.prediction_id.in_(chunk))
                found += map(dict, connection.execute(query).mappings())
        return found

    def answered(
        self, since: float | None, until: float | None, model: str | None
    ) -> Iterator[dict[str, Any]]:
        from taxi_duration.log_tables import joined, predictions

        query = joined().order_by(predictions.c.asked_at, predictions.c.prediction_id)
        if since is not None:
            query = query.where(predictions.c.asked_at >= since)
        if until is not None:
            query = query.where(predictions.c.asked_at < until)
        if model is not None:
            query = query.where(predictions.c.model == model)
        with self._begin() as connection:
            result = connection.execution_options(yield_per=1000).execute(query)
            for row in result.mappings():
                yield dict(row)

    def summary(self, since: float | None) -> list[dict[str, Any]]:
        from taxi_duration.log_tables import summed

        with self._begin() as connection:
            return list(map(dict, connection.execute(summed(since)).mappings()))

    def counts(self) -> dict[str, int]:
        from sqlalchemy import func, select

        from taxi_duration.log_tables import feedback, predictions, shadow_answers

        with self._begin() as connection:
            return {
                table.name: connection.scalar(select(func.count()).select_from(table))
                for table in (predictions, shadow_answers, feedback)
            }


def _spool_files(folder: Path) -> list[Path]:
    """Spool files, oldest first; none when the folder does not exist."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".spool"))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in names]


def _whole_lines(file: int, offset: int) -> bytes:
    """Read on from offset, about a transaction's worth, up to the end of the last whole line.

    A line cut by a crash or still being written is left for later. All comes from one call:
    a second one might find the rest of a line that the first one saw cut.
    """
    size = DRAIN_ROWS * 400
    while True:
        content = os.pread(file, size, offset)
        end = content.rfind(b"\n") + 1
        if end or len(content) < size:
            return content[:end]
        size *= 2  # one line is longer


@contextmanager
def _folder_lock(folder: Path, wait: bool) -> Iterator[bool]:
    """Hold the only right to drain on this host; yields False when somebody else has it."""
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _is_free(file: int) -> bool:
    """True when the writer of this file has closed it or died."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), IDS_AT_ONCE):
        yield items[start : start + IDS_AT_ONCE]
