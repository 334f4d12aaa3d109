"""The dumb lookups that every model must beat: means and medians of past trips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.pickup_calendar import hours_of_day
from taxi_duration.domain.rides import Rides
from taxi_duration.model.linear import pair_code

N_PAIRS = ZONES**2
HOURS = 24


@dataclass(frozen=True)
class Lookup:
    """A table of minutes by cell, with a coarser lookup behind its empty cells.

    `cell` is `all`, `pair` or `pair_hour`; `minutes` is float32, NaN where no trip was seen.
    """

    cell: str
    minutes: np.ndarray
    fallback: Lookup | None

    def predict_minutes(self, rides: Rides) -> np.ndarray:
        """Return float32 minutes, shape (n,)."""
        minutes: np.ndarray = self.minutes[cell_code(self.cell, rides)]
        missing = np.isnan(minutes)
        if self.fallback is not None and missing.any():
            minutes[missing] = self.fallback.predict_minutes(rides.take(missing))
        return minutes


def cell_code(cell: str, rides: Rides) -> np.ndarray:
    """Return each ride's position in a lookup's table, int, shape (n,)."""
    if cell == "all":
        return np.zeros(len(rides), dtype="int32")
    pair = pair_code(rides.PULocationID, rides.DOLocationID)
    if cell == "pair":
        return pair
    hour = hours_of_day(rides.pickup_at)
    cell_of: np.ndarray = pair * HOURS + hour
    return cell_of
