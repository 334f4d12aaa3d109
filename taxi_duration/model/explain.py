"""Why this answer: reasons in minutes that add up to it, in words a rider knows.

Trees give the contributions of the ride's own path through them, linear models those of their
coefficients. Several features mean one thing to a rider ("route"), so they are summed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from taxi_duration.domain.limits import LONGEST_MINUTES, SHORTEST_MINUTES
from taxi_duration.model.features import DISTANCE_FEATURES, FEATURES
from taxi_duration.model.linear import LinearModel, pair_code
from taxi_duration.model.trees import TreeEnsemble

BASE = "usual trip in the city"
ROUTE = "route (from and to)"
DISTANCE = "distance asked"
TIME_OF_DAY = "time of day"
DAY = "weekday or holiday"
OTHER = "conditions of the hour"
LIMITS = f"kept within {SHORTEST_MINUTES:g} to {LONGEST_MINUTES:g} minutes"
SMALLEST_MINUTES = 1e-4  # smaller parts are rounding, not limits

# What is known without a distance and is not of time is the route's: also the usual minutes at
# this hour, the larger part of which the route makes.
_TIME_FEATURES = ("minute_of_day", "city_hour", "pickup_hour", "dropoff_hour",
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


def explain_trees(
    trees: TreeEnsemble, features: np.ndarray, duration: float, with_distance: bool = True
) -> list[Reason]:
    """Return the reasons for one answer of trees; they sum to it.

    Args:
        trees: the ensemble that answered.
        features: the ride's, float32, shape (k,): DISTANCE_FEATURES, or FEATURES without
            distance, then the hour's conditions.
        duration: the answer, minutes, after it was limited.
        with_distance: whether the features are those with distance.
    """
    contributions, usual = trees.contributions(features)
    minutes: dict[str, float] = defaultdict(float)
    names = DISTANCE_FEATURES if with_distance else FEATURES
    for name, part in zip_longest(names, contributions.tolist()):
        minutes[REASON_OF.get(name, OTHER)] += part
    reasons = [Reason(BASE, usual), *_largest_first(minutes)]
    cut = duration - sum(reason.minutes for reason in reasons)
    return [*reasons, Reason(LIMITS, cut)] if abs(cut) > SMALLEST_MINUTES else reasons


def explain_linear(
    model: LinearModel, pair_trips: np.ndarray, pickup: int, dropoff: int, miles: float | None
) -> list[Reason]:
    """Return the reasons for one answer of a linear model; they sum to it.

    The base is the mean answer over the training trips, so that a route's coefficient is
    told as its difference from the usual one. A distance that was not asked is the route's.

    Args:
        model: what answered.
        pair_trips: training trips of each pair, shape (266, 266).
        pickup, dropoff: zones, 1-265.
        miles: distance that was used, or None.
    """
    vectorizer, per_mile = model.vectorizer, model.minutes_per_mile
    columns, trips = vectorizer.column_of, pair_trips.reshape(-1)
    usual_pair = float(np.average(model.pair_minutes[columns], weights=trips))
    usual_miles = float(vectorizer.mean_miles[-1])
    column = columns[pair_code(np.array(pickup), np.array(dropoff))]
    route_miles = float(vectorizer.mean_miles[column])
    route = float(model.pair_minutes[column]) - usual_pair + per_mile * (route_miles - usual_miles)
    parts = {ROUTE: route}
    if miles is not None:
        parts[DISTANCE] = per_mile * (miles - route_miles)
    base = Reason(BASE, model.intercept + usual_pair + per_mile * usual_miles)
    return [base, *_largest_first(parts)]


def _largest_first(minutes: Mapping[str, float]) -> list[Reason]:
    ordered = sorted(minutes.items(), key=lambda item: -abs(item[1]))
    return [Reason(name, part) for name, part in ordered]
