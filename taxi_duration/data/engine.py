"""Where the parts of a window are worked on: in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from taxi_duration.data.window import Part

T = TypeVar("T")


def map_parts(task: Callable[[Part], T], parts: Sequence[Part]) -> Iterator[T]:
    """Yield what a task makes of each part, in the order of the parts.

    Args:
        task: depends on nothing but the part; may be sent to another process.
    """
    yield from map(task, parts)
