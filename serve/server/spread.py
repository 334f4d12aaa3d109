"""Balances busy connections between the workers.

The kernel assigns new connections at random: of eight, one of two workers gets six or more in 29 %
of cases. So a busy worker with more of them than the idlest one closes some: it adds
`Connection: close` to its next answers, and the clients connect again.
"""

from __future__ import annotations

import mmap
import struct
import threading

LOOK_SECONDS = 0.1  # long enough for each busy connection to send a request, short beside its life
BUSY_REQUESTS = 20  # in that time: for fewer, balance is not worth a new connection
UNEVEN = 2  # connections more than the idlest worker: one can move without reversing the order
_COUNT = struct.Struct("i")


class Spread:
    """One worker's view of all workers' busy connections.

    Args:
        shared: counts of all workers, see `shared_counts`.
        mine: this worker's number, from 0.
        start: compare again and again, on a thread.
    """

    def __init__(self, shared: mmap.mmap, mine: int, start: bool = True) -> None:
        self._shared, self._mine = shared, mine
        self._seen: set[str] = set()
        self._requests = 0
        self._surplus = 0
        # Alone, it has nobody to compare with: nothing would ever forget the clients seen.
        self._is_alone = len(shared) == _COUNT.size
        if start and not self._is_alone:
            threading.Thread(target=self._look_forever, daemon=True, name="spread").start()

    def gives_up(self, client: str) -> bool:
        """Count an answer to a client; return whether to close its connection."""
        if self._is_alone:
            return False
        self._requests += 1
        self._seen.add(client)
        if self._surplus > 0:
            self._surplus -= 1
            return True
        return False

    def look(self) -> None:
        """Compare the number of clients since the last look with that of the other workers."""
        count, requests = len(self._seen), self._requests
        self._seen, self._requests = set(), 0
        _COUNT.pack_into(self._shared, self._mine * _COUNT.size, count)
        more = count - min(n for (n,) in _COUNT.iter_unpack(self._shared[:]))
        self._surplus = more // 2 if requests >= BUSY_REQUESTS and more >= UNEVEN else 0

    def _look_forever(self) -> None:
        wait = threading.Event().wait
        while not wait(LOOK_SECONDS):
            self.look()


def shared_counts(workers: int) -> mmap.mmap:
    """Return memory shared with forked processes: four bytes, an int, per worker."""
    return mmap.mmap(-1, workers * _COUNT.size)
