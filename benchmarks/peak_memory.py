"""The most memory that this process has held.

`ru_maxrss` is no measure of it: a child begins with what its parent held when it was started.
"""

from __future__ import annotations

import resource
from pathlib import Path


def peak_bytes() -> int:
    """Return this process's largest resident set so far, bytes."""
    status = Path("/proc/self/status")
    if not status.exists():  # macOS, which counts in bytes and lets a child begin at nothing
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
