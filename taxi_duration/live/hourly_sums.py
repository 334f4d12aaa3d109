"""Hourly sums of the log's rides and true durations, from which page and metrics are read.

Rows and sums change in one transaction, so the sums always agree with the rows. A true duration
counts under its verdict alone and within its call (`feedback.verdict`); the verdict on its day,
which later feedback may change, is made when the sums are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Row,
    Table,
    case,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import sqlite

from taxi_duration.domain import truths
from taxi_duration.domain.rides import Rides
from taxi_duration.live.log_rows import PredictionRow
from taxi_duration.live.log_tables import (
    chunks,
    feedback,
    hourly_rides,
    hourly_truths,
    insert,
    insert_new,
    predictions,
    unknown_rows,
)
from taxi_duration.timestamps import HOUR_SECONDS

CODES = (truths.SCORED, *truths.OUTSIDE, *truths.QUARANTINED)
ZONES = ("PULocationID", "DOLocationID")
_NAMES = PredictionRow.__struct_fields__
_AT = [_NAMES.index(name) for name in ("asked_at", "model", "arm", "latency_ms")]


class _TruthSums(NamedTuple):
    """A row of `hourly_truths`, summed over hours."""

    model: str
    arm: str
    day: str
    verdict: str
    rides: int
    placed: int
    quick: int
    slow: int
    covered: int
    error: float
    square: float


def hour_of(at: float) -> int:
    """Return the hour (since 1970) of unix seconds."""
    return int(at // HOUR_SECONDS)


# --- updating ---------------------------------------------------------------------------


def insert_rides(connection: Connection, columns: Sequence[Sequence[Any]]) -> None:
    """Insert the rides that are not in the log yet, and add them to the sums.

    Args:
        columns: their values, in the order of `PredictionRow`'s fields; none without rides.
    """
    if not columns:
        return
    if connection.dialect.name == "sqlite":
        # Row ids rise and no other process writes meanwhile: rows with higher ids are new.
        last = connection.exec_driver_sql("SELECT max(rowid) FROM predictions").scalar() or 0
        insert_new(connection, predictions, _NAMES, columns)
        connection.exec_driver_sql(_counting_new(), (last,))
    else:
        rows = unknown_rows(connection, list(zip(*columns, strict=True)))
        insert_new(connection, predictions, _NAMES, list(zip(*rows, strict=True)))
        _add_rides(connection, rows)


def _add_rides(connection: Connection, rows: Iterable[Sequence[Any]]) -> None:
    sums: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        asked_at, model, arm, latency = (row[at] for at in _AT)
        found = sums.setdefault((hour_of(asked_at), model, arm), [0, 0, 0.0, asked_at])
        found[0] += 1
        if latency is not None:
            found[1] += 1
            found[2] += latency
        found[3] = max(found[3], asked_at)
    _add(connection, hourly_rides, sums)


def judge_feedback(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with `verdict`: the code of each true duration, alone and in its call.

    Args:
        rows: the ride's columns, `true_duration` and `received_at`; at least one.
    """
    minutes, received_at = (
        np.array([row[name] for row in rows], "float64")
        for name in ("true_duration", "received_at")
    )
    verdicts = truths.judge_calls(minutes, rides_of(rows), received_at).tolist()
    return [{**row, "verdict": verdict} for row, verdict in zip(rows, verdicts, strict=True)]


def add_truths(connection: Connection, rows: Sequence[Mapping[str, Any]], sign: int = 1) -> None:
    """Add true durations to the sums; with sign -1, subtract them.

    Args:
        rows: the ride's columns, `true_duration` and `verdict`.
    """
    if not rows:
        return
    minutes, answered, p10, p90 = (
        np.array([row[name] for row in rows], "float64")
        for name in ("true_duration", "duration", "p10", "p90")
    )
    verdicts = np.array([row["verdict"] for row in rows])
    error = np.abs(minutes - answered)
    pace = truths.pace_of(minutes, rides_of(rows), verdicts, truths.OF_A_DAY)
    columns = (np.ones(len(rows)), *pace, (p10 <= minutes) & (minutes <= p90), error, error**2)
    places: dict[tuple[Any, ...], int] = {}
    at = [places.setdefault(_key(row), len(places)) for row in rows]
    sums = [sign * np.bincount(at, column, len(places)) for column in columns]
    whole = [column.astype("int64").tolist() for column in sums[:-2]]
    figures = zip(*whole, *(column.tolist() for column in sums[-2:]), strict=True)
    _add(connection, hourly_truths, dict(zip(places, figures, strict=True)))
    if sign < 0:
        # Also what was never counted: it must not be owed by those that come.
        connection.execute(hourly_truths.delete().where(hourly_truths.c.rides <= 0))


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    hour, day = hour_of(row["asked_at"]), row["pickup_at"][:10]
    return hour, row["model"], row["arm"], day, row["verdict"]


