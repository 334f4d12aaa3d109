"""A model as it is saved and served: point answers, intervals, and what they rest on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.limits import TRIP_MINUTES
from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.model.intervals import Intervals, kind_table, ride_groups, scale_places
from taxi_duration.model.linear import LimitedLinearModel, LinearModel, pair_code
from taxi_duration.model.tree_model import TreeModel

PointModel = LinearModel | TreeModel


@dataclass(frozen=True)
class DurationModel:
    """A fitted model of any kind.

    Args:
        kind: one of `training/kinds.py`.
        point: answers in minutes.
        with_distance, without_distance: intervals of answers with and without the asked distance.
        pair_trips: training trips of each pair of zones, int32, shape (266, 266).
        parameters: what the fit was given, for the card.
    """

    kind: str
    point: PointModel
    with_distance: Intervals
    without_distance: Intervals
    pair_trips: np.ndarray
    parameters: dict[str, Any]

    @property
    def knows_distance(self) -> bool:
        """False where no distance that is asked with can enter an answer."""
        return not isinstance(self.point, TreeModel) or self.point.knows_distance

    def for_riders(self) -> DurationModel:
        """Return the model as it is served: no kind answers beyond the limits of a trip."""
        if not isinstance(self.point, LinearModel):
            return self
        return replace(self, point=LimitedLinearModel(**vars(self.point)))

    def answer(self, rides: Rides) -> Answers:
        """Answer n rides with duration, interval, support and whether the distance was used."""
        minutes = self.point.predict_minutes(rides)
        used = self.point.uses_distance(rides)
        support = self.pair_trips[rides.PULocationID, rides.DOLocationID]
        group = interval_groups(rides, support)
        base = np.clip(minutes, *TRIP_MINUTES)  # a linear model may answer less than nothing
        places = scale_places(rides, used)
        quantiles = np.empty((len(rides), 3))
        for intervals, rows in ((self.with_distance, used), (self.without_distance, ~used)):
            scale = intervals.scale([place[rows] for place in places])
            quantiles[rows] = intervals.quantiles(base[rows], group[rows], scale)
        p10, p50, p90 = quantiles.T.astype("float32")
        return Answers(minutes, p10, p50, p90, support, used)


def interval_groups(rides: Rides, support: np.ndarray) -> np.ndarray:
    """Return the group of each ride in which its interval was calibrated, shape (n,)."""
    return ride_groups(kind_table()[rides.PULocationID, rides.DOLocationID], support)


def count_pairs(rides: Rides) -> np.ndarray:
    """Return how many of the rides go from zone to zone, int32, shape (266, 266)."""
    codes = pair_code(rides.PULocationID, rides.DOLocationID)
    return np.bincount(codes, minlength=ZONES**2).reshape(ZONES, ZONES).astype("int32")
