"""True durations (feedback): insert, judge, count and void, for rides in tables and archive.

Each function runs within one transaction: feedback, its verdict, the hourly sums and those of the
traffic change together.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from taxi_duration.live import log_tables, traffic_sums
from taxi_duration.live.archive_reading import ArchiveReader
from taxi_duration.live.hourly_sums import add_truths, judge_feedback, save_verdicts
from taxi_duration.live.log_rows import FeedbackResult
from taxi_duration.live.log_tables import feedback, predictions, voided_feedback

Row = Mapping[str, Any]
Period = tuple[float, float]  # unix seconds, the second not in it


def add_feedback(
    connection: Connection, archive: ArchiveReader, rows: Sequence[Row]
) -> FeedbackResult:
    """Keep the first true duration of each ride; as `PredictionLog.add_feedback`."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row["prediction_id"], row)
    asked = _rides(connection, archive, first)
    given = [
        {**ride, "true_duration": first[key]["duration"], "received_at": first[key]["received_at"]}
        for key, ride in asked.items()
        if ride.get("true_duration") is None  # an archived ride may have its truth in the file
    ]
    new = _keep(connection, given)
    known, unknown, duplicate = [], [], []
    for row in rows:
        prediction_id = row["prediction_id"]
        if prediction_id not in asked:
            unknown.append(prediction_id)
        elif prediction_id in new:
            known.append(prediction_id)
            new.discard(prediction_id)  # a second one in the same call
        else:
            duplicate.append(prediction_id)
    return FeedbackResult(known, unknown, duplicate)


def count_feedback(
    connection: Connection, archive: ArchiveReader, since: float, until: float
) -> int:
    """Return how many true durations were received since <= received_at < until."""
    here = sum(1 for _ in log_tables.received_in(connection, feedback, since, until))
    return here + sum(1 for _ in archive.received(connection, since, until))


def void_feedback(
    connection: Connection,
    archive: ArchiveReader,
    since: float,
    until: float,
    by: str,
    why: str,
    but: Period | None = None,
) -> int:
    """Void feedback; as `PredictionLog.void_feedback`."""
    periods = without(since, until, but)
    # Archived feedback; files do not change, so what the tables list as voided is left out.
    old = [ride for period in periods for ride in archive.received(connection, *period)]
    # Deleted first: feedback that another host adds meanwhile is not lost.
    gone = {
        row["prediction_id"]: row
        for period in periods
        for row in log_tables.take_out_feedback(connection, *period)
    }
    note = {"voided_at": time.time(), "voided_by": by, "why": why}
    taken = [*gone.values(), *({**ride, "duration": ride["true_duration"]} for ride in old)]
    if taken:
        kept = ("prediction_id", "duration", "received_at")
        rows = [{**{name: row[name] for name in kept}, **note} for row in taken]
        connection.execute(voided_feedback.insert(), rows)
    counted = [
        {**ride, **gone[key], "duration": ride["duration"], "true_duration": gone[key]["duration"]}
        for key, ride in _rides(connection, archive, gone, bounded=False).items()
    ]
    add_truths(connection, [*counted, *old], sign=-1)
    traffic_sums.add_truths(connection, [*counted, *old], sign=-1)
    voided = {
        (row["prediction_id"], row["voided_at"])
        for row in log_tables.received_in(connection, voided_feedback, since, until)
    }
    return len(voided | archive.voided(connection, since, until))


def without(since: float, until: float, but: Period | None) -> list[Period]:
    """Return what is left of a period without another one."""
    first, last = but or (until, until)
    parts = ((since, min(until, first)), (max(since, last), until))
    return [part for part in parts if part[0] < part[1]]


def _rides(
    connection: Connection, archive: ArchiveReader, ids: Iterable[str], bounded: bool = True
) -> dict[str, dict[str, Any]]:
    """Return the rides with these ids, from tables or archive."""
    wanted = list(ids)
    found = {
        row["prediction_id"]: row for row in log_tables.rows_of(connection, predictions, wanted)
    }
    missing = [key for key in wanted if key not in found]
    return found | archive.find(connection, missing, bounded)


def _keep(connection: Connection, rows: list[dict[str, Any]]) -> set[str]:
    """Insert, judge and count the true durations of one call; return the ids that were new.

    Args:
        rows: the ride's columns, `true_duration` and `received_at`, each ride once.
    """
    there = set(log_tables.known_ids(connection, [row["prediction_id"] for row in rows], feedback))
    rows = [row for row in rows if row["prediction_id"] not in there]
    if not rows:
        return set()
    rows = judge_feedback(rows)
    new = log_tables.insert_feedback(
        connection,
        [{"prediction_id": row["prediction_id"], "duration": row["true_duration"],
          "received_at": row["received_at"], "verdict": row["verdict"]} for row in rows],
    )  # fmt: skip
    if len(new) < len(rows):  # another call has just inserted some: judge the rest without them
        rows = [row for row in rows if row["prediction_id"] in new]
        if not rows:
            return set()
        rows = judge_feedback(rows)
        save_verdicts(connection, rows)
    add_truths(connection, rows)
    traffic_sums.add_truths(connection, rows)
    return new
