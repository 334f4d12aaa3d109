"""Why this answer: reasons in minutes that add up to it, in words a rider knows.

Trees give the contributions of the ride's own path through them, linear models those of their
coefficients. Several features mean one thing to a rider ("route"), so they are summed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from taxi_duration.domain.limits import LONGEST_MINUTES, SHORTEST_MINUTES
from taxi_duration.domain.rides import Rides
from taxi_duration.model.day_level import DayParts
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.features import DISTANCE_FEATURES, FEATURES
from taxi_duration.model.linear import LimitedLinearModel, LinearModel, pair_code
from taxi_duration.model.tree_model import TreeModel
from taxi_duration.model.trees import TreeEnsemble

BASE = "usual trip in the city"
ROUTE = "route (from and to)"
DISTANCE = "distance asked"
TIME_OF_DAY = "time of day"
DAY = "weekday or holiday"
SEASON = "time of the year"
KIND_OF_DAY = "kind of day"  # shown as the day's own name
OTHER = "conditions of the hour"
LIMITS = f"kept within {SHORTEST_MINUTES:g} to {LONGEST_MINUTES:g} minutes"
SMALLEST_MINUTES = 1e-4  # smaller parts are rounding, not limits

# What is known without a distance and is not of time is the route's: also the usual minutes at
# this hour, the larger part of which the route makes.
_TIME_FEATURES = ("minutes_from_10", "minutes_from_16", "city_hour", "pickup_hour", "dropoff_hour",
                  "pickup_hour_pace", "dropoff_hour_pace")  # fmt: skip
_DAY_FEATURES = ("hour_of_week", "holiday")
REASON_OF: Mapping[str, str] = {
    **dict.fromkeys(DISTANCE_FEATURES, DISTANCE),
    **dict.fromkeys(FEATURES, ROUTE),
    **dict.fromkeys(_TIME_FEATURES, TIME_OF_DAY),
    **dict.fromkeys(_DAY_FEATURES, DAY),
}


class Reason(NamedTuple):
    """One part of an answer; `minutes` is negative where it makes the trip shorter."""

    name: str
    minutes: float


def explain(model: DurationModel, rides: Rides, minutes: np.ndarray) -> list[list[Reason]]:
    """Return the reasons for each of n answers, the usual trip first, then the largest.

    Args:
        model: what answered.
        rides: what was asked.
        minutes: the answers, shape (n,); the reasons of each sum to it.
    """
    point, used = model.point, model.point.uses_distance(rides)
    reasons: list[list[Reason]] = [[]] * len(rides)
    for with_distance in (True, False):
        rows = np.flatnonzero(used == with_distance)
        if not len(rows):
            continue
        some = rides.take(rows)
        if isinstance(point, TreeModel):
            trees = point.with_distance if with_distance else point.without_distance
            features = point.rows(some, with_distance)
            times, place = np.unique(some.pickup_at.astype("datetime64[m]"), return_inverse=True)
            parts = [point.level.at(time) for time in times.tolist()]
            of_rides = [parts[at] for at in place.tolist()]
            found = explain_trees(trees, features, minutes[rows], with_distance, of_rides)
        else:
            found = explain_linear(point, model.pair_trips, some, with_distance)
            if isinstance(point, LimitedLinearModel):
                said = np.array([sum(part for _, part in of_ride) for of_ride in found])
                _add_cuts(found, minutes[rows] - said)
        for row, of_ride in zip(rows.tolist(), found, strict=True):
            reasons[row] = of_ride
    return reasons


def explain_trees(
    trees: TreeEnsemble,
    features: np.ndarray,
    minutes: np.ndarray,
    with_distance: bool = True,
    days: Sequence[DayParts] = (),
) -> list[list[Reason]]:
    """Return the reasons for n answers of trees; they sum to it.

    Args:
        trees: the ensemble that answered.
        features: the rides', float32, shape (n, k): DISTANCE_FEATURES, or FEATURES without
            distance, then the hour's conditions.
        minutes: the answers after they were limited, shape (n,).
        with_distance: whether the features are those with distance.
        days: the level of each ride's day; none where trees answer for it alone.
    """
    contributions, usual = trees.contributions(features)
    names = DISTANCE_FEATURES if with_distance else FEATURES
    of_column = [REASON_OF[name] for name in names]
    of_column += [OTHER] * (contributions.shape[1] - len(names))
    parts = {name: np.zeros(len(features)) for name in of_column}
    for name, column in zip(of_column, contributions.T, strict=True):
        parts[name] += column
    if days:
        season, kind = np.array([[day.season, day.kind] for day in days]).T
        on_usual_day = usual + sum(parts.values())
        parts[SEASON] = on_usual_day * (season - 1)
        parts[KIND_OF_DAY] = on_usual_day * season * (kind - 1)
    reasons = _largest_first(usual, parts)
    if days:
        reasons = [_named(*both) for both in zip(reasons, days, strict=True)]
    _add_cuts(reasons, minutes - (usual + sum(parts.values())))
    return reasons


def _add_cuts(reasons: list[list[Reason]], cuts: np.ndarray) -> None:
    """Add what the limits of a trip took from, or gave to, each of n answers, minutes."""
    for row in np.flatnonzero(np.abs(cuts) > SMALLEST_MINUTES).tolist():
        reasons[row].append(Reason(LIMITS, float(cuts[row])))


def _named(reasons: list[Reason], day: DayParts) -> list[Reason]:
    """Return a ride's reasons with the kind of its day by name, without one for a usual day."""
    return [
        Reason(day.name, reason.minutes) if reason.name == KIND_OF_DAY and day.name else reason
        for reason in reasons
        if reason.name != KIND_OF_DAY or (day.name and day.kind != 1)
    ]


def explain_linear(
    model: LinearModel, pair_trips: np.ndarray, rides: Rides, with_distance: bool
) -> list[list[Reason]]:
    """Return the reasons for n answers of a linear model; they sum to it.

    The base is the mean answer over the training trips, so that a route's coefficient is
    shown as its difference from the usual one. A distance that was not asked is the route's.

    Args:
        model: what answered.
        pair_trips: training trips of each pair, shape (266, 266).
        rides: all of them with a distance that was used, or all without.
    """
    vectorizer, per_mile = model.vectorizer, model.minutes_per_mile
    columns, trips = vectorizer.column_of, pair_trips.reshape(-1)
    usual_pair = float(np.average(model.pair_minutes[columns], weights=trips))
    usual_miles = float(vectorizer.mean_miles[-1])
    column = columns[pair_code(rides.PULocationID, rides.DOLocationID)]
    route_miles = vectorizer.mean_miles[column]
    route = model.pair_minutes[column] - usual_pair + per_mile * (route_miles - usual_miles)
    parts = {ROUTE: route}
    if with_distance:
        parts[DISTANCE] = per_mile * (rides.trip_distance.astype("float64") - route_miles)
    return _largest_first(model.intercept + usual_pair + per_mile * usual_miles, parts)


def _largest_first(base: float, parts: Mapping[str, np.ndarray]) -> list[list[Reason]]:
    """Reasons of n rides from the minutes of each reason, shape (n,)."""
    minutes = np.column_stack(list(parts.values()))
    order = np.argsort(-np.abs(minutes), axis=1, kind="stable")
    names = np.array(list(parts), dtype=object)[order].tolist()
    minutes = np.take_along_axis(minutes, order, axis=1)
    usual = Reason(BASE, base)
    return [
        [usual, *map(Reason, *of_ride)] for of_ride in zip(names, minutes.tolist(), strict=True)
    ]
