"""Busy connections spread evenly over the workers.

The kernel deals new connections out by chance: of eight, one worker of two gets six or more
every third time. So a busy worker that has more of them than the idlest gives some up: it ends
its next answer with `Connection: close`, and the client comes again.
"""

from __future__ import annotations

import mmap
import struct
import threading

LOOK_SECONDS = 0.1  # long enough for every busy connection to ask, short beside a client's stay
BUSY_REQUESTS = 20  # of a look: a worker that is asked less is not worth anybody's new connection
UNEVEN = 2  # connections more than the idlest worker's: one can be given up without a reversal
_COUNT = struct.Struct("i")


class Spread:
    """What one worker knows of the others' connections.

    Args:
        shared: four bytes a worker, see `shared_counts`.
        mine: this worker's number, from 0.
        start: look, on a thread.
    """

    def __init__(self, shared: mmap.mmap, mine: int, start: bool = True) -> None:
        self._shared, self._mine = shared, mine
        self._seen: set[str] = set()
        self._requests = 0
        self._surplus = 0
        if start and len(shared) > _COUNT.size:
            threading.Thread(target=self._look_forever, daemon=True, name="spread").start()

    def gives_up(self, client: str) -> bool:
        """Note that a client was answered; True when its connection is to be closed."""
        self._requests += 1
        self._seen.add(client)
        if self._surplus > 0:
            self._surplus -= 1
            return True
        return False

    def look(self) -> None:
        """Compare what was busy since the last look with the other workers."""
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
    """Return memory that this process shares with those it forks."""
    return mmap.mmap(-1, workers * _COUNT.size)
