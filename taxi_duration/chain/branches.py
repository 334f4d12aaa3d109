"""Runs pieces of work beside each other, never on more cores than there are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

from taxi_duration.cores import usable_cores
from taxi_duration.errors import PipelineError

T = TypeVar("T")


class Branch(NamedTuple, Generic[T]):
    """A piece of work.

    Args:
        name: of it, for the error.
        threads: that it keeps busy.
        work: libraries that let go of Python's lock while they compute make it worth a thread.
    """

    name: str
    threads: int
    work: Callable[[], T]


def run_branches(branches: Sequence[Branch[T]], cores: int | None = None) -> Iterator[T]:
    """Yield the result of every branch in their order; those with most threads begin first.

    Each has the threads that it would have alone, so that it computes the same to the last bit.

    Args:
        cores: to be used; those of this machine or container when None.
    Raises:
        PipelineError: a branch failed; names it. Those that had not begun do not begin.
    """
    cores = cores or usable_cores()
    room = _Room(cores)
    with ThreadPoolExecutor(cores) as pool:
        order = sorted(branches, key=lambda branch: -branch.threads)
        futures = {branch.name: pool.submit(room.run, branch) for branch in order}
        try:
            for branch in branches:
                yield futures[branch.name].result()
        except Exception as error:
            raise PipelineError(f"{branch.name}: {type(error).__name__}: {error}") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Room:
    """So many cores, of which a branch takes as many as it has threads, all at once."""

    def __init__(self, cores: int) -> None:
        self._cores = self._free = cores
        self._changed = threading.Condition()

    def run(self, branch: Branch[T]) -> T:
        wanted = min(branch.threads, self._cores)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            return branch.work()
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()
