"""One ride at a time: the answers of a model in microseconds, from its bundle and numpy alone.

The frame path (`DurationModel.answer`) spends over a hundred microseconds on arrays of length
one. Here the same tables, trees and curves are read directly; both ways answer alike, and a
test compares them on every row of a month.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np

from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.limits import LONGEST_MINUTES, SHORTEST_MINUTES
from taxi_duration.domain.pair_miles import can_be, pair_miles
from taxi_duration.domain.rides import Answer, Rides
from taxi_duration.model.day_level import RideLevel
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.explain import Reason, explain
from taxi_duration.model.extra_features import values_at
from taxi_duration.model.features import RideFeatures, known_miles
from taxi_duration.model.intervals import RideIntervals, kind_table, ride_groups
from taxi_duration.model.linear import LinearModel, RidePairs
from taxi_duration.model.tree_model import TreeModel
from taxi_duration.model.trees import RideTrees


class RidePredictor:
    """One-ride answers of a DurationModel, made at load time from the bundle.

    Holds the model's own arrays, not copies; may be shared by threads.
    """

    def __init__(self, model: DurationModel) -> None:
        point = model.point
        self._model = model
        self._point: _RideTreeModel | _RideLinearModel = (
            _RideTreeModel(point) if isinstance(point, TreeModel) else _RideLinearModel(point)
        )
        self._with_distance = RideIntervals(model.with_distance)
        self._without_distance = RideIntervals(model.without_distance)
        self._support = np.ascontiguousarray(model.pair_trips).reshape(-1).data
        self._group = ride_groups(kind_table(), model.pair_trips).astype("uint8").tobytes()

    def answer(self, pickup: int, dropoff: int, pickup_at: datetime, miles: float | None) -> Answer:
        """Answer one ride.

        Args:
            pickup, dropoff: zones, 1-265, checked by the caller.
            pickup_at: New York local time without offset (see `rides.local_time`).
            miles: asked distance, None when there is none.
        """
        minutes, used = self._point.predict(pickup, dropoff, pickup_at, miles)
        pair = pickup * ZONES + dropoff
        intervals = self._with_distance if used else self._without_distance
        base = min(max(minutes, SHORTEST_MINUTES), LONGEST_MINUTES)
        unusable = not used and miles is not None and miles == miles  # NaN is no distance
        scale = intervals.scale(pickup, dropoff, pickup_at, unusable)
        p10, p50, p90 = intervals.quantiles(base, self._group[pair], scale)
        return Answer(minutes, p10, p50, p90, self._support[pair], used)

    def explain(
        self, pickup: int, dropoff: int, pickup_at: datetime, miles: float | None
    ) -> list[Reason]:
        """Return the reasons for the answer to the same question, the usual trip first.

        Their minutes sum to the answer's duration. Arguments as `answer`.
        """
        ride = Rides(
            np.array([pickup], "int16"),
            np.array([dropoff], "int16"),
            np.array([pickup_at], "datetime64[s]"),
            np.array([miles], "float32"),  # None becomes NaN
        )
        answer = self.answer(pickup, dropoff, pickup_at, miles)
        return explain(self._model, ride, np.array([answer.duration]))[0]


class _RideTreeModel:
    """`TreeModel` for one ride."""

    def __init__(self, model: TreeModel) -> None:
        self._features = RideFeatures(model.tables)
        self._conditions = model.conditions
        # Views of what all models share; an item is a Python float.
        self._shortest, self._longest = (miles.reshape(-1).data for miles in pair_miles())
        self._knows_distance = model.knows_distance
        self._level = RideLevel(model.level)
        self._with_distance = RideTrees(model.with_distance)
        self._without_distance = RideTrees(model.without_distance)

    def predict(
        self, pickup: int, dropoff: int, pickup_at: datetime, miles: float | None
    ) -> tuple[float, bool]:
        """Return minutes, and whether the distance entered them."""
        miles, pair = known_miles(miles), pickup * ZONES + dropoff
        if miles is not None and not (
            self._knows_distance and can_be(miles, self._shortest[pair], self._longest[pair])
        ):
            miles = None
        trees = self._without_distance if miles is None else self._with_distance
        usual = trees.predict(self._row(pickup, dropoff, pickup_at, miles))
        # Both are float32 in a float: their product is exact, and rounded once, as that of arrays.
        minutes = float(np.float32(usual * self._level.of(pickup_at)))
        return min(max(minutes, SHORTEST_MINUTES), LONGEST_MINUTES), miles is not None

    def _row(
        self, pickup: int, dropoff: int, pickup_at: datetime, miles: float | None
    ) -> np.ndarray:
        names = self._conditions
        conditions = values_at(names, pickup_at) if names else ()
        return self._features.row(pickup, dropoff, pickup_at, miles, conditions)


class _RideLinearModel:
    """`LinearModel` for one ride; any distance that is a number is used, as in the course."""

    def __init__(self, model: LinearModel) -> None:
        self._pairs = RidePairs(model)

    def predict(
        self, pickup: int, dropoff: int, pickup_at: datetime, miles: float | None
    ) -> tuple[float, bool]:
        """Return minutes, and whether the distance entered them."""
        miles = _float32(miles)
        return self._pairs.predict(pickup, dropoff, miles), miles is not None


def _float32(miles: float | None) -> float | None:
    """Return a distance as precise as the columns of rides hold it; None for None and NaN."""
    return None if miles is None or miles != miles else float(np.float32(miles))
