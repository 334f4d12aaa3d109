"""The prediction log: every answered prediction, its feedback, and the shadow answers.

A row is written in two steps. Before the answer leaves, one `write` appends it to a file of
the worker's own (the spool): a few microseconds, no lock, and the kernel keeps it whatever
happens to the process. Then a background thread moves rows from the spool into the SQL
store, SQLite in WAL mode or PostgreSQL. How far a file was read is stored in the same
transaction as its rows, so that a crash neither loses nor doubles one. Whoever reads moves
the waiting rows first, and therefore sees everything answered on this host.
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
from taxi_duration.live.log_store import LogStore
from taxi_duration.live.log_watch import DRAIN_SECONDS, LogWatch
from taxi_duration.live.spool import DRAIN_ROWS, SpoolWriter, spool_files

if TYPE_CHECKING:
    from taxi_duration.live.log_archive import Moved

logger = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode
C = TypeVar("C", PredictionColumns, ShadowColumns)


def open_log(url: str | None = None, spool: Path | None = None) -> PredictionLog:
    """Return the log of this installation; nothing is opened or made before its first use.

    Args:
        url: SQLAlchemy address; default `LOG_URL`, else SQLite in data/live/.
        spool: folder of the rows on their way; default beside the default store.
    """
    url = url or environment.log_url()
    spool = spool or environment.live_dir() / "spool"
    return PredictionLog(url, spool, environment.log_archive(url))


class PredictionLog:
    """The log of one process; safe to use from its threads, and in many processes at once."""

    def __init__(self, url: str, spool: Path, archive: Path | None = None) -> None:
        self._spool = SpoolWriter(spool)
        self._store = LogStore(url, spool, archive or environment.log_archive(url))
        self._watch = LogWatch(self._spool, self._store)

    # --- writing ------------------------------------------------------------------------

    def add(
        self,
        rows: Iterable[PredictionRow | Mapping[str, Any]],
        shadow: Iterable[ShadowRow | Mapping[str, Any]] = (),
        failures: Iterable[FailureRow] = (),
    ) -> None:
        """Keep answered predictions; when this returns, killing the process loses nothing.

        Args:
            rows: what riders got.
            shadow: what the other version of a test would have answered.
            failures: of a version of the test.

        Raises:
            LogError: they could not be written, all or in part.
        """
        self._write([b"p%b\n" % _encode(row) for row in rows], shadow, failures)

    def add_many(
        self,
        parts: Iterable[PredictionColumns],
        shadow: Iterable[ShadowColumns] = (),
        failures: Iterable[FailureRow] = (),
    ) -> None:
        """Keep many answered predictions; as `add`, at a fraction of its price for each."""
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
        """Keep true durations; on disk when this returns. Safe to repeat.

        All of a call are received at one moment: they are one sender's, and are judged as such.

        Args:
            rows: `prediction_id` and `duration` (minutes), optionally `received_at`.
        Raises:
            LogError: the store cannot be written; nothing of the call was kept.
        """
        now = time.time()
        rows = [{"received_at": now, **row} for row in rows]
        self.drain()
        if not self._store.is_local and self._store.unknown_ids(r["prediction_id"] for r in rows):
            # Another host may have answered a moment ago: its rows take a drain to get here.
            time.sleep(2 * DRAIN_SECONDS)
        return self._store.add_feedback(rows)

    def count_feedback(self, since: float, until: float) -> int:
        """Return how many true durations were received since <= received_at < until."""
        return self._store.count_feedback(since, until)

    def void_feedback(self, since: float, until: float, by: str, why: str) -> int:
        """Take the same out of every judgement, into a table of its own; others may then be given.

        Returns how many of that time are voided now: a repeat says the same.

        Args:
            by, why: are kept with them.
        Raises:
            LogError: the store cannot be written; nothing was moved.
        """
        return self._store.void_feedback(since, until, by, why)

    @property
    def is_watched(self) -> bool:
        """True while a thread knows what `check_writable` says, so that nobody waits for it."""
        return self._watch.has_looked

    def check_writable(self) -> None:
        """Say whether rows are kept and get into the store: as the thread last saw, else tried.

        Raises:
            LogError: says what cannot be written and why.
        """
        self._watch.check()

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
        pair: tuple[str, str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield predictions in the order asked, joined with feedback and shadow answer.

        Each is a dict of the columns of `predictions` and `true_duration` (minutes),
        `received_at`, `shadow_model`, `shadow_model_sha256`, `shadow_duration`, `shadow_p10`,
        `shadow_p50`, `shadow_p90`; those are None as long as there is none.

        Args:
            since, until: unix seconds, since <= asked_at < until.
            model: `name:version` of the model that answered.
            pair: digests of a test's two versions: only the rides that one of them answered,
                with the other's shadow answer, and `failed_as`, see `log_tables.tested`.
        """
        self.drain()
        yield from self._store.answered(since, until, model, pair)

    def counts(self) -> dict[str, int]:
        """Return the rows of `predictions`, `shadow_answers` and `feedback`."""
        self.drain()
        return self._store.counts()

    def last_times(self) -> LastTimes:
        """Return when the last ride and the last true duration came; voided ones are none.

        Rows that another process moves at this moment are left to the next look.
        """
        self.drain(wait=False)
        return self._store.last_times()

    def summary(self, since: float | None = None) -> list[dict[str, Any]]:
        """Return a dict for each model and arm that answered, the latest first.

        `model`, `arm`, `predictions`, `feedback` (counts), a count for each code of
        `domain.truths`, and over the scored ones `mean_error` (absolute, minutes), `mean_square`
        (of the error), `coverage` (share within P10-P90), None without any; `latency_ms`,
        `last_asked_at`.

        Read from sums by hour, a few thousand rows however many rides there are.

        Args:
            since: unix seconds; the hour that it lies in counts as a whole.
        Raises:
            LogError: also when it takes longer than `READ_SECONDS`.
        """
        self.drain(wait=False)
        return self._store.summary(since)

    def feedback_rate(self, since: float) -> dict[str, Any]:
        """Return `rides` asked for since then, `with_truth` of them, and the truth's `last_at`."""
        self.drain()
        return self._store.feedback_rate(since)

    # --- archive ------------------------------------------------------------------------

    def archive(self, keep_days: int, most_bytes: int) -> Moved | None:
        """Move old rides, with all that belongs to them, into the archive; see `log_archive`.

        All that reads here reads the archive too.

        Args:
            keep_days: that rides stay; 0 for ever.
            most_bytes: that the tables may take; 0 for any.
        Returns:
            None when another process is at it.
        Raises:
            LogError: as `Archiver.move`.
        """
        self.drain()
        return self._store.archive(time.time(), keep_days, most_bytes)

    # --- moving -------------------------------------------------------------------------

    def drain(self, wait: bool = True) -> int:
        """Move waiting rows into the store and return how many lines were moved.

        Args:
            wait: for another process that is at it; else 0 is returned at once.
        Raises:
            LogError: the store cannot be written; the rows wait on.
        """
        return self._store.drain(wait) or 0

    def waiting_seconds(self) -> float:
        """Return how long ago all rows that waited were last moved; for a log that was started."""
        return self._watch.waiting_seconds()

    def waiting_bytes(self) -> int:
        """Return the size of what the spool holds, moved or not; 0 when all is quiet."""
        total = 0
        for path in spool_files(self._spool.folder):
            with suppress(FileNotFoundError):  # another worker may just have moved it
                total += path.stat().st_size
        return total

    def start(self) -> None:
        """Let a background thread move rows twice a second, until `close`."""
        self._watch.start()

    def close(self) -> None:
        """Stop the thread, move what waits and give the files back."""
        try:
            self._watch.close()
            self._spool.close()
            try:
                self.drain()
            finally:
                self._store.close()
        except LogError as error:
            logger.warning("rows of the prediction log wait for the next start: %s", error)


def _in_parts(columns: C) -> Iterator[C]:
    """Lines of about a transaction each."""
    for start in range(0, len(columns.prediction_id), DRAIN_ROWS):
        yield columns.part(start, start + DRAIN_ROWS)
