"""The thread that moves rows into the prediction log and checks its health."""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import struct
import threading
import time
from pathlib import Path

from taxi_duration.errors import LogError
from taxi_duration.live.log_store import LOCK_SECONDS, LogStore, load_sql
from taxi_duration.live.spool import LOCK_FILE, SpoolWriter, spool_files

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 0.5
# How often a service without rides tests that it can write: each test waits for the disk.
PROBE_SECONDS = 2.0
SILENT_SECONDS = 2 * LOCK_SECONDS  # without progress; SQLite waits half of that for a lock
MIN_FREE_BYTES = 1_000_000
KEPT_SECONDS = 2.0  # since all rows were moved by a keeper; then others move them again
_TIME = struct.Struct("d")


class LogWatch:
    """Moves rows twice a second, from `start` to `close`, and looks at the log's health.

    Of processes that were forked after this was made, one may be the keeper: then it moves the rows
    of all, and the others only look. Should it end or fall behind, each moves rows again.

    Args:
        spool: of this process.
        store: of the log.
    """

    def __init__(self, spool: SpoolWriter, store: LogStore) -> None:
        self._spool, self._store = spool, store
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_looked = False
        self._found: str | None = None
        self._looked_at = self._moved_at = self._lock_seen = time.monotonic()
        self._lock_time = 0
        self._is_keeper = False
        # When the keeper had last moved all rows, by the clock that all processes share.
        self._kept_at = mmap.mmap(-1, _TIME.size)
        _TIME.pack_into(self._kept_at, 0, float("-inf"))

    def start(self, as_keeper: bool = False) -> None:
        """Start the thread; it looks at once, then twice a second."""
        if self._thread is None:
            self._is_keeper = as_keeper
            self._moved_at = time.monotonic() - _age_of_oldest(self._spool.folder)
            self._thread = threading.Thread(target=self._run, daemon=True, name="drain")
            self._thread.start()

    def close(self) -> None:
        """Stop the thread.

        Raises:
            LogError: it does not end: the store or another process blocks it.
        """
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(SILENT_SECONDS)
            if thread.is_alive():
                raise LogError("the store of the prediction log does not answer")

    @property
    def has_looked(self) -> bool:
        """True once the thread has looked for the first time."""
        return self._thread is not None and self._has_looked

    def check(self) -> None:
        """Raise what the last look found; without a thread, or before its first look, look now.

        Raises:
            LogError: says what is wrong, or that the thread has not looked for too long.
        """
        if not self.has_looked:
            found = self.look(probe=True)
        else:
            found, silent = self._found, time.monotonic() - self._looked_at
            if silent > SILENT_SECONDS and not self._is_moving():
                found = f"the store of the prediction log has not answered for {silent:.0f} s"
        if found is not None:
            raise LogError(found)

    def waiting_seconds(self) -> float:
        """Return how long ago all rows that waited were last moved."""
        return time.monotonic() - max(self._moved_at, self._read_kept_at())

    def look(self, probe: bool) -> str | None:
        """Move waiting rows; return what is wrong, None when nothing is.

        Args:
            probe: also write an empty line to the spool and checkpoint the store.
        """
        load_sql()
        problems = []
        steps = [self._probe_spool, self._move, self._store.check_file]
        for step in steps if probe else [self._move]:
            try:
                step()
            except LogError as error:
                problems.append(str(error))
            except Exception as error:  # or the thread would end unnoticed
                logger.exception("the prediction log could not be looked after")
                problems.append(f"the prediction log cannot be looked after: {error!r}")
        return "; ".join(dict.fromkeys(problems)) or None

    def _probe_spool(self) -> None:
        self._spool.write(b"\n")
        folder = self._spool.folder
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise LogError(f"{folder.name}/ cannot be used: {error}") from error
        if free < MIN_FREE_BYTES:
            raise LogError(f"the disk of {folder.name}/ is full")
        if not os.access(folder, os.W_OK):  # open files still work; the next one cannot be made
            raise LogError(f"{folder.name}/ may not be written any more")

    def _move(self) -> None:
        if not self._is_keeper and time.monotonic() - self._read_kept_at() < KEPT_SECONDS:
            return
        if self._store.drain(wait=False) is not None:
            self._moved_at = time.monotonic()
            if self._is_keeper:
                _TIME.pack_into(self._kept_at, 0, self._moved_at)
        elif not self._is_moving():
            raise LogError("who holds the spool's lock moves no rows")

    def _read_kept_at(self) -> float:
        return float(_TIME.unpack_from(self._kept_at)[0])

    def _is_moving(self) -> bool:
        """True when any process moved rows within `SILENT_SECONDS`: it touches the lock file."""
        try:
            at = (self._spool.folder / LOCK_FILE).stat().st_mtime_ns
        except OSError:
            at = 0
        now = time.monotonic()
        if at != self._lock_time:
            self._lock_time, self._lock_seen = at, now
        return now - self._lock_seen < SILENT_SECONDS

    def _run(self) -> None:
        probed_at = float("-inf")
        while True:
            is_due = self._found is not None or time.monotonic() >= probed_at + PROBE_SECONDS
            probed_at = time.monotonic() if is_due else probed_at
            found = self.look(is_due)
            if found and self._found is None:  # once, not twice a second
                logger.warning("predictions wait in the spool: %s", found)
            self._found, self._looked_at, self._has_looked = found, time.monotonic(), True
            if self._stop.wait(DRAIN_SECONDS):
                return


def _age_of_oldest(spool: Path) -> float:
    """Return the age in seconds of the oldest spool file, 0 without one."""
    began = [int(path.name.partition("-")[0]) / 1e9 for path in spool_files(spool)[:1]
             if path.name.partition("-")[0].isdecimal()]  # fmt: skip
    return max(time.time() - began[0], 0.0) if began else 0.0
