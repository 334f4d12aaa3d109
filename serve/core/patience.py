"""Reading files of which nobody knows whether they end, without waiting for ever."""

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
GIVE_WAY_SECONDS = 1.0  # when something newer is deployed: it is to serve within two
SLICE_SECONDS = 0.1  # between looks at whether to wait on
MOST_HANGING = 4  # threads that wait for a disk; each has what it read in memory


class OvertakenError(Exception):
    """Something newer is deployed, or the service stops: what was asked matters no more."""


class Patience:
    """Calls what reads files in threads of their own, which are given up when they do not end.

    A thread that hangs cannot be ended. It is left to itself, and what it does is not begun
    again meanwhile.

    Args:
        is_overtaken: whether something newer is to be read.
        stopped: set when nothing is to be waited for any more.
    """

    def __init__(self, is_overtaken: Callable[[], bool], stopped: threading.Event) -> None:
        self._is_overtaken, self._stopped = is_overtaken, stopped
        self._hanging: dict[Hashable, Future[Any]] = {}

    def call(self, key: Hashable, function: Callable[..., T], *arguments: Any) -> T:
        """Return what a function returns, and raise what it raises.

        Args:
            key: what it reads.
        Raises:
            BundleError: it did neither in time, or has not yet since it was last called.
            OvertakenError: it did neither before there was something newer to do.
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
