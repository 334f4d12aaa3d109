"""The dumb lookups that every model must beat: means and medians of past trips."""

from __future__ import annotations

import numpy as np

from taxi_duration.data.window import Window
from taxi_duration.model.lookups import HOURS, N_PAIRS, Lookup, cell_code


def fit_baselines(window: Window) -> dict[str, Lookup]:
    """Return the baselines by name, each learned from the same trips.

    Args:
        window: past trips, at least one.
    """
    rides, duration = window.whole()
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
