"""Intervals: how far past answers were off, by kind of ride, by length, and by hour and place.

Conformal prediction, Mondrian style: trips that the calibrating model has not seen (see
`training/calibration.py`) give the quantiles of actual over predicted minutes in each group;
inside a group the quantiles follow the predicted minutes. Their distance from P50 is scaled by
factors of the ride's hour, zones and asked distance (normalised conformal). No extra booster.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

import numpy as np

from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.limits import LONGEST_MINUTES, SHORTEST_MINUTES
from taxi_duration.domain.pickup_calendar import CELLS, read_clock, read_clocks
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.zones import zone_groups

LEVELS = (0.1, 0.5, 0.9)
KIND_NAMES = ("airport", "manhattan", "outer", "mixed")
RARE_TRIPS = 10  # a pair with fewer past trips is rare
SUPPORTS = 3  # unseen, rare, usual
# Of what a ride's factors depend, and of how many values each is: the cell of the week, the zones,
# and whether a distance was asked with that cannot be used (the meter's of such rides was off).
SCALES = {"cell": CELLS, "pickup": ZONES, "dropoff": ZONES, "unusable": 2}
LEAST_SCALE, MOST_SCALE = 0.1, 10.0  # of one factor; learned ones lie between 0.5 and 2


def plain_scales() -> tuple[np.ndarray, ...]:
    """Return factors that scale nothing."""
    return tuple(np.ones(count) for count in SCALES.values())


@dataclass(frozen=True)
class Intervals:
    """Quantiles of actual over predicted minutes.

    Args:
        knots: predicted minutes, one array of shape (m,) for each of the 12 groups.
        ratios: for each group, P10, P50 and P90 of the ratio at the knots, shape (m, 3).
        scales: factors of the distance from P50, one array for each of SCALES.
        limit: longest trip the course rule keeps, minutes: no quantile lies above it.
    """

    knots: tuple[np.ndarray, ...]
    ratios: tuple[np.ndarray, ...]
    scales: tuple[np.ndarray, ...] = field(default_factory=plain_scales)
    limit: float = LONGEST_MINUTES

    def quantiles(
        self, predicted: np.ndarray, group: np.ndarray, scale: np.ndarray | float = 1.0
    ) -> np.ndarray:
        """Return P10, P50 and P90 in minutes, float64 of shape (n, 3), within the course rule.

        Args:
            predicted: minutes, shape (n,).
            group: from `ride_groups`, shape (n,).
            scale: from `scale`, shape (n,).
        """
        out = self.unscaled(predicted, group)
        middle = out[:, 1:2]
        out = middle + (out - middle) * np.reshape(scale, (-1, 1))
        within: np.ndarray = np.clip(out, SHORTEST_MINUTES, self.limit)
        return within

    def scale(self, places: Sequence[np.ndarray]) -> np.ndarray:
        """Return what scales the distance from P50 of n rides, shape (n,).

        Args:
            places: from `scale_places`.
        """
        return product_of(self.scales, places)

    def unscaled(self, predicted: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Return what the curves alone say, arguments as `quantiles`; without limits."""
        predicted = np.asarray(predicted, dtype="float64")
        out = np.empty((len(predicted), len(LEVELS)))
        for k in np.flatnonzero(np.bincount(group)):  # np.unique would import numpy.ma
            rows, knots, ratios = group == k, self.knots[k], self.ratios[k]
            inside = np.clip(predicted[rows], knots[0], knots[-1])
            i = np.clip(np.searchsorted(knots, inside, side="right") - 1, 0, len(knots) - 2)
            share = ((inside - knots[i]) / (knots[i + 1] - knots[i]))[:, None]
            ratio = ratios[i] + share * (ratios[i + 1] - ratios[i])
            out[rows] = predicted[rows, None] * ratio
        return out


class RideIntervals:
    """The intervals of one ride, from the same curves as lists: faster than arrays for one."""

    def __init__(self, intervals: Intervals) -> None:
        curves = zip(intervals.knots, intervals.ratios, strict=True)
        self._curves = [(knots.tolist(), ratios.tolist()) for knots, ratios in curves]
        self._cell, self._pickup, self._dropoff, self._unusable = (
            factors.tolist() for factors in intervals.scales
        )
        self._limit = intervals.limit

    def scale(self, pickup: int, dropoff: int, pickup_at: datetime, unusable: bool) -> float:
        """Return what `Intervals.scale` gives for the ride.

        Args:
            pickup, dropoff: zones, 1-265.
            pickup_at: New York local time.
            unusable: a distance was asked with, and does not enter the answer.
        """
        cell = read_clock(pickup_at)[1]
        zones = self._pickup[pickup] * self._dropoff[dropoff]
        scale: float = self._cell[cell] * zones * self._unusable[unusable]
        return scale

    def quantiles(
        self, predicted: float, group: int, scale: float = 1.0
    ) -> tuple[float, float, float]:
        """Return P10, P50 and P90 in minutes, what `Intervals.quantiles` gives for the ride."""
        knots, ratios = self._curves[group]
        inside = min(max(predicted, knots[0]), knots[-1])
        i = min(bisect_right(knots, inside) - 1, len(knots) - 2)
        share = (inside - knots[i]) / (knots[i + 1] - knots[i])
        below, above = ratios[i], ratios[i + 1]
        middle = predicted * (below[1] + share * (above[1] - below[1]))
        low = middle + (predicted * (below[0] + share * (above[0] - below[0])) - middle) * scale
        high = middle + (predicted * (below[2] + share * (above[2] - below[2])) - middle) * scale
        limit = self._limit
        return (
            min(max(low, SHORTEST_MINUTES), limit),
            min(max(middle, SHORTEST_MINUTES), limit),
            min(max(high, SHORTEST_MINUTES), limit),
        )


@cache
def kind_table() -> np.ndarray:
    """Return the kind of every pair as int8 of shape (266, 266), positions in KIND_NAMES."""
    airport, manhattan, outer = zone_groups()
    kinds = np.full((ZONES, ZONES), KIND_NAMES.index("mixed"), dtype="int8")
    kinds[manhattan[:, None] & manhattan[None, :]] = KIND_NAMES.index("manhattan")
    kinds[outer[:, None] & outer[None, :]] = KIND_NAMES.index("outer")
    kinds[airport[:, None] | airport[None, :]] = KIND_NAMES.index("airport")
    return kinds


def ride_groups(kind: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Return the group (0-11) of rides from their kind and the past trips of their pair."""
    usual = np.where(support >= RARE_TRIPS, 2, np.where(support > 0, 1, 0))
    return np.asarray(kind, dtype="int64") * SUPPORTS + usual


def product_of(scales: Sequence[np.ndarray], places: Sequence[np.ndarray]) -> np.ndarray:
    """Return the product of the factors at n rides' places, shape (n,)."""
    product: np.ndarray = np.prod([f[p] for f, p in zip(scales, places, strict=True)], axis=0)
    return product


def scale_places(rides: Rides, used: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the place of n rides in each of SCALES, arrays of shape (n,).

    Args:
        used: whether the asked distance enters the answer, bool of shape (n,).
    """
    cell = read_clocks(rides.pickup_at)[1]
    unusable = (~used & ~np.isnan(rides.trip_distance)).astype("int64")
    return cell, rides.PULocationID, rides.DOLocationID, unusable
