"""A worker's file of metrics that a full disk cannot turn against it."""

from __future__ import annotations

import logging
import mmap
import os
import sys
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

logger = logging.getLogger(__name__)

FIRST_BYTES = 1 << 16  # of a new file, as prometheus-client has it: some 400 figures
ENTRY_BYTES = 40  # of a figure beside its name, at most


def reserve_files() -> None:
    """Let prometheus-client keep its figures in files of this class."""
    if sys.platform == "linux":
        values.MmapedDict = ReservedFile  # type: ignore[misc]


class ReservedFile(MmapedDict):
    """Figures in a mapped file, whose blocks are reserved before anything is written into them.

    Writing into a mapped page that the disk has no room for ends the process (SIGBUS), and so each
    worker that follows. Without room, this process's figures are kept in memory: they are missing
    in /metrics, and riders are answered.

    Args:
        filename: of the file, made when it is not there.
        read_mode: to look into one of another process.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if read_mode:
            super().__init__(filename, read_mode)
            return
        try:
            _reserve(filename)
            super().__init__(filename)
        except OSError as error:
            _say(error)
            memory = os.memfd_create("metrics")
            super().__init__(f"/proc/self/fd/{memory}")
            os.close(memory)

    def _init_value(self, key: str) -> None:
        """As there, but that the file is reserved before it grows."""
        if self._used + len(key.encode()) + ENTRY_BYTES > self._capacity:
            self._grow(2 * self._capacity)
        super()._init_value(key)

    def _grow(self, size: int) -> None:
        self._f: Any
        try:
            os.posix_fallocate(self._f.fileno(), 0, size)
        except OSError as error:
            _say(error)
            memory = os.fdopen(os.memfd_create("metrics"), "r+b", buffering=0)
            memory.write(self._m[:])
            memory.truncate(size)
            self._f.close()
            self._f = memory
        self._m = mmap.mmap(self._f.fileno(), size)
        self._capacity = size


def _reserve(filename: str) -> None:
    """Make a file, all of whose blocks are there; none is left when that fails."""
    path = Path(filename)
    if path.exists():
        return
    part = path.with_name(f".{path.name}")  # who sums up all workers' cannot read an empty one
    try:
        with part.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, FIRST_BYTES)
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _say(error: OSError) -> None:
    logger.error("metrics of process %d are not shared from now on: %s", os.getpid(), error)
