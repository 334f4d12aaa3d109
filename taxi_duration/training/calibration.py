"""Calibrates intervals on trips that the answering model has not seen."""

from __future__ import annotations

import numpy as np

from taxi_duration.data.window import Window
from taxi_duration.domain.limits import TRIP_MINUTES
from taxi_duration.logs import steps_of, tell_step
from taxi_duration.model.duration_model import interval_groups
from taxi_duration.model.intervals import KIND_NAMES, SUPPORTS, Intervals
from taxi_duration.training.kinds import find_kind
from taxi_duration.training.window_sums import window_sums

# Trips that quantiles rest on, evenly spread: more leave the first three digits as they are.
CALIBRATION_ROWS = 1_000_000
# A hair wider than the answer says, since a month is never quite like the one before it.
CALIBRATED_LEVELS = (0.095, 0.5, 0.905)
# A rehearsal, which learns from two thirds of few trips, errs more on airport rides than the
# model itself: at the usual levels 80 to 87 % were held in four windows.
AIRPORT_LEVELS = (0.11, 0.5, 0.89)
BIN_ROWS = 250  # rows behind one knot: its 10 % quantile then rests on 25 trips
MAX_BINS = 10


def calibrate_intervals(kind: str, window: Window, seed: int) -> tuple[Intervals, Intervals]:
    """Return intervals with and without distance, from rehearsals that left out the block."""
    sums, fitted_as = window_sums(window), find_kind(kind)
    rides, duration = window.evenly(CALIBRATION_ROWS)
    block, _ = sums.groups.block_and_fold(rides, sums.groups.places(rides.pickup_at))
    minutes = np.full((2, len(rides)), np.nan)
    support = np.empty(len(rides))
    for k in sums.blocks:
        held, seen = (block == k) | (k is None), sums.pair_trips(left_out=k)
        with steps_of(f"rehearsal {(k or 0) + 1} of {len(sums.blocks)}, for the intervals"):
            tell_step(f"fit on {seen.sum():,} trips")
            model = fitted_as.fit(window, seed, rehearsal=True, left_out=k)
        asked = rides.take(held)
        minutes[0, held] = model.predict_minutes(asked)
        minutes[1, held] = model.predict_minutes(asked.without_distance())
        trips = seen[asked.PULocationID, asked.DOLocationID]
        support[held] = trips * (len(window) / seen.sum())  # as many as the whole window has
    group = interval_groups(rides, support)
    aided, unaided = np.clip(minutes, *TRIP_MINUTES)
    used = model.uses_distance(rides)
    return (
        fit_intervals(aided[used], duration[used], group[used]),
        fit_intervals(unaided, duration, group),
    )


def calibration_rows(window: Window) -> int:
    """Return how many trips of a window the quantiles rest on."""
    return -(-len(window) // max(len(window) // CALIBRATION_ROWS, 1))


def fit_intervals(predicted: np.ndarray, actual: np.ndarray, group: np.ndarray) -> Intervals:
    """Learn the quantiles from trips that the predicting model has not seen.

    A group with few trips borrows: first all kinds with the same support, then all trips.

    Args:
        predicted, actual: minutes, shape (n,); group: from `ride_groups`, shape (n,).
    """
    predicted, actual = predicted.astype("float64"), actual.astype("float64")
    knots, ratios = [], []
    for k in range(len(KIND_NAMES) * SUPPORTS):
        kind = KIND_NAMES[k // SUPPORTS]
        levels = AIRPORT_LEVELS if kind == "airport" else CALIBRATED_LEVELS
        rows = _enough(group == k, group % SUPPORTS == k % SUPPORTS)
        at, quantiles = _quantile_curve(predicted[rows], actual[rows] / predicted[rows], levels)
        if k % SUPPORTS:
            knots.append(at)
            ratios.append(quantiles)
            continue
        # An unseen pair is never surer than a rare one, whatever little we saw of them.
        rare = _enough(group == k + 1, group % SUPPORTS == 1)
        other = _quantile_curve(predicted[rare], actual[rare] / predicted[rare], levels)
        low, high = (np.interp(at, other[0], other[1][:, c]) for c in (0, 2))
        quantiles[:, 0] = np.minimum(quantiles[:, 0], low)
        quantiles[:, 2] = np.maximum(quantiles[:, 2], high)
        knots.append(at)
        ratios.append(quantiles)
    return Intervals(tuple(knots), tuple(ratios))


def _enough(*choices: np.ndarray) -> np.ndarray:
    """Return the first choice of rows with enough of them, else all rows."""
    for rows in choices:
        if np.count_nonzero(rows) >= BIN_ROWS:
            return rows
    return np.ones_like(choices[0])


def _quantile_curve(
    predicted: np.ndarray, ratio: np.ndarray, levels: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return knots (m,) and conformal quantiles of the ratio there (m, 3), m >= 2."""
    if not len(predicted):
        return np.array(TRIP_MINUTES), np.tile([0.5, 1.0, 1.5], (2, 1))
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, int(np.clip(len(order) // BIN_ROWS, 1, MAX_BINS)))
    knots = np.array([predicted[part].mean() for part in parts])
    ratios = np.array([_conformal(ratio[part], levels) for part in parts])
    if len(parts) == 1:
        return np.array([knots[0], knots[0] + 1.0]), np.repeat(ratios, 2, axis=0)
    knots += np.arange(len(knots)) * 1e-9  # equal answers must not make a gap of zero
    return knots, ratios


def _conformal(ratio: np.ndarray, levels: tuple[float, float, float]) -> list[float]:
    """Return P10, P50, P90 with the finite-sample correction outwards."""
    n = len(ratio)
    low, middle, high = levels
    wide = min(np.ceil((n + 1) * high) / n, 1.0)
    narrow = max(np.floor((n + 1) * low) / n, 0.0)
    return [float(q) for q in np.quantile(ratio, [narrow, middle, wide])]
