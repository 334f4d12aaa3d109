"""A time limit for reading files, which may hang (a pipe, a stalled network disk)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from serve.core.deadline import begin
from taxi_duration.errors import BundleError

T = TypeVar("T")

READ_SECONDS = 10.0  # for one bundle; usually a tenth of a second
GIVE_WAY_SECONDS = 1.0  # when something newer is deployed, which must serve within two seconds
SLICE_SECONDS = 0.1  # between checks whether to go on waiting
MOST_HANGING = 4  # threads that wait for a disk; each holds in memory what it has read


class OvertakenError(Exception):
    """The result is no longer needed: something newer is deployed, or the service stops."""


class Patience:
    """Runs reading functions in threads and stops waiting for those that do not end.

    A hanging thread cannot be ended; it goes on, and its file is not read again meanwhile.

    Args:
        is_overtaken: returns whether something newer is deployed.
        stopped: set when the service stops.
    """

    def __init__(self, is_overtaken: Callable[[], bool], stopped: threading.Event) -> None:
        self._is_overtaken, self._stopped = is_overtaken, stopped
        self._hanging: dict[Hashable, Future[Any]] = {}

    def call(self, key: Hashable, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function; return or raise what it does.

        Args:
            key: identifies what it reads.
        Raises:
            BundleError: it did not end in time, or its last call has not ended yet.
            OvertakenError: it had not ended when something newer was deployed.
        """
        self._hanging = {key: one for key, one in self._hanging.items() if not one.done()}
        if key in self._hanging:
            raise BundleError("its files are still being read: their disk does not answer")
        if len(self._hanging) >= MOST_HANGING:
            raise BundleError(f"{MOST_HANGING} bundles are being read without an end")
        future = begin("read", function, *arguments)
        self._wait(future, key)
        return future.result()

    def _wait(self, future: Future[Any], key: Hashable) -> None:
        began = time.monotonic()
        while not wait([future], SLICE_SECONDS).done:
            waited = time.monotonic() - began
            overtaken = waited >= GIVE_WAY_SECONDS and self._is_overtaken()
            if overtaken or self._stopped.is_set() or waited >= READ_SECONDS:
                self._hanging[key] = future
                if waited < READ_SECONDS:
                    raise OvertakenError
                raise BundleError(f"its files could not be read within {READ_SECONDS:g} s")
