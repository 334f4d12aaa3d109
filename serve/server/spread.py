"""Balances busy connections between the workers.

The kernel assigns new connections at random: of eight, one of two workers gets six or more in 29 %
of cases. So a busy worker with more of them than the idlest one closes some: it adds
`Connection: close` to its next answers, and the clients connect again, at random again. It looks
every 20 milliseconds, so that some tries are soon over.
"""

from __future__ import annotations

import mmap
import struct
import threading
import time
from collections.abc import Callable

SEEN_SECONDS = 0.1  # long enough for each busy connection to send a request, short beside its life
BUSY_REQUESTS = 20  # in that time: for fewer, balance is not worth a new connection
LOOK_SECONDS = 0.02  # a closed connection is counted where it went by then
UNEVEN = 2  # connections more than the idlest worker: one can move without reversing the order
_COUNT = struct.Struct("i")


class Spread:
    """One worker's view of all workers' busy connections.

    Args:
        shared: counts of all workers, see `shared_counts`.
        mine: this worker's number, from 0.
        start: also look while no request comes, on a thread.
        clock: seconds.
    """

    def __init__(
        self,
        shared: mmap.mmap,
        mine: int,
        start: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared, self._mine, self._clock = shared, mine, clock
        self._seen: dict[str, float] = {}  # when each client was last answered
        self._requests = self._requests_before = 0
        self._since = self._looked_at = clock()
        self._surplus = 0
        # Alone, it has nobody to compare with: nothing would ever forget the clients seen.
        self._is_alone = len(shared) == _COUNT.size
        if start and not self._is_alone:
            threading.Thread(target=self._look_forever, daemon=True, name="spread").start()

    def gives_up(self, client: str) -> bool:
        """Count an answer to a client; return whether to close its connection."""
        if self._is_alone:
            return False
        now = self._clock()
        is_new = client not in self._seen
        self._seen[client] = now
        self._requests += 1
        if now - self._looked_at >= LOOK_SECONDS:
            self.look()
        elif is_new:  # at once: others compare with it
            self._show(len(self._seen))
        if self._surplus > 0:
            self._surplus -= 1
            self._seen.pop(client, None)
            return True
        return False

    def look(self) -> None:
        """Compare the number of clients of the last `SEEN_SECONDS` with that of the others."""
        now = self._looked_at = self._clock()
        # A list of them is made at once: other threads answer meanwhile.
        seen = {client: at for client, at in list(self._seen.items()) if now - at < SEEN_SECONDS}
        self._seen = seen
        self._show(len(seen))
        more = len(seen) - min(n for (n,) in _COUNT.iter_unpack(self._shared[:]))
        is_busy = max(self._requests, self._requests_before) >= BUSY_REQUESTS
        self._surplus = more // 2 if is_busy and more >= UNEVEN else 0
        if now - self._since >= SEEN_SECONDS:
            self._requests_before = self._requests if now - self._since < 2 * SEEN_SECONDS else 0
            self._requests, self._since = 0, now

    def _show(self, count: int) -> None:
        _COUNT.pack_into(self._shared, self._mine * _COUNT.size, count)

    def _look_forever(self) -> None:
        wait = threading.Event().wait
        while not wait(SEEN_SECONDS):
            self.look()


def shared_counts(workers: int) -> mmap.mmap:
    """Return memory shared with forked processes: four bytes, an int, per worker."""
    return mmap.mmap(-1, workers * _COUNT.size)
