"""The dumb lookups that every model must beat: means and medians of past trips."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import numpy as np

from taxi_duration.data.engine import map_parts
from taxi_duration.data.window import Part, Window
from taxi_duration.model.lookups import HOURS, N_PAIRS, Lookup, cell_code
from taxi_duration.training.part_sums import PAIR_SUMS
from taxi_duration.training.window_sums import window_sums

MEDIAN_ROWS = 20_000_000  # sorted at once to find medians: 160 MB


def fit_baselines(window: Window) -> dict[str, Lookup]:
    """Return the baselines by name, each learned from the same trips.

    Args:
        window: past trips, at least one.
    """
    sums = window_sums(window)
    trips, minutes = (sums.pairs()[:, PAIR_SUMS.index(name)] for name in ("trips", "minutes"))
    overall = Lookup("all", np.array([minutes.sum() / trips.sum()], dtype="float32"), None)
    means = np.full(N_PAIRS, np.nan, dtype="float32")
    means[sums.seen] = minutes / trips
    pair = Lookup("pair", means, overall)
    medians = np.full(N_PAIRS * HOURS, np.nan, dtype="float32")
    for first, end in _ranges(sums.seen, trips):
        cells, values = _cell_medians(window, first * HOURS, end * HOURS)
        medians[cells] = values
    return {
        "mean": overall,
        "od_pair_mean": pair,
        "od_pair_hour_median": Lookup("pair_hour", medians, pair),
    }


def _ranges(seen: np.ndarray, trips: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield ranges of pairs, first and end, with about MEDIAN_ROWS trips each, or one pair."""
    which = (trips.cumsum() - trips) // MEDIAN_ROWS
    firsts = seen[np.flatnonzero(np.append(True, which[1:] != which[:-1]))]
    yield from pairwise([*firsts.tolist(), N_PAIRS])


def _cell_medians(window: Window, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells of a range that have trips, and the median of each, float32.

    The window is read once more for each range.
    """
    task = partial(_packed, first=first, end=end)
    packed = np.sort(np.concatenate(list(map_parts(task, window.parts))))
    cell, values = packed >> 32, (packed & 0xFFFFFFFF).astype("uint32").view("float32")
    cells, start, count = np.unique(cell, return_index=True, return_counts=True)
    medians = (values[start + (count - 1) // 2] + values[start + count // 2]) / 2
    return cells, medians


def _packed(part: Part, first: int, end: int) -> np.ndarray:
    """Return cell and minutes of a part's trips in a range of cells as one number, uint64.

    The bits of floats that are not negative are in the order of the floats.
    """
    packed = [np.empty(0, "uint64")]
    for rides, minutes in part.batches():
        cell = cell_code("pair_hour", rides)
        some = (cell >= first) & (cell < end)
        bits = minutes[some].astype("float32").view("uint32")
        packed.append((cell[some].astype("uint64") << np.uint64(32)) | bits)
    return np.concatenate(packed)
