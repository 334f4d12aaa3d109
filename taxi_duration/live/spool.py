"""Rows on their way into the prediction log: one file a worker, appended without a lock."""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from taxi_duration.errors import LogError

SEGMENT_BYTES = 8_000_000  # a worker goes on in a new spool file after as many
LOCK_FILE = ".lock"  # in the spool; who holds it sets its time at every step that moves rows
DRAIN_ROWS = 2_000  # rows of one transaction: feedback never waits long for the lock


class SpoolWriter:
    """Appends to a file of this process alone, locked for as long as the process lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._file: int | None = None
        self._path = ""
        self._identity: tuple[int, int] = (0, 0)
        self._pid = 0
        self._size = 0

    def write(self, content: bytes) -> None:
        """Append whole lines in one system call.

        Raises:
            LogError: no space, no permission, no folder.
        """
        with self._lock:
            is_new = self._file is None or self._is_over()
            try:
                self._append(content, is_new)
            except OSError as error:
                self._give_up()
                if not is_new:  # a new file may be writable where this one is not any more
                    with suppress(OSError):
                        self._append(content, True)
                        return
                    self._give_up()
                raise LogError(f"{self.folder.name}/ cannot be written: {error}") from error

    def close(self) -> None:
        """Give the file up; whoever drains it removes it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, content: bytes, is_new: bool) -> None:
        file = self._open() if is_new or self._file is None else self._file
        written = os.write(file, content)
        self._size += written
        if written != len(content):  # the cut line ends this file; the next one starts clean
            raise OSError("only a part could be written, the disk is full")

    def _give_up(self) -> None:
        """Close the file; an empty one is not left behind, or a full disk would be full of them."""
        self.close()
        if self._size == 0:
            with suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108

    def _is_over(self) -> bool:
        """True when the file is full, another process's (after a fork), deleted or moved away."""
        if self._size > SEGMENT_BYTES or self._pid != os.getpid():
            return True
        try:
            status = os.stat(self._path)  # noqa: PTH116 (at every ride)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._identity

    def _open(self) -> int:
        self.close()
        self._path, self._size = "", 0
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{secrets.token_hex(6)}"
        hidden, path = self.folder / f".{name}", self.folder / f"{name}.spool"
        self._path = str(hidden)
        file = os.open(hidden, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        self._file = file
        # The lock tells drainers that more may come. It is taken before they see the file.
        fcntl.flock(file, fcntl.LOCK_EX)
        status = os.fstat(file)
        self._identity, self._pid = (status.st_dev, status.st_ino), os.getpid()
        hidden.rename(path)
        self._path = str(path)
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
    # Not to hang where somebody put a pipe in its place.
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(folder / LOCK_FILE, flags, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(file)


def is_free(file: int) -> bool:
    """True when the writer of this file has closed it or died."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
