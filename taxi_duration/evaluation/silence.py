"""What is not known: too few rides or truths, and logs in which nothing comes in any more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from taxi_duration.domain.findings import Reason
from taxi_duration.timestamps import DAY_SECONDS, HOUR_SECONDS


class Activity(NamedTuple):
    """When the log last got a ride and a true duration, None for never; unix seconds."""

    last_ride: float | None
    last_feedback: float | None
    now: float


def judge_amount(rides: int, answered: int, enough: int) -> list[Reason]:
    """Say what is missing until answers can be judged.

    Args:
        rides: answered; `answered` of them have a true duration that counts.
        enough: such rides from which on errors are judged.
    """
    if answered >= enough:
        return []
    missing = (
        f"{answered:,} of the {enough:,} true durations that are needed have come, for {rides:,} "
        "rides: how right the answers are is not known"
    )
    return [Reason("unknown", "unknown", missing)]


def judge_silence(activity: Activity, ride_hours: float, feedback_hours: float) -> list[Reason]:
    """Say which of rides and feedback stopped coming: what is known is then of the past.

    Args:
        ride_hours, feedback_hours: without one, from which on that is silence.
    """
    if activity.last_ride is None:
        return [Reason("silence", "unknown", "no ride was ever answered")]
    looked_at = (
        ("ride", activity.last_ride, ride_hours),
        ("true duration", activity.last_feedback, feedback_hours),
    )
    return [
        Reason("silence", "unknown", _since(what, at, activity.now))
        for what, at, hours in looked_at
        if at is None or activity.now - at > hours * HOUR_SECONDS
    ]


def _since(what: str, at: float | None, now: float) -> str:
    if at is None:
        return f"no {what} ever came"
    last = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"no {what} came since {last}, for {(now - at) / DAY_SECONDS:.1f} days"
