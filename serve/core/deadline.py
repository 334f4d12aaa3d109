"""A time limit for calls to the log's store, which may hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from taxi_duration.errors import LogError

T = TypeVar("T")


class Deadline:
    """Waits for a call for a limited time, so that it does not hold a worker's thread for ever.

    An overdue call goes on in its thread; until it ends, further calls are refused at once.

    Args:
        seconds: to wait for one call.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._overdue: Future[Any] | None = None

    def another(self) -> Deadline:
        """Return an independent deadline of the same length."""
        return Deadline(self._seconds)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function; return or raise what it does.

        Raises:
            LogError: it did not end in time, or an earlier call has not ended yet.
        """
        overdue = self._overdue
        if overdue is not None and not overdue.done():
            raise LogError("the store of the prediction log still does not answer")
        future = begin("store", function, *arguments)
        try:
            return future.result(self._seconds)
        except TimeoutError:
            if future.done():  # raised by the function itself
                raise
            self._overdue = future
            raise LogError(
                f"the store of the prediction log does not answer within {self._seconds:g} s"
            ) from None


def begin(name: str, function: Callable[..., T], *arguments: Any) -> Future[T]:
    """Call a function on a new thread with this name; return the future of its result."""
    future: Future[T] = Future()
    # A daemon: a hanging call does not keep the worker from ending.
    threading.Thread(
        target=_run_into, args=(future, function, arguments), daemon=True, name=name
    ).start()
    return future


def _run_into(future: Future[T], function: Callable[..., T], arguments: tuple[Any, ...]) -> None:
    """Call the function and put its result or exception into the future."""
    try:
        future.set_result(function(*arguments))
    except BaseException as error:  # any exception is the caller's
        future.set_exception(error)
