"""Plays a month of real trips to a running service: riders ask, and tell how long it took.

What takes weeks in life takes seconds here: the live log fills with a month's questions, answers
and true durations, on which `monitor`, `auto` and the A/B test then work as on any others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import requests

from taxi_duration import environment
from taxi_duration.data.prepared import concat_trips, prepare_months
from taxi_duration.domain.months import Month, check_available, check_service, parse_months
from taxi_duration.errors import ReplayError, SettingError

RIDES_AT_ONCE = 1_000  # of one request
SECONDS = 60.0  # that one request may take


def replay_months(
    data: str,
    url: str,
    service: str = "green",
    days: int | None = None,
    rides: int | None = None,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Ask a service every ride of some months in the order of time, and feed the truth back.

    Args:
        data: month tag, range or list.
        url: of the running service.
        service: green, yellow, fhv or fhvhv.
        days: of the first month on; all when None.
        rides: at most so many, evenly spread over those days; all when None.
        say: gets a line for each day.
    Returns:
        A row for each model and arm that answered: `model`, `arm`, `rides`, `mae` (minutes),
        `coverage` (share within P10-P90).
    Raises:
        ReplayError: no service answers there, or it refuses; says why.
        TaxiError: a month cannot be had.
    """
    months = parse_months(data)
    check_available(check_service(service), months)
    for name, number in (("days", days), ("rides", rides)):
        if number is not None and number < 1:
            raise SettingError(f"{name} is {number}; it must be at least 1")
    trips = _chosen(concat_trips(prepare_months(service, months)), months, days, rides)
    with requests.Session() as session:
        if key := environment.api_key():
            session.headers["X-API-Key"] = key
        told = [
            _play_day(session, url.rstrip("/"), service, day, of_day, say)
            for day, of_day in trips.groupby(trips["pickup_at"].dt.date)
        ]
    return _summary(pd.concat(told, ignore_index=True))


def _chosen(
    trips: pd.DataFrame, months: list[Month], days: int | None, rides: int | None
) -> pd.DataFrame:
    """The trips to play, in the order of their pickups.

    A file also holds trips that a wrong clock put into another month or year: they stay out.
    """
    trips = trips.sort_values("pickup_at", ignore_index=True)
    trips = trips[trips["pickup_at"].dt.strftime("%Y-%m").isin([str(month) for month in months])]
    if days is not None:
        last = pd.Timestamp(f"{min(months)}-01") + pd.Timedelta(days=days)
        trips = trips[trips["pickup_at"] < last]
    if rides is not None and rides < len(trips):
        trips = trips.iloc[[i * len(trips) // rides for i in range(rides)]]
    return trips


def _play_day(
    session: requests.Session,
    url: str,
    service: str,
    day: Any,
    trips: pd.DataFrame,
    say: Callable[[str], None],
) -> pd.DataFrame:
    """Ask a day's rides, tell their durations; return who answered and how far off it was."""
    parts = []
    for start in range(0, len(trips), RIDES_AT_ONCE):
        part = trips.iloc[start : start + RIDES_AT_ONCE]
        # The same trip always has the same id, so that it meets the same arm.
        asked = [
            {**ride_of(trip), "ride_id": f"{service}-{trip.pickup_at:%Y-%m}-{trip.Index}"}
            for trip in part.itertuples()
        ]
        answers = _post(session, f"{url}/predict", asked)
        truth = [float(minutes) for minutes in part["duration"]]
        told = [
            {"prediction_id": answer["prediction_id"], "duration": minutes}
            for answer, minutes in zip(answers, truth, strict=True)
        ]
        _post(session, f"{url}/feedback", told)
        parts += [
            (answer["model"], answer["arm"], abs(answer["duration"] - minutes),
             answer["interval"]["p10"] <= minutes <= answer["interval"]["p90"])
            for answer, minutes in zip(answers, truth, strict=True)
        ]  # fmt: skip
    frame = pd.DataFrame(parts, columns=["model", "arm", "error", "covered"])
    say(f"{day}: {len(frame):,} rides, MAE {frame['error'].mean():.2f} min")
    return frame


def ride_of(trip: Any) -> dict[str, Any]:
    """Return a trip (a row of `itertuples`) as a rider asks for it."""
    known = {} if pd.isna(trip.trip_distance) else {"trip_distance": float(trip.trip_distance)}
    return {
        "PULocationID": int(trip.PULocationID), "DOLocationID": int(trip.DOLocationID),
        "pickup_datetime": trip.pickup_at.isoformat(timespec="seconds"), **known,
    }  # fmt: skip


def _post(session: requests.Session, address: str, content: list[dict[str, Any]]) -> Any:
    try:
        response = session.post(address, json=content, timeout=SECONDS)
    except requests.RequestException as error:
        raise ReplayError(
            f"no service answers at {address}: {type(error).__name__}; `make serve` starts one"
        ) from error
    if not response.ok:
        raise ReplayError(f"{address} answered {response.status_code}: {response.text[:300]}")
    return response.json()


def _summary(told: pd.DataFrame) -> pd.DataFrame:
    groups = told.groupby(["model", "arm"])
    return groups.agg(
        rides=("error", "size"), mae=("error", "mean"), coverage=("covered", "mean")
    ).reset_index()
