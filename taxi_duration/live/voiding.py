"""Voiding: an operator excludes bad feedback from evaluation; it is kept in its own table."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from taxi_duration.domain.rides import NEW_YORK
from taxi_duration.errors import SettingError
from taxi_duration.live.audit import record, user_name
from taxi_duration.live.prediction_log import PredictionLog
from taxi_duration.timestamps import iso_of


def void_feedback(
    log: PredictionLog, since: str, until: str, why: str, dry_run: bool = False
) -> str:
    """Void the feedback received in a period; return a sentence on what was done. Idempotent.

    The right durations may then be given for the same predictions.

    Args:
        since, until: period of receipt, not of the rides, `until` excluded; ISO, New York local
            time unless there is an offset.
        why: goes to the log and the audit trail.
        dry_run: only count.
    Raises:
        SettingError: a time cannot be read, the period is empty or ends in the future.
        LogError: the log cannot be written; nothing was voided.
    """
    start, end = _seconds("--from", since), _seconds("--to", until)
    if start >= end:
        raise SettingError(f"--from {since} is not before --to {until}")
    if end > time.time():  # a repeat would void the corrected feedback
        raise SettingError(f"--to {until} lies ahead: feedback to come cannot be voided")
    when = f"received from {iso_of(start)} until {iso_of(end)}"
    if dry_run:
        return f"{log.count_feedback(start, end):,} true durations {when} would be voided"
    count = log.void_feedback(start, end, user_name(), why)
    if count:  # the key keeps it one line when a crashed call is repeated
        numbers = {"from": start, "to": end, "voided": count}
        key = f"void:{start}:{end}:{count}"
        record(f"void {count} true durations", f"{why}; {when}", numbers, key, user_name())
    return f"{count:,} true durations {when} are voided"


def _seconds(name: str, given: str) -> float:
    try:
        at = datetime.fromisoformat(given.strip())
        at = at if at.tzinfo else at.replace(tzinfo=NEW_YORK)
        return at.astimezone(UTC).timestamp()
    except (ValueError, OverflowError) as error:  # the second: of the years 1 and 9999
        raise SettingError(
            f"{name} {given!r} is no time; such as 2021-03-01T14:30 (New York), "
            "2021-03-01T19:30:00+00:00 or 2021-03-01"
        ) from error
