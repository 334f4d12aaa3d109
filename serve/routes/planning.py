"""A rider's further questions: how the day goes, when to leave, how far one gets.

Answered by the champion, without a distance. They belong to no ride, and are not logged.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
from flask import Blueprint, Response, request

from serve.bodies.errors import ApiError, json_response
from serve.bodies.query import check_names
from serve.bodies.schema import Hour, Interval, LeaveBy, Profile, Reach, ZoneReached
from serve.core.answering import Answering
from taxi_duration.domain.asked_rides import parse_time
from taxi_duration.domain.limits import FIRST_ZONE, LONGEST_MINUTES, UNKNOWN_ZONE, is_zone
from taxi_duration.domain.refused_values import ALLOWED, YEARS
from taxi_duration.domain.rides import NEW_YORK, Answers, Rides, local_time
from taxi_duration.model.intervals import LEVELS

PLACES = np.arange(FIRST_ZONE, UNKNOWN_ZONE)  # 264 and 265 are no places
LOOK_BACK_MINUTES = int(LONGEST_MINUTES)  # no answer is longer
_UNESCAPED = re.compile(r"^(\S+[T ]\S+) (\d\d:?\d\d)$", re.ASCII)


def planning_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("planning", __name__)

    @blueprint.get("/profile")
    def profile() -> Response:
        check_names("PULocationID", "DOLocationID", "date")
        pickup, dropoff = _zone("PULocationID"), _zone("DOLocationID")
        day = _date()
        starts = [datetime.combine(day, time(hour)) for hour in range(24)]
        answers, version = answering.plan(_rides(pickup, dropoff, starts))
        hours = [
            Hour(hour, duration, Interval(*interval))
            for hour, (duration, *interval) in enumerate(_minutes(answers))
        ]
        return json_response(Profile(pickup, dropoff, day.isoformat(), version, hours))

    @blueprint.get("/leave-by")
    def leave_by() -> Response:
        check_names("PULocationID", "DOLocationID", "arrive", "p")
        pickup, dropoff = _zone("PULocationID"), _zone("DOLocationID")
        arrive, p = _arrival(), _probability()
        starts = [_before(arrive, ago) for ago in range(1, LOOK_BACK_MINUTES + 1)]
        answers, version = answering.plan(_rides(pickup, dropoff, starts))
        minutes = _quantile(answers, p)
        in_time = minutes <= np.arange(1, LOOK_BACK_MINUTES + 1)
        at = int(np.argmax(in_time)) if in_time.any() else LOOK_BACK_MINUTES - 1
        return json_response(
            LeaveBy(
                pickup, dropoff, _written(arrive), _written(starts[at]), p,
                float(minutes[at]), version,
            )
        )  # fmt: skip

    @blueprint.get("/reach")
    def reach() -> Response:
        check_names("PULocationID", "when")
        return json_response(_reach(answering, _zone("PULocationID"), _start()))

    return blueprint


def _reach(answering: Answering, pickup: int, start: datetime) -> Reach:
    answers, version = answering.plan(_rides(pickup, PLACES, [start] * len(PLACES)))
    columns = (PLACES.tolist(), _minutes(answers), answers.support.tolist())
    zones = [
        ZoneReached(zone, duration, Interval(*interval), support)
        for zone, (duration, *interval), support in zip(*columns, strict=True)
    ]
    return Reach(pickup, start.isoformat(), version, zones)


def _before(arrive: datetime, minutes: int) -> datetime:
    """Return New York local time so many minutes earlier, also across a clock change."""
    moment = arrive.replace(tzinfo=NEW_YORK).astimezone(UTC)
    return local_time(moment - timedelta(minutes=minutes))


def _written(at: datetime) -> str:
    """Return a time of New York's clock; with its offset in the hour that comes twice."""
    first, second = (at.replace(tzinfo=NEW_YORK, fold=fold) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return at.isoformat()
    return (second if at.fold else first).isoformat()


def _rides(pickup: int, dropoff: int | np.ndarray, starts: list[datetime]) -> Rides:
    n = len(starts)
    return Rides(
        np.full(n, pickup, "int16"),
        np.full(n, dropoff, "int16"),
        np.array(starts, "datetime64[s]"),
        np.full(n, np.nan, "float32"),
    )


def _minutes(answers: Answers) -> list[list[float]]:
    """Return duration, P10, P50 and P90 (minutes) of each of n rides."""
    columns = (answers.duration, answers.p10, answers.p50, answers.p90)
    return np.column_stack(columns).astype(float).tolist()


def _quantile(answers: Answers, p: float) -> np.ndarray:
    """Return the p-quantile (minutes) of each ride, interpolated between its quantiles, (n,)."""
    quantiles = np.column_stack((answers.p10, answers.p50, answers.p90)).astype(float)
    return np.array([np.interp(p, LEVELS, row) for row in quantiles])


def _zone(name: str) -> int:
    text = _required(name)
    if not (text.isascii() and text.isdecimal() and len(text) < 5 and is_zone(int(text))):
        raise _refused(name, text, ALLOWED[name])
    return int(text)


def _asked(name: str) -> str | None:
    return request.args.get(name)


def _required(name: str) -> str:
    text = _asked(name)
    if text is None:
        message = f"{name} is missing; it must be {ALLOWED[name]}"
        raise ApiError(400, "missing_field", message, name)
    return text


def _refused(name: str, text: str, allowed: str) -> ApiError:
    message = f"{name} is {text[:40]!r}; it must be {allowed}"
    return ApiError(400, "bad_value", message, name)


def _date() -> date:
    text = _asked("date")
    if text is None:
        return local_time(None).date()
    try:
        day = date.fromisoformat(text)
        if YEARS[0] <= day.year < YEARS[1]:
            return day
    except ValueError:
        pass
    raise _refused("date", text, ALLOWED["date"])


def _start() -> datetime:
    text = _asked("when")
    return local_time(None) if text is None else _moment(text, "when")


def _arrival() -> datetime:
    """Return the asked arrival; one in the hour that is left out is what the clock then shows."""
    text = _required("arrive")
    arrive = _before(_moment(text, "arrive"), 0)
    if _before(arrive, LOOK_BACK_MINUTES).year < YEARS[0]:  # no start that would be answered
        raise _refused("arrive", text, ALLOWED["arrive"])
    return arrive


def _moment(text: str, field: str) -> datetime:
    # A plus sign of an offset arrives as a space when the client did not escape it.
    return parse_time(_UNESCAPED.sub(r"\1+\2", text), field)


def _probability() -> float:
    asked = _asked("p")
    text = "0.9" if asked is None else asked
    try:
        p = float(text)
    except ValueError:
        p = -1.0
    if not LEVELS[0] <= p <= LEVELS[-1]:
        allowed = f"a number from {LEVELS[0]} to {LEVELS[-1]}, where the intervals were checked"
        raise _refused("p", text, allowed)
    return p
