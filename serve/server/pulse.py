"""Signs of life: each process counts, and the parent sees who has stopped counting.

A process that was stopped, or hangs with Python's lock, does not end: nobody would replace it, and
its share of the connections would wait for ever.
"""

from __future__ import annotations

import mmap
import struct
import threading
import time
from collections.abc import Callable, Iterable

BEAT_SECONDS = 1.0
# Looks, at least a beat apart, without one: no request holds Python's lock for a tenth of this.
# Looks of ours, not seconds: who was stopped together with the parent is not to be blamed.
MISSED = 20
_COUNT = struct.Struct("q")


class Pulse:
    """Counters in memory that forked processes share.

    Args:
        processes: numbered from 0.
        clock: seconds.
    """

    def __init__(self, processes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._shared = mmap.mmap(-1, processes * _COUNT.size)
        self._clock = clock
        self._looked_at = clock()
        self._last = [0] * processes
        self._missed = [0] * processes

    def start(self, number: int) -> None:
        """Count in this process, on a thread, as long as it lives."""

        def count() -> None:
            wait = threading.Event().wait
            while not wait(BEAT_SECONDS):
                self.beat(number)

        threading.Thread(target=count, daemon=True, name="pulse").start()

    def beat(self, number: int) -> None:
        """Count one."""
        at = number * _COUNT.size
        _COUNT.pack_into(self._shared, at, _COUNT.unpack_from(self._shared, at)[0] + 1)

    def begin(self, number: int) -> None:
        """Forget what was missed: the process of this number is a new one."""
        self._missed[number] = 0

    def silent(self, numbers: Iterable[int]) -> list[int]:
        """Return who of the running processes has missed too many beats; call it again and again.

        More often than a beat does no harm.
        """
        now = self._clock()
        if now - self._looked_at < BEAT_SECONDS:
            return []
        self._looked_at = now
        counts = [n for (n,) in _COUNT.iter_unpack(self._shared[:])]
        for number, (count, last) in enumerate(zip(counts, self._last, strict=True)):
            self._missed[number] = self._missed[number] + 1 if count == last else 0
        self._last = counts
        return [number for number in numbers if self._missed[number] >= MISSED]
