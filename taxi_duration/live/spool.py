"""Rows on their way into the prediction log: one file a worker, appended without a lock."""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from taxi_duration.errors import LogError

if TYPE_CHECKING:
    pass

SEGMENT_BYTES = 8_000_000  # a worker goes on in a new spool file after as many
DRAIN_ROWS = 2_000  # rows of one transaction: feedback never waits long for the lock


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
                file = self._file
                if file is None or self._is_over(file):
                    file = self._open()
                written = os.write(file, content)
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

    def _is_over(self, file: int) -> bool:
        """True when the file is full, another process's (after a fork), or was deleted."""
        return (
            self._size > SEGMENT_BYTES or self._pid != os.getpid() or os.fstat(file).st_nlink == 0
        )

    def _open(self) -> int:
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{secrets.token_hex(6)}"
        hidden = self.folder / f".{name}"
        file = os.open(hidden, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        self._file = file
        # The lock tells drainers that more may come. It is taken before they see the file.
        fcntl.flock(file, fcntl.LOCK_EX)
        hidden.rename(self.folder / f"{name}.spool")
        self._pid, self._size = os.getpid(), 0
        return file


def spool_files(folder: Path) -> list[Path]:
    """Spool files, oldest first; none when the folder does not exist."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".spool"))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in names]


def whole_lines(file: int, offset: int) -> bytes:
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
def folder_lock(folder: Path, wait: bool) -> Iterator[bool]:
    """Hold the only right to drain on this host; yields False when somebody else has it."""
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def is_free(file: int) -> bool:
    """True when the writer of this file has closed it or died."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
