"""Plays a month of real trips to a running service: riders ask, then say how long it took.

What takes weeks in life takes seconds here: the live log fills with a month's questions, answers
and true durations, on which `monitor`, `auto` and the A/B test then work as on any others. Like
riders, it sends durations outside 1 to 60 minutes too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import requests

from taxi_duration import environment
from taxi_duration.data.prepared import prepare_months
from taxi_duration.domain.limits import LONGEST_FEEDBACK_MINUTES
from taxi_duration.domain.months import Month, check_available, check_service, parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.truths import OUTSIDE, QUARANTINED, SCORED, judge_truths
from taxi_duration.errors import ReplayError, SettingError

RIDES_AT_ONCE = 1_000  # of one request
SECONDS = 60.0  # that one request may take


def replay_months(
    data: str,
    url: str,
    service: str = "green",
    days: int | None = None,
    rides: int | None = None,
    only_scored: bool = False,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Ask a service every ride of some months in the order of time, and feed the truth back.

    Args:
        data: month tag, range or list.
        url: of the running service.
        service: green, yellow, fhv or fhvhv.
        days: of the first month on; all when None.
        rides: at most so many, evenly spread over those days; all when None.
        only_scored: leave out rides outside 1 to 60 minutes.
        say: gets a line for each day.
    Returns:
        A row for each model and arm that answered: `rides`, `scored`, `quarantined` (counts),
        `outside` (share), and over the scored ones `mae` (minutes) and `coverage` (share).
    Raises:
        ReplayError: no service answers there, or it refuses; says why.
        TaxiError: a month cannot be had.
    """
    months = parse_months(data)
    check_available(check_service(service), months)
    _check_asked(url, days, rides)
    url, prepared = url.rstrip("/"), prepare_months(service, months)
    every = [month.trips() if only_scored else month.every_ride() for month in prepared]
    trips = _chosen(pd.concat(every, ignore_index=True), months, days, rides)
    with requests.Session() as session:
        if key := environment.api_key():
            session.headers["X-API-Key"] = key
        by_day = trips.groupby(trips["pickup_at"].dt.date)
        answers = [_play_day(session, url, service, day, some, say) for day, some in by_day]
    return _summary(pd.concat(answers, ignore_index=True))


def _check_asked(url: str, days: int | None, rides: int | None) -> None:
    for name, number in (("days", days), ("rides", rides)):
        if number is not None and number < 1:
            raise SettingError(f"{name} is {number}; it must be at least 1")
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_one = is_one and parts.port != 0
    except ValueError:  # the port is no number, or a bracket is open
        is_one = False
    if not is_one:
        raise SettingError(f"--url is {url!r}; it must be an address such as http://127.0.0.1:9696")


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
    """Ask a day's rides, give their durations; return who answered and how far off it was."""
    parts = [
        _play(session, url, service, trips.iloc[start : start + RIDES_AT_ONCE])
        for start in range(0, len(trips), RIDES_AT_ONCE)
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame["truth"] = judge_truths(frame.pop("minutes").to_numpy(), Rides.from_frame(trips))
    error = frame["error"][frame["truth"] == SCORED]
    say(f"{day}: {len(frame):,} rides, {len(error):,} scored, MAE {error.mean():.2f} min")
    return frame


def _play(session: requests.Session, url: str, service: str, trips: pd.DataFrame) -> pd.DataFrame:
    """Ask rides in one request and give their durations in another; NaN where none can be."""
    # The same trip always has the same id, so that it meets the same arm.
    asked = [
        {**ride_of(trip), "ride_id": f"{service}-{trip.pickup_at:%Y-%m}-{trip.Index}"}
        for trip in trips.itertuples()
    ]
    answers = _post(session, f"{url}/predict", asked)
    minutes = trips["duration"].to_numpy("float64")
    accepted = (minutes > 0) & (minutes <= LONGEST_FEEDBACK_MINUTES)  # else /feedback refuses
    minutes = np.where(accepted, minutes, np.nan)
    feedback = [
        {"prediction_id": answer["prediction_id"], "duration": true}
        for answer, true in zip(answers, minutes.tolist(), strict=True)
        if true == true
    ]
    if feedback:
        _post(session, f"{url}/feedback", feedback)
    rows = [
        (answer["model"], answer["arm"], true, abs(answer["duration"] - true),
         answer["interval"]["p10"] <= true <= answer["interval"]["p90"])
        for answer, true in zip(answers, minutes.tolist(), strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "arm", "minutes", "error", "covered"])


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


def _summary(answers: pd.DataFrame) -> pd.DataFrame:
    scored = answers["truth"] == SCORED
    outside = answers["truth"].isin(OUTSIDE)
    groups = answers.assign(
        scored=scored,
        outside=outside.astype("float64").where(scored | outside),
        quarantined=answers["truth"].isin(QUARANTINED),
        error=answers["error"].where(scored),
        covered=answers["covered"].astype("float64").where(scored),
    ).groupby(["model", "arm"])
    return groups.agg(
        rides=("error", "size"), scored=("scored", "sum"), quarantined=("quarantined", "sum"),
        outside=("outside", "mean"), mae=("error", "mean"), coverage=("covered", "mean"),
    ).reset_index()  # fmt: skip
