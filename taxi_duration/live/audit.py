"""The audit trail: one line per decision, with who, what, why and numbers."""

from __future__ import annotations

import getpass
import os
from typing import Any

from taxi_duration import environment
from taxi_duration.files import ChainedLine, append_json_line, read_chain
from taxi_duration.timestamps import iso_now

AUDIT_FILE = "audit.jsonl"


def record(
    what: str,
    why: str,
    numbers: dict[str, Any] | None = None,
    key: str | None = None,
    who: str | None = None,
    sha256: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Append a decision and return its line, which is synced to disk.

    Args:
        what: the decision, such as `promote green-duration:2`.
        why: in words.
        numbers: plain JSON types.
        key: identifies the decision; a key that is already in the trail is not written again, so
            that a step repeated after a crash leaves one line.
        who: decided; the loop when None.
        sha256: digests that the trail vouches for, by name.
    """
    line = {
        "at": iso_now(),
        "who": who or f"auto ({user_name()})",
        "what": what,
        "why": why,
        "numbers": numbers or {},
        "key": key,
    }
    if sha256 is not None:
        line["sha256"] = sha256
    return append_json_line(environment.deployment_dir() / AUDIT_FILE, line, default=float, key=key)


def read_audit() -> list[dict[str, Any]]:
    """Return the decisions, oldest first; a line cut by a crash is left out."""
    return [line.record for line in audit_lines()]


def audit_lines() -> list[ChainedLine]:
    """Return the decisions with their lines in the hash chain."""
    return read_chain(environment.deployment_dir() / AUDIT_FILE)


def last_training(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the `minutes` that the last training took, and what was said of its gain since.

    Args:
        lines: of the trail, oldest first.
    """
    for line in reversed(lines):
        numbers = line.get("numbers")
        if isinstance(numbers, dict) and "training_minutes" in numbers:
            return {"minutes": numbers["training_minutes"], "what": line.get("what"),
                    "gain": line.get("why"), "at": line.get("at")}  # fmt: skip
    return None


def lines_about(lines: list[ChainedLine], ref: str, sha256: str) -> list[ChainedLine]:
    """Return those lines of the trail whose key names a version, oldest first.

    Args:
        lines: of the trail.
        ref: the version, `name:number`.
        sha256: of its model.
    """
    return [line for line in lines if f" {ref} {sha256}" in str(line.record.get("key"))]


def user_name() -> str:
    """Return the name of the user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"
