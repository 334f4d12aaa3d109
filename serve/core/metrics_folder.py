"""The folder of the metrics shared by workers; removes those left by killed services."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "taxi-metrics-"
LOCK_FILE = ".lock"

_locks: dict[str, int] = {}  # kept open: closing one releases its lock


def make_folder(parent: str | None) -> str:
    """Make a folder for this service's metrics; remove those whose service was killed.

    Each is locked until the last process of its service ends.

    Args:
        parent: its place; the system's folder for temporary files when None.
    Raises:
        OSError: it cannot be made.
    """
    parent = parent or tempfile.gettempdir()
    _remove_left(Path(parent))
    # It gets its name once it is locked: without a lock others would remove it.
    hidden = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
    lock = os.open(hidden / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    folder = hidden.rename(hidden.with_name(hidden.name.removeprefix(".")))
    _locks[str(folder)] = lock
    return str(folder)


def remove_folder(folder: str) -> None:
    """Remove a folder that `make_folder` made."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(_locks.pop(folder))


def _remove_left(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        # Another user's, in use, or just removed by another service.
        with suppress(OSError):
            lock = os.open(folder / LOCK_FILE, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
