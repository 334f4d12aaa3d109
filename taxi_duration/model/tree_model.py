"""Trees over the ride's features: one ensemble that knows the distance, one that does not."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from taxi_duration.domain.limits import TRIP_MINUTES
from taxi_duration.domain.pair_miles import can_be, pair_miles
from taxi_duration.domain.rides import Rides
from taxi_duration.model.day_level import DayLevel
from taxi_duration.model.extra_features import values_of
from taxi_duration.model.features import (
    DISTANCE_FEATURES,
    FEATURES,
    FeatureTables,
    transform,
)
from taxi_duration.model.trees import TreeEnsemble


@dataclass(frozen=True)
class TreeModel:
    """A fitted tree model: trees answer for a usual day, its level makes it the ride's day.

    Args:
        tables: what features are looked up in.
        with_distance: trees over the features with the asked distance.
        without_distance: trees over those without; also for distances that cannot be their pair's.
        conditions: names of the hour's conditions, the last features of both.
        features: names of the features before them; without distance the first of these.
        level: what the trees' answers are multiplied by.
    """

    tables: FeatureTables
    with_distance: TreeEnsemble
    without_distance: TreeEnsemble
    conditions: tuple[str, ...] = ()
    features: tuple[str, ...] = DISTANCE_FEATURES
    level: DayLevel = field(default_factory=DayLevel)

    def predict_minutes(self, rides: Rides) -> np.ndarray:
        """Return float32 minutes, shape (n,)."""
        rows = transform(rides, self.tables, with_distance=True)
        whole, first = with_conditions(rows, self.conditions, rides.pickup_at)
        used = self.uses_distance(rides)
        minutes = np.empty(len(rides), dtype="float32")
        minutes[used] = self.with_distance.predict(whole[used])
        minutes[~used] = self.without_distance.predict(first[~used])
        return np.asarray(np.clip(minutes * self.level.of(rides.pickup_at), *TRIP_MINUTES))

    def rows(self, rides: Rides, with_distance: bool) -> np.ndarray:
        """Return what the trees of either kind see, float32 of shape (n, k)."""
        rows = transform(rides, self.tables, with_distance)
        if not self.conditions:
            return rows
        return np.hstack([rows, values_of(self.conditions, rides.pickup_at)])

    @property
    def knows_distance(self) -> bool:
        """False for a model of months without distances (FHV): its trees with one learned none."""
        return self.tables.minutes_of_miles.is_known

    def uses_distance(self, rides: Rides) -> np.ndarray:
        """True where the ride's own distance entered the answer, shape (n,)."""
        return self.has_usable_distance(rides) & self.knows_distance

    @staticmethod
    def has_usable_distance(rides: Rides) -> np.ndarray:
        """True where the ride has a distance that can be its pair's, shape (n,)."""
        shortest, longest = (of[rides.PULocationID, rides.DOLocationID] for of in pair_miles())
        used: np.ndarray = can_be(rides.trip_distance, shortest, longest)
        return used


def with_conditions(
    rows: np.ndarray, conditions: tuple[str, ...], pickup_at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the trees with and without distance see, from the features of both.

    Without conditions nothing is copied: both are views.
    """
    first = rows[:, : len(FEATURES)]
    if not conditions:
        return rows, first
    values = values_of(conditions, pickup_at)
    return np.hstack([rows, values]), np.hstack([first, values])
