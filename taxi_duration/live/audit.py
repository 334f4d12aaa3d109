"""The audit trail: one line for every decision of the loop, with who, what, why and numbers."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taxi_duration import environment
from taxi_duration.files import append_json_line, read_json_lines

AUDIT_FILE = "audit.jsonl"


def record(
    what: str,
    why: str,
    numbers: dict[str, Any] | None = None,
    key: str | None = None,
    who: str | None = None,
) -> dict[str, Any]:
    """Append a decision and return its line; it is on disk when this returns.

    Args:
        what: the decision, such as `promote green-duration:2`.
        why: in words.
        numbers: plain JSON types.
        key: names the decision; one that is already in the trail is not written again, so
            that a step repeated after a crash leaves one line.
        who: decided it; the loop when None.
    """
    if key is not None:
        for line in read_audit():
            if line.get("key") == key:
                return line
    line = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "who": who or f"auto ({user_name()})",
        "what": what,
        "why": why,
        "numbers": numbers or {},
        "key": key,
    }
    append_json_line(_path(), line, default=float)
    return line


def read_audit() -> list[dict[str, Any]]:
    """Return the decisions, oldest first; a line cut by a crash is left out."""
    return read_json_lines(_path())


def user_name() -> str:
    """Who runs this process, for the records of who did what."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _path() -> Path:
    return environment.deployment_dir() / AUDIT_FILE
