"""Gives freed memory back to the system, which glibc's allocator keeps otherwise."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back_memory() -> None:
    """Return the free memory of all of malloc's arenas; nothing where the C library cannot.

    A bundle is read on a thread of its own, in whichever arena that thread gets: each arena keeps
    what its largest bundle took, and there are eight for each core.
    """
    with suppress(AttributeError):  # musl and macOS have no malloc_trim, and no arenas that need it
        ctypes.CDLL(None).malloc_trim(0)
