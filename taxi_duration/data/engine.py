"""Where the parts of a window are worked on: in this process, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from typing import TypeVar, cast

from taxi_duration import environment
from taxi_duration.data import cluster
from taxi_duration.data.window import Part

T = TypeVar("T")
# Of calls that run together; the first is the cause of the others.
_errors: ContextVar[list[BaseException] | None] = ContextVar("errors", default=None)


def map_parts(task: Callable[[Part], T], parts: Sequence[Part]) -> Iterator[T]:
    """Yield what a task makes of each part, in the order of the parts.

    With `ENGINE=dask` months are worked on where the cluster's workers are; parts that lie in
    this process's memory stay here.

    Args:
        task: depends on nothing but the part; may be sent to another process.
    Raises:
        ClusterError: as `cluster.map_in_order`.
    """
    if environment.engine() == "local":
        yield from map(task, parts)
        return
    numbers = [part.number() for part in parts]
    sent = [
        (part, number) for part, number in zip(parts, numbers, strict=True) if number is not None
    ]
    made = cluster.map_in_order(task, sent)
    for part, number in zip(parts, numbers, strict=True):
        yield task(part) if number is None else next(made)


def call_all(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return what each call returns, in their order.

    With `ENGINE=dask` they run at the same time, each in a thread that waits for workers. When one
    fails the others give up, those that an outer `call_all` runs too, and its error is raised.
    """
    if environment.engine() == "local":
        return [call() for call in calls]
    errors = failed_beside()
    token = _errors.set(errors)
    try:
        with ThreadPoolExecutor(len(calls)) as pool:
            begun = [pool.submit(copy_context().run, _noted, call, errors) for call in calls]
    except BaseException as error:  # an interrupt, while it waits for the threads
        errors.append(error)
        raise
    finally:
        _errors.reset(token)
    if errors:
        raise errors[0]
    return [cast(T, each.result()) for each in begun]


def failed_beside() -> list[BaseException]:
    """Return the errors of the calls that run beside this one: when there are any, give up."""
    errors = _errors.get()
    return [] if errors is None else errors


def _noted(call: Callable[[], T], errors: list[BaseException]) -> T | None:
    try:
        return call()
    except BaseException as error:
        errors.append(error)
        return None
