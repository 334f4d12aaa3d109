"""Bounds the freed memory that glibc's allocator keeps, and gives it back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# Numbers of `mallopt` in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
MB = 1 << 20
LIMITS = {
    # By default eight for each core, each of which keeps memory of its own. Python's lock lets
    # few threads allocate at once: four cost no time (`benchmarks/serving.py`).
    M_ARENA_MAX: 4,
    # Larger blocks are the system's again when they are freed. By default this limit rises with
    # the largest block that was freed, up to 32 MB, and the next one to twice as much.
    M_MMAP_THRESHOLD: 4 * MB,
    M_TRIM_THRESHOLD: MB,  # free bytes at an arena's end that are kept
}


def bound_memory() -> None:
    """Limit what malloc keeps, in this process and its forks; call it before threads start.

    Does nothing where the C library has no such limits (musl, macOS). `give_back_memory` cannot
    do without: it leaves what is free at the ends of all arenas but the first.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for limit, value in LIMITS.items():
            mallopt(limit, value)


def give_back_memory() -> None:
    """Return the free memory of all of malloc's arenas; nothing where the C library cannot.

    A bundle is read on a thread of its own, in whichever arena that thread gets: each arena keeps
    the holes that its largest bundle left.
    """
    with suppress(AttributeError):  # musl and macOS have no malloc_trim, and no arenas that need it
        ctypes.CDLL(None).malloc_trim(0)
