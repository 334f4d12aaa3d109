"""The folder in which the workers' metrics meet, and those that killed services left behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "taxi-metrics-"
LOCK_FILE = ".lock"

_locks: dict[str, int] = {}  # open as long as this process lives: closing one gives its lock up


def make_folder(parent: str | None) -> str:
    """Make a folder for this service's metrics; remove those whose service was killed.

    A lock that the kernel lets go of with the last process of a service tells which these are.

    Args:
        parent: where; the system's folder for temporary files when None.
    Raises:
        OSError: it cannot be made.
    """
    parent = parent or tempfile.gettempdir()
    _remove_left(Path(parent))
    # Under its own name only once it is locked: others must never find it without.
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
        # Another user's, one that still serves, or one that somebody else just removed.
        with suppress(OSError):
            lock = os.open(folder / LOCK_FILE, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
