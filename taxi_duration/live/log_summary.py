"""What became of the predictions of each model and arm, summed up by the log's database.

States the rule of `domain/truths.py` in SQL, so that no worker reads a week of rides to show a
page. Distances are compared as squares: not every SQLite has a square root.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Double,
    Integer,
    Select,
    and_,
    case,
    cast,
    column,
    func,
    or_,
    select,
    values,
)

from taxi_duration.domain import truths
from taxi_duration.domain.geometry import INNER_RADII
from taxi_duration.domain.limits import LAST_ZONE, LONGEST_MINUTES, SHORTEST_MINUTES
from taxi_duration.live.log_tables import feedback, predictions

CODES = (truths.SCORED, *truths.OUTSIDE, *truths.QUARANTINED)


def summarize(connection: Connection, since: float | None) -> list[dict[str, Any]]:
    """Return figures of each model and arm, the latest first, as `PredictionLog.summary`."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    nothing = dict.fromkeys(("mean_error", "mean_square", "coverage"))
    for row in connection.execute(_asked(since)).mappings():
        counts = dict.fromkeys(("feedback", *CODES), 0)
        found[row["model"], row["arm"]] = {**row, **counts, **nothing}
    for row in connection.execute(_by_verdict(since)).mappings():
        figures = found.get((row["model"], row["arm"]))
        if figures is None:  # its first ride came between the two questions
            continue
        figures |= {row["verdict"]: row["rides"], "feedback": figures["feedback"] + row["rides"]}
        if row["verdict"] == truths.SCORED:
            figures |= {name: row[name] for name in nothing}
    return list(found.values())


def _asked(since: float | None) -> Select[Any]:
    answered = predictions.c
    last = func.max(answered.asked_at)
    query = (
        select(
            answered.model,
            answered.arm,
            func.count().label("predictions"),
            func.avg(answered.latency_ms).label("latency_ms"),
            last.label("last_asked_at"),
        )
        .group_by(answered.model, answered.arm)
        .order_by(last.desc())
    )
    return query if since is None else query.where(answered.asked_at >= since)


def _by_verdict(since: float | None) -> Select[Any]:
    """Rides with feedback and their errors, by model, arm and what the true duration is."""
    row = _judged(_told(since)).c
    return select(
        row.model,
        row.arm,
        row.verdict,
        func.count().label("rides"),
        func.avg(func.abs(row.error)).label("mean_error"),
        func.avg(row.error * row.error).label("mean_square"),
        func.avg(row.covered).label("coverage"),
    ).group_by(row.model, row.arm, row.verdict)


def _told(since: float | None) -> CTE:
    """Rides with feedback, what their minutes say alone, and how they are to usual traffic.

    `placed` is null for a zone that is nowhere; the flags of `_flags` are 1 or null.
    """
    start, end = _places("starts"), _places("ends")
    asked, minutes = predictions.c, feedback.c.duration
    east, north = end.c.east - start.c.east, end.c.north - start.c.north
    centres = east * east + north * north
    radii = start.c.radius + end.c.radius
    nearest = INNER_RADII / 2 * radii
    drivable = truths.FASTEST_KM_A_MINUTE * minutes + truths.EDGE_RADII * radii
    verdict = case(
        (minutes < 0, truths.NO_TIME),
        (minutes >= truths.DAY_MINUTES, truths.WHOLE_DAY),
        (centres > drivable * drivable, truths.TOO_FAST),
        (minutes < SHORTEST_MINUTES, truths.SHORT),
        (minutes > LONGEST_MINUTES, truths.LONG),
        else_=truths.SCORED,
    )
    query = (
        select(
            asked.model,
            asked.arm,
            (minutes - asked.duration).label("error"),
            case((minutes.between(asked.p10, asked.p90), 1.0), else_=0.0).label("covered"),
            func.substr(asked.pickup_at, 1, 10).label("day"),
            feedback.c.received_at,
            verdict.label("verdict"),
            case((minutes >= 0, centres)).label("placed"),
            *_flags("call", minutes, centres, nearest, truths.OF_A_CALL),
            *_flags("day", minutes, centres, nearest, truths.OF_A_DAY),
        )
        .join(feedback, feedback.c.prediction_id == asked.prediction_id)
        .join(start, start.c.zone == asked.PULocationID)
        .join(end, end.c.zone == asked.DOLocationID)
    )
    return _once(query if since is None else query.where(asked.asked_at >= since), "told")


def _flags(
    group: str,
    minutes: ColumnElement[Any],
    centres: ColumnElement[Any],
    nearest: ColumnElement[Any],
    bounds: truths.Bounds,
) -> tuple[ColumnElement[Any], ...]:
    """Whether a ride took less or more than its group's bounds allow for such a distance."""
    slow, quick = _usual_km(minutes, bounds.slow), _usual_km(minutes, bounds.quick)
    is_slow = and_(slow > nearest, slow * slow > centres)
    is_quick = and_(minutes >= 0, or_(quick < nearest, quick * quick < centres))
    return case((is_slow, 1)).label(f"{group}_slow"), case((is_quick, 1)).label(f"{group}_quick")


def _judged(told: CTE) -> CTE:
    """Rides with the verdict that holds: a call off by a factor first, then a day of the rest."""
    row = told.c
    bad_calls = _off_by_factor(
        row.received_at, (row.call_slow, row.call_quick), row.placed, truths.OF_A_CALL
    )
    of_calls = row.received_at.in_(select(_once(bad_calls, "calls")))
    bad_days = _off_by_factor(row.day, (row.day_slow, row.day_quick), row.placed, truths.OF_A_DAY)
    of_days = row.day.in_(select(_once(bad_days.where(~of_calls), "days")))
    off = and_(row.verdict != truths.NO_TIME, or_(of_calls, of_days))
    verdict = case((off, truths.OFF_BY_FACTOR), else_=row.verdict)
    query = select(row.model, row.arm, row.error, row.covered, verdict.label("verdict"))
    return query.cte("judged")


def _off_by_factor(
    group: ColumnElement[Any],
    flags: tuple[ColumnElement[Any], ...],
    placed: ColumnElement[Any],
    bounds: truths.Bounds,
) -> Select[Any]:
    """Groups whose middle ride was far quicker or slower than any traffic."""
    rides = func.count(placed)
    most = or_(*(2 * func.count(flag) > rides for flag in flags))
    return select(group).group_by(group).having(and_(rides >= bounds.fewest, most))


def _once(query: Select[Any], name: str) -> CTE:
    """Have the database work this out once, not at each place that asks for it."""
    return query.cte(name).prefix_with("MATERIALIZED")


def _usual_km(minutes: ColumnElement[Any], factor: float) -> ColumnElement[Any]:
    """How far apart zones are for which these minutes are `factor` times the usual."""
    return (minutes / factor - truths.START_MINUTES) / truths.MINUTES_A_KM


def _places(name: str) -> CTE:
    """Zones with their places, null where a zone is nowhere."""
    places = truths.zone_places()
    rows = [
        (zone, *(None if at != at else at for at in (float(of[zone]) for of in places)))
        for zone in range(1, LAST_ZONE + 1)
    ]
    columns = [column("zone", Integer), *(column(each, Double) for each in places._fields)]
    raw = values(*columns).data(rows).cte(f"{name}_raw")
    zone = cast(raw.c.zone, Integer).label("zone")  # without a type SQLite makes no index
    return _once(select(zone, *list(raw.c)[1:]), name)