def rides_of(rows: Iterable[Mapping[str, Any]]) -> Rides:
    """Return n rows of the log as `Rides` of length n, without distance."""
    rows = list(rows)
    start, end = (np.array([row[name] for row in rows], "int16") for name in ZONES)
    pickup_at = np.array([row["pickup_at"] for row in rows], "datetime64[s]")
    return Rides(start, end, pickup_at, np.full(len(rows), np.nan, "float32"))


def drop_sums(connection: Connection, before: float) -> None:
    """Delete the sums of hours that end before a time, unix seconds."""
    for table in (hourly_rides, hourly_truths):
        connection.execute(table.delete().where(table.c.hour < hour_of(before)))


def _add(
    connection: Connection, table: Table, sums: Mapping[tuple[Any, ...], Sequence[float]]
) -> None:
    """Add figures to the sums of a table.

    Args:
        sums: figures by primary key, both in the order of the table's columns.
    """
    if not sums:
        return
    # Sorted: two writers lock rows in one order and never deadlock.
    rows = [dict(zip(table.c.keys(), (*key, *sums[key]), strict=True)) for key in sorted(sums)]
    connection.execute(_adding(table, insert(connection.dialect, table)), rows)


def _adding(table: Table, statement: Any) -> Any:
    """Return the INSERT with an ON CONFLICT that adds to the existing sums."""
    new, keys = statement.excluded, list(table.primary_key)
    added = {c.name: c + new[c.name] for c in table.c if not c.primary_key}
    if (last := table.c.get("last_asked_at")) is not None:
        latest = new["last_asked_at"]
        added["last_asked_at"] = case((latest > last, latest), else_=last)
    return statement.on_conflict_do_update(index_elements=keys, set_=added)


@cache
def _counting_new() -> str:
    """Return SQLite's SQL that counts the rides with a row id above its argument.

    Compiled once: SQLAlchemy would take longer than SQLite.
    """
    which: ColumnElement[bool] = literal_column("predictions.rowid > ?")
    dialect = sqlite.dialect()
    statement = _counting(dialect, which)
    return str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def _counting(dialect: Dialect, which: ColumnElement[bool]) -> Any:
    """Return the statement that adds rides of `predictions` to `hourly_rides`."""
    asked = predictions.c
    seconds = asked.asked_at / HOUR_SECONDS
    # SQLite's CAST truncates, PostgreSQL's rounds; not every SQLite has floor().
    whole = func.floor(seconds) if dialect.name == "postgresql" else seconds
    hour = whole.cast(hourly_rides.c.hour.type)
    latency = func.coalesce(func.sum(asked.latency_ms), 0.0)
    figures = (func.count(), func.count(asked.latency_ms), latency, func.max(asked.asked_at))
    query = (
        select(hour, asked.model, asked.arm, *figures)
        .where(which)
        .group_by(hour, asked.model, asked.arm)
    )
    statement = insert(dialect, hourly_rides).from_select(hourly_rides.c.keys(), query)
    return _adding(hourly_rides, statement)


# --- building ----------------------------------------------------------------------------


def make_sums(connection: Connection, since: float) -> None:
    """Build the sums of a log without any, for rides asked since a time (unix seconds)."""
    start = hour_of(since) * HOUR_SECONDS
    connection.execute(_counting(connection.dialect, predictions.c.asked_at >= start))
    for call in calls(connection, start):
        judged = judge_feedback(call)
        save_verdicts(connection, [row for row in judged if row["verdict"] != truths.SCORED])
        add_truths(connection, judged)


def save_verdicts(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write each row's `verdict` to the table of feedback."""
    for verdict in {row["verdict"] for row in rows}:
        ids = [row["prediction_id"] for row in rows if row["verdict"] == verdict]
        for chunk in chunks(ids):
            of_chunk = feedback.c.prediction_id.in_(chunk)
            connection.execute(feedback.update().where(of_chunk).values(verdict=verdict))


def calls(
    connection: Connection, since: float, at_once: int = 5000
) -> Iterator[list[dict[str, Any]]]:
    """Yield the feedback in batches of whole calls, with the columns of its rides."""
    after = float("-inf")
    truth = (feedback.c.duration.label("true_duration"), feedback.c.received_at, feedback.c.verdict)
    query = (
        select(predictions, *truth)
        .join(feedback, feedback.c.prediction_id == predictions.c.prediction_id)
        .where(predictions.c.asked_at >= since)
        .order_by(feedback.c.received_at)
    )
    while True:
        page = query.where(feedback.c.received_at > after).limit(at_once)
        result = connection.execute(page)
        keys = list(result.keys())
        rows = [dict(zip(keys, row, strict=True)) for row in result.all()]
        if not rows:
            return
        last = rows[-1]["received_at"]
        if len(rows) == at_once:  # the last call may be cut
            rows = [row for row in rows if row["received_at"] != last]
        if rows:
            yield rows
            after = rows[-1]["received_at"]
        else:
            at_once *= 2


# --- reading ---------------------------------------------------------------------------


def summarize(
    connection: Connection, since: float | None, until: float | None = None
) -> list[dict[str, Any]]:
    """Return figures of each model and arm, the latest first, as `PredictionLog.summary`."""
    found = {(row.model, row.arm): _figures(row) for row in _asked(connection, since, until)}
    by_verdict = _truth_sums(connection, since, until)
    off = _days_off(by_verdict)
    sums: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0, 0, 0.0, 0.0])
    for row in by_verdict:
        is_off = row.day in off and row.verdict != truths.NO_TIME
        key = (row.model, row.arm, truths.OFF_BY_FACTOR if is_off else row.verdict)
        added = (row.rides, row.covered, row.error, row.square)
        sums[key] = [a + b for a, b in zip(sums[key], added, strict=True)]
    for (model, arm, verdict), (rides, covered, error, square) in sums.items():
        figures = found.get((model, arm))
        if figures is None or not rides:  # its first ride came between the two queries
            continue
        figures |= {verdict: rides, "feedback": figures["feedback"] + rides}
        if verdict == truths.SCORED:
            figures |= {"mean_error": error / rides, "mean_square": square / rides,
                        "coverage": covered / rides}  # fmt: skip
    return list(found.values())


