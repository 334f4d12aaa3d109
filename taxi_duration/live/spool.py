"""Rows that wait for the prediction log: one append-only file per worker, without locks."""

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

SEGMENT_BYTES = 8_000_000  # then a worker begins a new file
LOCK_FILE = ".lock"  # its holder touches it at every step that moves rows
DRAIN_ROWS = 2_000  # rows of one transaction: so few that feedback does not wait long for it


class SpoolWriter:
    """Appends to a file of its own, locked as long as the process lives.

    Args:
        folder: of the spool; created by the first write.
    """

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
                if not is_new:  # a new file may be writable where this one no longer is
                    with suppress(OSError):
                        self._append(content, True)
                        return
                    self._give_up()
                raise LogError(f"{self.folder.name}/ cannot be written: {error}") from error

    def close(self) -> None:
        """Close the file; whoever drains it removes it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, content: bytes, is_new: bool) -> None:
        file = self._open() if is_new or self._file is None else self._file
        written = os.write(file, content)
        self._size += written
        if written != len(content):  # the next row goes to a new file
            raise OSError("only a part could be written, the disk is full")

    def _give_up(self) -> None:
        """Close the file; remove it when empty, or a full disk would collect empty files."""
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
        # The lock tells drainers that more may come; taken before the file gets its name.
        fcntl.flock(file, fcntl.LOCK_EX)
        status = os.fstat(file)
        self._identity, self._pid = (status.st_dev, status.st_ino), os.getpid()
        hidden.rename(path)
        self._path = str(path)
        return file


def spool_files(folder: Path) -> list[Path]:
    """Return the spool files, oldest first; none when the folder does not exist."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".spool"))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in names]


def whole_lines(file: int, offset: int) -> bytes:
    """Return about a transaction's worth of whole lines from an offset on.

    A line cut by a crash or still being written is left for later. One read gives all of it: a
    second read could find the rest of a line that the first one saw cut.

    Args:
        file: descriptor.
        offset: bytes.
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
    """Hold this host's lock for draining; yields False when another process holds it.

    Args:
        wait: for the other process.
    """
    # Non-blocking: somebody may have put a pipe there.
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
    """Return whether the writer of a file (its descriptor here) has closed it or died."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
