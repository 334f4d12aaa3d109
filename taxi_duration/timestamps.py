"""Times as files and messages give them: ISO, UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_now() -> str:
    """Return this moment, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def iso_of(seconds: float) -> str:
    """Return unix seconds as ISO, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
