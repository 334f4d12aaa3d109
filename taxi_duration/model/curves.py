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
