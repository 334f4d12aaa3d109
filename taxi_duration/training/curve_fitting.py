"""Fits a rising line through trips that are summed up by what it runs along."""

from __future__ import annotations

import numpy as np

from taxi_duration.model.curves import Curve


def fit_curve(x: np.ndarray, count: np.ndarray, total: np.ndarray, bins: int) -> Curve:
    """Return the mean of y along x through quantile bins, never falling.

    Args:
        x: of points, NaN where not known, shape (m,).
        count, total: trips at each point, and the sum of their y.
    """
    known, trips = ~np.isnan(x) & (count > 0), count.sum()
    lost = count[~known].sum()
    unknown = float(total[~known].sum() / lost if lost else total.sum() / trips if trips else 1.0)
    if not known.any():
        return Curve(np.array([0.0, 1.0]), np.full(2, unknown), np.zeros(1), unknown)
    order = np.argsort(x[known], kind="stable")
    x, count, total = (values[known][order] for values in (x, count, total))
    edges = np.unique(_quantiles(x, count, np.linspace(0, 1, bins + 1)))
    which = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, max(len(edges) - 2, 0))
    trips = np.bincount(which, count)
    filled = trips > 0
    knots = np.bincount(which, x * count)[filled] / trips[filled]
    heights = np.maximum.accumulate(np.bincount(which, total)[filled] / trips[filled])
    if len(knots) == 1:
        knots, heights = np.array([knots[0], knots[0] + 1]), np.repeat(heights, 2)
    return Curve(knots, heights, np.diff(heights) / np.diff(knots), unknown)


def _quantiles(x: np.ndarray, count: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return `np.quantile` of rising values that are there so many times each."""
    after = np.cumsum(count)
    place = levels * (after[-1] - 1)
    low, high = (
        x[np.searchsorted(after, end, side="right")] for end in (np.floor(place), np.ceil(place))
    )
    quantiles: np.ndarray = low + (high - low) * (place - np.floor(place))
    return quantiles
