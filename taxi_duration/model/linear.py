"""The course's linear models: pickup_dropoff pair one-hot plus distance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.limits import TRIP_MINUTES, can_be_miles
from taxi_duration.domain.rides import Rides


def pair_code(PULocationID: np.ndarray, DOLocationID: np.ndarray) -> np.ndarray:
    """Return int32 codes, one per ordered pair of zones, shape as the inputs."""
    code: np.ndarray = PULocationID.astype("int32") * ZONES + DOLocationID
    return code


@dataclass(frozen=True)
class PairVectorizer:
    """One column per `PU_DO` pair seen in training, and the distance in the last one.

    The same columns in the same order as scikit-learn's DictVectorizer gives for
    `{"PU_DO": "10_50", "trip_distance": 4.5}`, without making a dict per row: pairs sorted
    as text, unseen pairs all zero. `column_of` has shape (266 * 266,), -1 where unseen.
    `mean_miles` stands in for a distance that was not given: of the pair, or of all trips.
    """

    column_of: np.ndarray
    n_pairs: int
    mean_miles: np.ndarray

    @classmethod
    def fit(cls, rides: Rides) -> PairVectorizer:
        """Learn the pairs and their mean distance from rides."""
        codes = pair_code(rides.PULocationID, rides.DOLocationID)
        seen, place = np.unique(codes, return_inverse=True)
        miles = rides.trip_distance.astype("float64")
        believable = can_be_miles(miles)
        place, miles = place[believable], miles[believable]
        known = np.bincount(place, minlength=len(seen))
        return cls.of_pairs(seen, known, np.bincount(place, miles, len(seen)))

    @classmethod
    def of_pairs(
        cls, seen: np.ndarray, known: np.ndarray, known_miles: np.ndarray
    ) -> PairVectorizer:
        """Return the same from sums over rides.

        Args:
            seen: codes of pairs, shape (p,).
            known, known_miles: rides with a believable distance, and the sum of it, (p,) each.
        """
        names = [f"{code // ZONES}_{code % ZONES}" for code in seen]
        order = np.argsort(np.array(names, dtype=object))
        column_of = np.full(ZONES**2, -1, dtype="int32")
        column_of[seen[order]] = np.arange(len(seen))
        overall = known_miles.sum() / known.sum() if known.sum() else 0.0
        mean = np.where(known > 0, known_miles / np.maximum(known, 1), overall)
        return cls(column_of, len(seen), np.append(mean[order], overall))

    @property
    def feature_names(self) -> list[str]:
        """Column names as DictVectorizer writes them, length n_pairs + 1."""
        codes = np.flatnonzero(self.column_of >= 0)
        codes = codes[np.argsort(self.column_of[codes])]
        return [f"PU_DO={c // ZONES}_{c % ZONES}" for c in codes] + ["trip_distance"]

    def columns(self, rides: Rides) -> tuple[np.ndarray, np.ndarray]:
        """Return the pair's column (int32, -1 if unseen) and the miles (float64), each (n,)."""
        column = self.column_of[pair_code(rides.PULocationID, rides.DOLocationID)]
        miles = rides.trip_distance.astype("float64")
        unknown = np.isnan(miles)
        if unknown.any():  # the last entry of mean_miles is the mean of all, reached by -1
            miles = np.where(unknown, self.mean_miles[column], miles)
        return column, miles


@dataclass(frozen=True)
class LinearModel:
    """A linear model of pair and distance; coefficients in minutes and minutes per mile."""

    vectorizer: PairVectorizer
    pair_minutes: np.ndarray  # (n_pairs + 1,), the last is 0 for unseen pairs
    minutes_per_mile: float
    intercept: float

    def predict_minutes(self, rides: Rides) -> np.ndarray:
        """Return float32 minutes, shape (n,)."""
        column, miles = self.vectorizer.columns(rides)
        minutes: np.ndarray = self.pair_minutes[column] + self.minutes_per_mile * miles
        return (minutes + self.intercept).astype("float32")

    @staticmethod
    def uses_distance(rides: Rides) -> np.ndarray:
        """True where the ride's own distance entered the answer, shape (n,)."""
        known: np.ndarray = ~np.isnan(rides.trip_distance)
        return known


class LimitedLinearModel(LinearModel):
    """The same as riders get it: within the limits of a trip, as trees answer.

    Scores are those of the plain one, which alone gives the public course's figure.
    """

    def predict_minutes(self, rides: Rides) -> np.ndarray:
        """Return float32 minutes, shape (n,)."""
        minutes: np.ndarray = np.clip(super().predict_minutes(rides), *TRIP_MINUTES)
        return minutes


class RidePairs:
    """The answer of a linear model to one ride, equal to what `predict_minutes` gives."""

    def __init__(self, model: LinearModel) -> None:
        self._column_of = model.vectorizer.column_of.data
        self._mean_miles = model.vectorizer.mean_miles.data
        self._pair_minutes = model.pair_minutes.data
        self._minutes_per_mile, self._intercept = model.minutes_per_mile, model.intercept
        is_limited = isinstance(model, LimitedLinearModel)
        self._low, self._high = TRIP_MINUTES if is_limited else (-math.inf, math.inf)

    def predict(self, pickup: int, dropoff: int, miles: float | None) -> float:
        """Return minutes.

        Args:
            pickup, dropoff: zones, 1-265.
            miles: None for the mean of the pair's past trips.
        """
        column = self._column_of[pickup * ZONES + dropoff]
        if miles is None:
            miles = self._mean_miles[column]
        minutes = self._pair_minutes[column] + self._minutes_per_mile * miles + self._intercept
        return min(max(float(np.float32(minutes)), self._low), self._high)
