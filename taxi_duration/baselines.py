"""The dumb lookups that every model must beat: means and medians of past trips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from taxi_duration.linear import N_ZONES, pair_code
from taxi_duration.rides import Rides

N_PAIRS = N_ZONES**2
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
        minutes = self.minutes[cell_code(self.cell, rides)]
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
    hour = rides.pickup_at.astype("datetime64[h]").astype("int64") % HOURS
    return pair * HOURS + hour


def fit_baselines(rides: Rides, duration: np.ndarray) -> dict[str, Lookup]:
    """Return the baselines by name, each learned from the same trips.

    Args:
        rides: shape (n,).
        duration: minutes, shape (n,).
    """
    overall = Lookup("all", np.array([duration.mean()], dtype="float32"), None)
    pair = Lookup("pair", _cell_means(cell_code("pair", rides), duration, N_PAIRS), overall)
    medians = _cell_medians(cell_code("pair_hour", rides), duration, N_PAIRS * HOURS)
    return {
        "mean": overall,
        "od_pair_mean": pair,
        "od_pair_hour_median": Lookup("pair_hour", medians, pair),
    }


def _cell_means(codes: np.ndarray, duration: np.ndarray, size: int) -> np.ndarray:
    count = np.bincount(codes, minlength=size)
    total = np.bincount(codes, duration, minlength=size)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype("float32")


def _cell_medians(codes: np.ndarray, duration: np.ndarray, size: int) -> np.ndarray:
    order = np.lexsort((duration, codes))
    cells, first, count = np.unique(codes[order], return_index=True, return_counts=True)
    values = duration[order]
    medians = np.full(size, np.nan, dtype="float32")
    medians[cells] = (values[first + (count - 1) // 2] + values[first + count // 2]) / 2
    return medians
