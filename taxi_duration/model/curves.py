"""Rising lines through knots: the usual minutes of a distance, of a route's length."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

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

    @property
    def is_known(self) -> bool:
        """False where no point's x was known: the line is then one value everywhere."""
        return len(self.slope) > 1 or bool(self.slope.any())

    def at(self, x: np.ndarray) -> np.ndarray:
        """Return float64 values at x, any shape."""
        inside = np.clip(np.where(np.isnan(x), self.x[0], x), self.x[0], self.x[-1])
        i = np.clip(np.searchsorted(self.x, inside, side="right") - 1, 0, len(self.slope) - 1)
        value = _on_line(inside, self.x[i], self.y[i], self.slope[i])
        return np.where(np.isnan(x), self.unknown, value)


class RideCurve:
    """The same for one number, from lists: faster than arrays of length one."""

    def __init__(self, curve: Curve) -> None:
        self._x, self._y = curve.x.tolist(), curve.y.tolist()
        self._slope, self._unknown = curve.slope.tolist(), curve.unknown

    def at(self, x: float) -> float:
        """Return what `Curve.at` gives."""
        if x != x:
            return self._unknown
        knots = self._x
        inside = min(max(x, knots[0]), knots[-1])
        i = min(bisect_right(knots, inside) - 1, len(self._slope) - 1)
        height: float = _on_line(inside, knots[i], self._y[i], self._slope[i])
        return height


def _on_line(x: Any, knot: Any, height: Any, slope: Any) -> Any:
    return height + (x - knot) * slope
