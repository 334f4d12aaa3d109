"""Times as files and messages give them, ISO and UTC; and what a day has in seconds."""

from __future__ import annotations

from datetime import UTC, datetime

HOUR_SECONDS, DAY_SECONDS = 3600, 86_400


def iso_now() -> str:
    """Return this moment, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def iso_of(seconds: float) -> str:
    """Return unix seconds as ISO, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