def by_hour(connection: Connection, since: float, until: float) -> list[dict[str, Any]]:
    """Return a dict for each hour with rides, oldest first, as `PredictionLog.hours`."""
    off = _days_off(_truth_sums(connection, since, until))
    asked, known = hourly_rides.c, hourly_truths.c
    rides = select(
        asked.hour, func.sum(asked.rides), func.sum(asked.timed), func.sum(asked.latency_ms)
    ).group_by(asked.hour)
    scored = select(known.hour, func.sum(known.rides), func.sum(known.error)).group_by(known.hour)
    scored = scored.where(known.verdict == truths.SCORED, known.day.not_in(off))
    of_rides = connection.execute(_within(rides, hourly_rides, since, until))
    found = {
        hour: {"at": hour * HOUR_SECONDS, "rides": int(n), "scored": 0, "mean_error": None,
               "latency_ms": milliseconds / int(timed) if timed else None}
        for hour, n, timed, milliseconds in of_rides
    }  # fmt: skip
    for hour, n, error in connection.execute(_within(scored, hourly_truths, since, until)):
        if n and hour in found:  # else all were voided, or its first ride came in between
            found[hour] |= {"scored": int(n), "mean_error": error / int(n)}
    return [found[hour] for hour in sorted(found)]


def _asked(connection: Connection, since: float | None, until: float | None) -> Sequence[Row[Any]]:
    sums, last = hourly_rides.c, func.max(hourly_rides.c.last_asked_at)
    query = (
        select(
            sums.model, sums.arm, func.sum(sums.rides).label("rides"),
            func.sum(sums.timed).label("timed"), func.sum(sums.latency_ms).label("latency_ms"),
            last.label("last_asked_at"),
        )
        .group_by(sums.model, sums.arm)
        .order_by(last.desc())
    )  # fmt: skip
    return connection.execute(_within(query, hourly_rides, since, until)).all()


def _figures(row: Row[Any]) -> dict[str, Any]:
    return {
        "model": row.model, "arm": row.arm, "predictions": int(row.rides),
        "latency_ms": row.latency_ms / int(row.timed) if row.timed else None,
        "last_asked_at": row.last_asked_at,
        **dict.fromkeys(("feedback", *CODES), 0),
        **dict.fromkeys(("mean_error", "mean_square", "coverage")),
    }  # fmt: skip


def _truth_sums(
    connection: Connection, since: float | None, until: float | None
) -> list[_TruthSums]:
    by = ("model", "arm", "day", "verdict")
    counts = ("rides", "placed", "quick", "slow", "covered")
    summed = [func.sum(hourly_truths.c[name]).label(name) for name in (*counts, "error", "square")]
    query = select(*(hourly_truths.c[name] for name in by), *summed)
    query = query.group_by(*(hourly_truths.c[name] for name in by))
    rows = connection.execute(_within(query, hourly_truths, since, until)).mappings()
    # PostgreSQL sums whole numbers into decimals.
    return [_TruthSums(**{**row, **{name: int(row[name]) for name in counts}}) for row in rows]


def _within(query: Any, table: Table, since: float | None, until: float | None) -> Any:
    """Select the hours from that of `since` to that of `until`, both in it; None for no bound."""
    if since is not None:
        query = query.where(table.c.hour >= hour_of(since))
    return query if until is None else query.where(table.c.hour <= hour_of(until))


def _days_off(sums: Iterable[_TruthSums]) -> set[str]:
    """Return the days whose median ride is off by a factor."""
    days: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in sums:
        added = (row.placed, row.quick, row.slow)
        days[row.day] = [a + b for a, b in zip(days[row.day], added, strict=True)]
    return {
        day
        for day, (placed, quick, slow) in days.items()
        if truths.is_off(placed, quick, slow, truths.OF_A_DAY)
    }
