"""Rising lines through knots: the usual minutes of a distance, of a route's length."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curve:
    """A line through knots, flat beyond them.

    Args:
        x, y, slope: float64, shapes (m,), (m,) and (m - 1,), m >= 2, x rising.
        unknown: value where x is not known.
    """

    x: np.ndarray
    y: np.ndarray
    slope: np.ndarray
    unknown: float

    def at(self, x: np.ndarray) -> np.ndarray:
        """Return float64 values at x, any shape."""
        inside = np.clip(np.where(np.isnan(x), self.x[0], x), self.x[0], self.x[-1])
        i = np.clip(np.searchsorted(self.x, inside, side="right") - 1, 0, len(self.slope) - 1)
        return np.where(np.isnan(x), self.unknown, self.y[i] + (inside - self.x[i]) * self.slope[i])


class RideCurve:
    """The same for one number, from lists: faster than arrays of length one."""

    def __init__(self, curve: Curve) -> None:
        self._x, self._y = curve.x.tolist(), curve.y.tolist()
        self._slope = curve.slope.tolist()

    def at(self, x: float) -> float:
        """Return what `Curve.at` gives for a known x, NaN for NaN."""
        if x != x:
            return x
        knots = self._x
        x = min(max(x, knots[0]), knots[-1])
        i = min(bisect_right(knots, x) - 1, len(self._slope) - 1)
        return self._y[i] + (x - knots[i]) * self._slope[i]


def fit_curve(x: np.ndarray, y: np.ndarray, bins: int = 40) -> Curve:
    """Return the mean of y along x through quantile bins, never falling."""
    known = ~np.isnan(x)
    unknown = float(y[~known].mean()) if (~known).any() else float(y.mean()) if len(y) else 1.0
    if not known.any():
        return Curve(np.array([0.0, 1.0]), np.full(2, unknown), np.zeros(1), unknown)
    x, y = x[known], y[known]
    edges = np.unique(np.quantile(x, np.linspace(0, 1, bins + 1)))
    which = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, max(len(edges) - 2, 0))
    count = np.bincount(which)
    filled = count > 0
    knots = np.bincount(which, x)[filled] / count[filled]
    heights = np.maximum.accumulate(np.bincount(which, y)[filled] / count[filled])
    if len(knots) == 1:
        knots, heights = np.array([knots[0], knots[0] + 1]), np.repeat(heights, 2)
    return Curve(knots, heights, np.diff(heights) / np.diff(knots), unknown)
