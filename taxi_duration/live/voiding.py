"""Voiding: an operator excludes bad feedback from evaluation; it is kept in its own table."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from taxi_duration.domain.rides import NEW_YORK
from taxi_duration.errors import SettingError
from taxi_duration.live.audit import read_audit, record, user_name
from taxi_duration.live.prediction_log import PredictionLog
from taxi_duration.live.true_durations import without
from taxi_duration.timestamps import iso_of


def void_feedback(
    log: PredictionLog, since: str, until: str, why: str, dry_run: bool = False
) -> str:
    """Void the feedback received in a period; return a sentence on what was done. Idempotent.

    The right durations may then be given for the same predictions.

    The period may end ahead where feedback is dated there, by a clock that was ahead. A repeat,
    also when that time has come, leaves what was received since the first call.

    Args:
        since, until: period of receipt, not of the rides, `until` excluded; ISO, New York local
            time unless there is an offset.
        why: goes to the log and the audit trail.
        dry_run: only count.
    Raises:
        SettingError: a time cannot be read, the period is empty, or ends ahead for no reason.
        LogError: the log cannot be written; nothing was voided.
    """
    start, end = _seconds("--from", since), _seconds("--to", until)
    if start >= end:
        raise SettingError(f"--from {since} is not before --to {until}")
    now, first = time.time(), _first_call(start, end)
    if end > now and first is None:
        first = _begin_ahead(log, start, end, now)
    came_since = None if first is None else (first, now)  # also what was corrected
    when = f"received from {iso_of(start)} until {iso_of(end)}"
    if dry_run:
        count = sum(log.count_feedback(*part) for part in without(start, end, came_since))
        return f"{count:,} true durations {when} would be voided"
    count = log.void_feedback(start, end, user_name(), why, came_since)
    if count:  # the key keeps it one line when a crashed call is repeated
        numbers = {"from": start, "to": end, "voided": count}
        if first is not None:
            numbers["received_before"] = first
        key = f"void:{start}:{end}:{count}"
        record(f"void {count} true durations", f"{why}; {when}", numbers, key, user_name())
    return f"{count:,} true durations {when} are voided"


def _first_call(start: float, end: float) -> float | None:
    """Return when just this period was first voided, if it ended ahead then; unix seconds."""
    for line in read_audit():
        numbers = line.get("numbers") or {}
        if "received_before" in numbers and (numbers["from"], numbers["to"]) == (start, end):
            return float(numbers["received_before"])
    return None


def _begin_ahead(log: PredictionLog, start: float, end: float, now: float) -> float:
    """Return before when feedback was received that a period which ends ahead is about.

    Beside what is dated ahead.

    Raises:
        SettingError: nothing is.
    """
    ahead = max(start, now), end
    if log.count_feedback(*ahead):
        return now
    if log.void_feedback(*ahead, user_name(), "", but=ahead):  # moves nothing
        return start  # voided by a call that died before its line: what there is came since
    raise SettingError(f"--to {iso_of(end)} lies ahead: feedback to come cannot be voided")


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
