"""Where the parts of a window are worked on: in this process, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from taxi_duration import environment
from taxi_duration.data import cluster
from taxi_duration.data.window import Part

T = TypeVar("T")


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
