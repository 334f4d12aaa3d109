"""How many cores this process may use: a container's are seldom all of the machine's."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

# Linux: the control groups of this process, and where they are mounted.
OWN_GROUPS, MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
FILES = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # of version 2, and of version 1


@cache
def usable_cores() -> int:
    """Return the number of cores that may be used, at least 1.

    The fewest of those that the machine has, that the process is bound to (`taskset`, cpusets) and
    that its control groups have time for (`docker run --cpus`, Kubernetes' limits), a part of one
    counted as one. More threads than these take turns, and take longer than as many as there are.
    """
    bounds = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        bounds.append(len(os.sched_getaffinity(0)))
    bounds += [math.ceil(quota) for folder in _groups() for quota in _quotas(folder)]
    return min(bounds)


def _groups() -> Iterator[Path]:
    """Yield the folder of each group of the process, and of each that these are in.

    In a container the folder that is mounted may be the group's own, whatever its path says.
    """
    with suppress(OSError, ValueError):  # not Linux
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            mounted = MOUNTED / "cpu" if controllers else MOUNTED
            own = mounted / path.strip("/")
            yield from (group for group in (own, *own.parents) if group.is_relative_to(mounted))


def _quotas(group: Path) -> Iterator[float]:
    """Yield the seconds of a processor that a group has each second, where it has a bound."""
    for names in FILES:
        with suppress(OSError, ValueError):  # no such file; no number, which is no bound
            words = " ".join((group / name).read_text() for name in names).split()
            quota, period = map(float, words)
            if quota > 0 and period > 0:
                yield quota / period
