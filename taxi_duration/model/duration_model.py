"""A model as it is saved and served: point answers, intervals, and what they rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.limits import LAST_ZONE, TRIP_MINUTES
from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.model.features import DISTANCE_FEATURES, FEATURES
from taxi_duration.model.intervals import Intervals, kind_table, ride_groups
from taxi_duration.model.linear import LinearModel
from taxi_duration.model.tree_model import TreeModel

PointModel = LinearModel | TreeModel


@dataclass(frozen=True)
class DurationModel:
    """A fitted model of any kind.

    Args:
        kind: LR, LASSO, RIDGE, RF or XGB.
        point: answers in minutes.
        informed, blind: intervals of answers with and without the ride's own distance.
        pair_trips: training trips of each pair of zones, int32, shape (266, 266).
        parameters: what the fit was given, for the card.
        features: names of the features that trees were fitted on; without distance the first.
    """

    kind: str
    point: PointModel
    informed: Intervals
    blind: Intervals
    pair_trips: np.ndarray
    parameters: dict[str, Any]
    features: tuple[str, ...] = DISTANCE_FEATURES

    def answer(self, rides: Rides) -> Answers:
        """Answer n rides with duration, interval, support and whether the distance was used."""
        minutes = self.point.predict_minutes(rides)
        used = self.point.uses_distance(rides)
        support = self.pair_trips[rides.PULocationID, rides.DOLocationID]
        group = interval_groups(rides, support)
        base = np.clip(minutes, *TRIP_MINUTES)  # a linear model may answer less than nothing
        quantiles = np.empty((len(rides), 3))
        for intervals, rows in ((self.informed, used), (self.blind, ~used)):
            quantiles[rows] = intervals.quantiles(base[rows], group[rows])
        p10, p50, p90 = quantiles.T.astype("float32")
        return Answers(minutes, p10, p50, p90, support, used)


def check_model(model: DurationModel) -> None:
    """Make sure that a loaded model fits this code, before it answers anybody.

    Raises:
        ValueError: names what does not fit.
    """
    if not isinstance(model, DurationModel):
        raise ValueError(f"holds a {type(model).__name__}, not a DurationModel")
    if isinstance(model.point, TreeModel):
        _check_features(model.features)
        more = len(model.point.conditions)
        model.point.informed.check(len(DISTANCE_FEATURES) + more)
        model.point.blind.check(len(FEATURES) + more)
    asked = {"PULocationID": 1, "DOLocationID": LAST_ZONE, "trip_distance": 5.0}
    rides = Rides.from_dicts([asked, {**asked, "trip_distance": None}])
    answers = model.answer(rides)
    if not all(np.isfinite(m).all() for m in (answers.duration, answers.p10, answers.p90)):
        raise ValueError("does not answer with minutes")


def _check_features(names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in DISTANCE_FEATURES]
    unknown = [name for name in DISTANCE_FEATURES if name not in names]
    if missing or unknown or tuple(names) != DISTANCE_FEATURES:
        raise ValueError(
            f"was fitted on other features than this version makes: missing here "
            f"{', '.join(missing) or 'none'}, new here {', '.join(unknown) or 'none'}"
        )


def interval_groups(rides: Rides, support: np.ndarray) -> np.ndarray:
    """Return the group of each ride in which its interval was calibrated, shape (n,)."""
    return ride_groups(kind_table()[rides.PULocationID, rides.DOLocationID], support)


def count_pairs(rides: Rides) -> np.ndarray:
    """Return how many of the rides go from zone to zone, int32, shape (266, 266)."""
    codes = rides.PULocationID.astype("int32") * ZONES + rides.DOLocationID
    return np.bincount(codes, minlength=ZONES**2).reshape(ZONES, ZONES).astype("int32")
