"""A deadline for calls to the log's store, which may hang: not at the riders' cost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from taxi_duration.errors import LogError

T = TypeVar("T")


class Deadline:
    """Waits for a call so long and no longer: a worker's threads are few, and riders wait too.

    While a call is overdue, others are refused at once. It is left to itself, and asked again
    when it has ended.

    Args:
        seconds: to wait for one call.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._overdue: Future[Any] | None = None

    def another(self) -> Deadline:
        """Return one that waits as long, for calls that those of this one must not hold up."""
        return Deadline(self._seconds)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return what the function returns, and raise what it raises.

        Raises:
            LogError: it did neither in time.
        """
        overdue = self._overdue
        if overdue is not None and not overdue.done():
            raise LogError("the store of the prediction log still does not answer")
        future = begin("store", function, *arguments)
        try:
            return future.result(self._seconds)
        except TimeoutError:
            if future.done():  # it was the function's own
                raise
            self._overdue = future
            raise LogError(
                f"the store of the prediction log does not answer within {self._seconds:g} s"
            ) from None


def begin(name: str, function: Callable[..., T], *arguments: Any) -> Future[T]:
    """Call a function on a thread of this name; the future will hold what becomes of it."""
    future: Future[T] = Future()
    # A daemon: the worker can end whatever becomes of the call.
    threading.Thread(
        target=_run_into, args=(future, function, arguments), daemon=True, name=name
    ).start()
    return future


def _run_into(future: Future[T], function: Callable[..., T], arguments: tuple[Any, ...]) -> None:
    """Call the function; the future holds what it returns or raises."""
    try:
        future.set_result(function(*arguments))
    except BaseException as error:  # whatever it is, it belongs to who asked
        future.set_exception(error)
