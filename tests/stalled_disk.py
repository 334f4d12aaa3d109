"""A disk that answers nothing: a file system of FUSE whose server never reads a request."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DETACH = 2  # MNT_DETACH of mount(2)


@contextmanager
def stalled_disk(folder: Path) -> Iterator[None]:
    """Whoever looks into the folder waits until the block ends; skips without root or FUSE."""
    folder.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        number = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"there is no FUSE: {error}")
    options = f"fd={number},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    kind = b"fuse"
    if libc.mount(b"stalled", str(folder).encode(), kind, 0, options.encode()):
        os.close(number)
        pytest.skip(f"nothing can be mounted: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        os.close(number)  # who waits gets an error now
        libc.umount2(str(folder).encode(), DETACH)
