"""The prediction log: every answered prediction, its feedback, and the shadow answers.

A row is written in two steps. Before the answer leaves, one `write` appends it to a file of the
worker's own (the spool): a few microseconds, no lock, and it outlives the process. Then a
background thread moves rows from the spool into the SQL store, SQLite in WAL mode or PostgreSQL.
The offset read is stored in the same transaction as the rows, so that a crash neither loses nor
doubles one. Reads move the waiting rows first, and so see everything answered on this host.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from taxi_duration import environment
from taxi_duration.errors import LogError
from taxi_duration.live.log_rows import (
    FailureRow,
    FeedbackResult,
    LastTimes,
    PredictionColumns,
    PredictionRow,
    ShadowColumns,
    ShadowRow,
)
from taxi_duration.live.log_store import LogStore, load_sql
from taxi_duration.live.log_watch import DRAIN_SECONDS, LogWatch
from taxi_duration.live.spool import DRAIN_ROWS, SpoolWriter, spool_files

if TYPE_CHECKING:
    from taxi_duration.live.log_archive import Moved
    from taxi_duration.live.traffic_bins import TrafficBins

logger = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode
C = TypeVar("C", PredictionColumns, ShadowColumns)


def open_log(url: str | None = None, spool: Path | None = None) -> PredictionLog:
    """Return the log of this installation; nothing is opened or created before its first use.

    Args:
        url: SQLAlchemy address; default `LOG_URL`, else SQLite in data/live/.
        spool: folder of rows that wait to be moved; default beside the default store.
    """
    url = url or environment.log_url()
    spool = spool or environment.live_dir() / "spool"
    return PredictionLog(url, spool, environment.log_archive(url))


class PredictionLog:
    """The log as one process sees it; safe for threads, and for several processes at once."""

    def __init__(self, url: str, spool: Path, archive: Path | None = None) -> None:
        self._spool = SpoolWriter(spool)
        self._sql = LogStore(url, spool, archive or environment.log_archive(url))
        self._watch = LogWatch(self._spool, self._sql)

    @property
    def _store(self) -> LogStore:
        """The store, to be used."""
        load_sql()
        return self._sql

    # --- writing ------------------------------------------------------------------------

    def add(
        self,
        rows: Iterable[PredictionRow | Mapping[str, Any]],
        shadow: Iterable[ShadowRow | Mapping[str, Any]] = (),
        failures: Iterable[FailureRow] = (),
    ) -> None:
        """Write answered predictions; when this returns, killing the process loses nothing.

        Args:
            rows: what riders got.
            shadow: what the other version under test would have answered.
            failures: of versions under test.

        Raises:
            LogError: they were not written, or only in part.
        """
        self._write([b"p%b\n" % _encode(row) for row in rows], shadow, failures)

    def add_many(
        self,
        parts: Iterable[PredictionColumns],
        shadow: Iterable[ShadowColumns] = (),
        failures: Iterable[FailureRow] = (),
    ) -> None:
        """Write many answered predictions as columns; cheaper per ride than `add`.

        Raises:
            LogError: as `add`.
        """
        lines = [b"m%b\n" % _encode(part) for columns in parts for part in _in_parts(columns)]
        lines += [b"c%b\n" % _encode(part) for columns in shadow for part in _in_parts(columns)]
        self._write(lines, (), failures)

    def _write(
        self,
        lines: list[bytes],
        shadow: Iterable[ShadowRow | Mapping[str, Any]],
        failures: Iterable[FailureRow],
    ) -> None:
        lines += [b"s%b\n" % _encode(row) for row in shadow]
        lines += [b"f%b\n" % _encode(row) for row in failures]
        self._spool.write(b"".join(lines))

    def add_feedback(self, rows: Iterable[Mapping[str, Any]]) -> FeedbackResult:
        """Write true durations; on disk when this returns. Idempotent.

        All of a call get one time of receipt, and are judged together as one sender's.

        Args:
            rows: `prediction_id` and `duration` (minutes), optionally `received_at`.
        Raises:
            LogError: the store cannot be written; nothing of the call was written.
        """
        now = time.time()
        rows = [{"received_at": now, **row} for row in rows]
        self.drain()
        if self._store.unknown_ids(r["prediction_id"] for r in rows) and self._store.is_shared():
            # Another host may have answered just now: its rows arrive with its next drain.
            time.sleep(2 * DRAIN_SECONDS)
        return self._store.add_feedback(rows)

    def count_feedback(self, since: float, until: float) -> int:
        """Return the number of true durations with since <= received_at < until, unix seconds."""
        return self._store.count_feedback(since, until)

    def void_feedback(
        self,
        since: float,
        until: float,
        by: str,
        why: str,
        but: tuple[float, float] | None = None,
    ) -> int:
        """Move the feedback with since <= received_at < until (unix seconds) to `voided_feedback`.

        It no longer counts in any evaluation, and other feedback may be given instead.

        Args:
            by, why: are stored with it.
            but: a period of which nothing is moved.
        Returns:
            How many of the whole period are voided now; a repeat gives the same.
        Raises:
            LogError: the store cannot be written; nothing was moved.
        """
        return self._store.void_feedback(since, until, by, why, but)

    @property
    def is_watched(self) -> bool:
        """True while the background thread checks the log, so that `check_writable` never waits."""
        return self._watch.has_looked

    def check_writable(self) -> None:
        """Check that rows can be written to spool and store: as the thread last found, else now.

        Raises:
            LogError: says what cannot be written and why.
        """
        self._watch.check()

    # --- reading ------------------------------------------------------------------------

    def find(self, prediction_id: str) -> dict[str, Any] | None:
        """Return a prediction as `answered` gives it, None when there is no such id."""
        return next(iter(self.find_many([prediction_id])), None)

    def find_many(self, prediction_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the predictions with these ids as `answered` gives them, in no special order."""
        self.drain()
        return self._store.find_many(prediction_ids)

    def find_trace(self, trace_id: str) -> list[str]:
        """Return the ids of the predictions that were asked in a trace, in the order asked.

        Looks at every ride, archived ones too: for operators, not for each request.

        Args:
            trace_id: 32 hex digits of W3C Trace Context.
        """
        self.drain()
        return self._store.find_trace(trace_id)

    def answered(
        self,
        since: float | None = None,
        until: float | None = None,
        model: str | None = None,
        pair: tuple[str, str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield predictions in the order asked, joined with feedback and shadow answer.

        Each is a dict of the columns of `predictions` and `true_duration` (minutes),
        `received_at`, `shadow_model`, `shadow_model_sha256`, `shadow_duration`, `shadow_p10`,
        `shadow_p50`, `shadow_p90` and the rest of `ShadowRow`; None where there is none.

        Args:
            since, until: unix seconds, since <= asked_at < until.
            model: `name:version` of the model that answered.
            pair: digests of the two versions of a test: only rides that one of them answered, with
                the other's shadow answer and `failed_as`, see `log_tables.tested`.
        """
        self.drain()
        yield from self._store.answered(since, until, model, pair)

    def counts(self) -> dict[str, int]:
        """Return the numbers of rows of `predictions`, `shadow_answers` and `feedback`, by name."""
        self.drain()
        return self._store.counts()

    def last_times(self) -> LastTimes:
        """Return the times of the last ride and the last true duration; voided ones do not count.

        Nor do those that a clock ahead, put right since, has dated after now: they would hide for
        as long that nothing comes any more.

        Does not wait for rows that another process is moving.
        """
        self.drain(wait=False)
        return self._store.last_times(time.time())

    def summary(self, since: float | None = None) -> list[dict[str, Any]]:
        """Return a dict for each model and arm that answered, the latest first.

        `model`, `arm`, `predictions`, `feedback` (counts), a count for each code of
        `domain.truths`, and over the scored ones `mean_error` (absolute, minutes), `mean_square`
        (of the error), `coverage` (share within P10-P90), None without any; `latency_ms`,
        `last_asked_at`.

        Read from hourly sums, a few thousand rows whatever the number of rides. What a clock
        ahead has dated after this hour counts when that hour has come.

        Args:
            since: unix seconds; its hour counts as a whole.
        Raises:
            LogError: the store cannot be read, or not within `READ_SECONDS`.
        """
        self.drain(wait=False)
        return self._store.summary(since, time.time())

    def hours(self, since: float) -> list[dict[str, Any]]:
        """Return a dict for each hour in which rides were asked, oldest first.

        `at` (its start, unix seconds), `rides`, `latency_ms`; of its rides `scored` is the number
        with a true duration that counts, `mean_error` their mean (absolute, minutes), None
        without any. Versions and arms are taken together.

        Args:
            since: as of `summary`, which raises the same.
        """
        self.drain(wait=False)
        return self._store.hours(since, time.time())

    def feedback_rate(self, since: float, name: str = "") -> dict[str, Any]:
        """Return since then: `rides` asked, those `with_truth`, and the truth's `last_at`.

        Args:
            name: of the models that answered, such as `green-duration`; all when empty.
        """
        self.drain()
        return self._store.feedback_rate(since, name)

    def traffic_bins(self, model_sha256: str, days: float) -> TrafficBins:
        """Return what true durations said of the traffic to a version, of rides ended by now.

        Args:
            days: of ride time before the newest.
        Raises:
            LogError: the store cannot be read, or not within `READ_SECONDS`.
        """
        return self._store.traffic_bins(model_sha256, days, time.time())

    # --- archive ------------------------------------------------------------------------

    def archive(self, keep_days: int, most_bytes: int) -> Moved | None:
        """Move old rides with feedback and shadow answers into the archive, see `log_archive`.

        All methods that read include the archive.

        Args:
            keep_days: days that rides stay in the tables; 0 for ever.
            most_bytes: size of the tables; 0 for no bound.
        Returns:
            What was moved; None when another process is archiving.
        Raises:
            LogError: as `Archiver.move`.
        """
        self.drain()
        return self._store.archive(time.time(), keep_days, most_bytes)

    # --- moving -------------------------------------------------------------------------

    def drain(self, wait: bool = True) -> int:
        """Move waiting rows into the store and return how many lines were moved.

        Args:
            wait: for another process that is draining; else return 0 at once.
        Raises:
            LogError: the store cannot be written; the rows stay in the spool.
        """
        return self._store.drain(wait) or 0

    def waiting_seconds(self) -> float:
        """Return the seconds since all waiting rows were last moved; for a started log."""
        return self._watch.waiting_seconds()

    def waiting_bytes(self) -> int:
        """Return the size of the spool files, moved or not, in bytes; 0 when there are none."""
        total = 0
        for path in spool_files(self._spool.folder):
            with suppress(FileNotFoundError):  # another worker has just removed it
                total += path.stat().st_size
        return total

    def start(self, as_keeper: bool = False) -> None:
        """Start the background thread, which moves rows twice a second until `close`.

        Args:
            as_keeper: move those of all processes that this log was forked into; they leave it
                to this one.
        """
        self._watch.start(as_keeper)

    def close(self) -> None:
        """Stop the thread, move waiting rows and close the files."""
        try:
            self._watch.close()
            self._spool.close()
            try:
                self.drain()
            finally:
                self._sql.close()
        except LogError as error:
            logger.warning("rows of the prediction log wait for the next start: %s", error)


def _in_parts(columns: C) -> Iterator[C]:
    """Yield the rows in parts of `DRAIN_ROWS`, a transaction each."""
    for start in range(0, len(columns.prediction_id), DRAIN_ROWS):
        yield columns.part(start, start + DRAIN_ROWS)
