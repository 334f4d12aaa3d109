"""Intervals: how far past answers were off, by kind of ride and by length.

Conformal prediction, Mondrian style: trips that the calibrating model has not seen (see
`training/calibration.py`) tell the quantiles of actual over predicted minutes in each group;
inside a group the quantiles follow the predicted minutes. No extra booster.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cache

import numpy as np

from taxi_duration.domain.limits import LONGEST_MINUTES
from taxi_duration.domain.zones import AIRPORT_ZONES, OUTER_BOROUGHS, zone_table

LEVELS = (0.1, 0.5, 0.9)
KIND_NAMES = ("airport", "manhattan", "outer", "mixed")
RARE_TRIPS = 10  # a pair with fewer past trips is rare
SUPPORTS = 3  # unseen, rare, usual


@dataclass(frozen=True)
class Intervals:
    """Quantiles of actual over predicted minutes.

    Args:
        knots: predicted minutes, one array of shape (m,) for each of the 12 groups.
        ratios: for each group, P10, P50 and P90 of the ratio at the knots, shape (m, 3).
        limit: longest trip the course rule keeps, minutes: no quantile lies above it.
    """

    knots: tuple[np.ndarray, ...]
    ratios: tuple[np.ndarray, ...]
    limit: float = LONGEST_MINUTES

    def quantiles(self, predicted: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Return P10, P50 and P90 in minutes, float64 of shape (n, 3).

        Args:
            predicted: minutes, shape (n,).
            group: from `ride_groups`, shape (n,).
        """
        predicted = np.asarray(predicted, dtype="float64")
        out = np.empty((len(predicted), len(LEVELS)))
        for k in np.flatnonzero(np.bincount(group)):  # np.unique would import numpy.ma
            rows, knots, ratios = group == k, self.knots[k], self.ratios[k]
            inside = np.clip(predicted[rows], knots[0], knots[-1])
            i = np.clip(np.searchsorted(knots, inside, side="right") - 1, 0, len(knots) - 2)
            share = ((inside - knots[i]) / (knots[i + 1] - knots[i]))[:, None]
            ratio = ratios[i] + share * (ratios[i + 1] - ratios[i])
            out[rows] = predicted[rows, None] * ratio
        return np.minimum(out, self.limit)


class RideIntervals:
    """The intervals of one ride, from the same curves as lists: faster than arrays for one."""

    def __init__(self, intervals: Intervals) -> None:
        curves = zip(intervals.knots, intervals.ratios, strict=True)
        self._curves = [(knots.tolist(), ratios.tolist()) for knots, ratios in curves]
        self._limit = intervals.limit

    def quantiles(self, predicted: float, group: int) -> tuple[float, float, float]:
        """Return P10, P50 and P90 in minutes, what `Intervals.quantiles` gives for the ride."""
        (knots, ratios), limit = self._curves[group], self._limit
        inside = min(max(predicted, knots[0]), knots[-1])
        i = min(bisect_right(knots, inside) - 1, len(knots) - 2)
        share = (inside - knots[i]) / (knots[i + 1] - knots[i])
        low, high = ratios[i], ratios[i + 1]
        return (
            min(predicted * (low[0] + share * (high[0] - low[0])), limit),
            min(predicted * (low[1] + share * (high[1] - low[1])), limit),
            min(predicted * (low[2] + share * (high[2] - low[2])), limit),
        )


@cache
def kind_table() -> np.ndarray:
    """Return the kind of every pair as int8 of shape (266, 266), positions in KIND_NAMES."""
    borough = zone_table().borough
    airport = np.isin(np.arange(len(borough)), AIRPORT_ZONES)
    manhattan, outer = borough == "Manhattan", np.isin(borough, OUTER_BOROUGHS)
    kinds = np.full((len(borough), len(borough)), KIND_NAMES.index("mixed"), dtype="int8")
    kinds[manhattan[:, None] & manhattan[None, :]] = KIND_NAMES.index("manhattan")
    kinds[outer[:, None] & outer[None, :]] = KIND_NAMES.index("outer")
    kinds[airport[:, None] | airport[None, :]] = KIND_NAMES.index("airport")
    return kinds


def ride_groups(kind: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Return the group (0-11) of rides from their kind and the past trips of their pair."""
    usual = np.where(support >= RARE_TRIPS, 2, np.where(support > 0, 1, 0))
    return np.asarray(kind, dtype="int64") * SUPPORTS + usual
