"""Calibrates intervals on trips that the answering model has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from taxi_duration.data.engine import call_all
from taxi_duration.data.window import Window
from taxi_duration.domain.limits import TRIP_MINUTES
from taxi_duration.domain.rides import Rides
from taxi_duration.logs import log_step, prefix_steps
from taxi_duration.model.duration_model import interval_groups
from taxi_duration.model.intervals import (
    KIND_NAMES,
    LEAST_SCALE,
    MOST_SCALE,
    SUPPORTS,
    Intervals,
    plain_scales,
    product_of,
    scale_places,
)
from taxi_duration.training.kinds import find_kind
from taxi_duration.training.window_sums import window_sums

# Trips that quantiles rest on, evenly spread: more leave the first three digits as they are.
CALIBRATION_ROWS = 1_000_000
# A hair wider than the answer says, since a month is never quite like the one before it.
CALIBRATED_LEVELS = (0.095, 0.5, 0.905)
# Rehearsals, which learn from two thirds of few trips, err more on airport rides than the model
# itself, errors of a month before do not: at 0.11 one-month rehearsals held 78.9 % of them in the
# month after (20 months, 74 to 82 %), errors of the month before 77 %, and at 0.095 80.6 %.
AIRPORT_LEVELS = (0.1, 0.5, 0.9)
SCALE_TRIPS = 200  # a place with as many trips goes half the way from 1 to what they say
SCALE_PASSES = 2  # hours and zones hang together: once more with the others' factors known
FARTHEST = 3.0  # from P50, in widths: a few trips that took for ever say no more than this
LEAST_ROOM = 1e-6  # curves may meet
BIN_ROWS = 250  # rows behind one knot: its 10 % quantile then rests on 25 trips
MAX_BINS = 10


def calibrate_intervals(kind: str, window: Window, seed: int) -> tuple[Intervals, Intervals]:
    """Return intervals with and without distance, from rehearsals that left out the block."""
    sums, fitted_as = window_sums(window), find_kind(kind)
    rides, duration = window.evenly(CALIBRATION_ROWS)
    block, _ = sums.groups.block_and_fold(rides, sums.groups.places(rides.pickup_at))
    minutes = np.full((2, len(rides)), np.nan)
    support = np.empty(len(rides))

    def rehearse(k: int | None) -> np.ndarray:
        held, seen = (block == k) | (k is None), sums.pair_trips(left_out=k)
        with prefix_steps(f"rehearsal {(k or 0) + 1} of {len(sums.blocks)}, for the intervals"):
            log_step(f"fit on {seen.sum():,} trips")
            model = fitted_as.fit(window, seed, rehearsal=True, left_out=k)
        asked = rides.take(held)
        minutes[0, held] = model.predict_minutes(asked)
        minutes[1, held] = model.predict_minutes(asked.without_distance())
        trips = seen[asked.PULocationID, asked.DOLocationID]
        support[held] = trips * (len(window) / seen.sum())  # as many as the whole window has
        return model.uses_distance(rides)

    used = call_all([partial(rehearse, k) for k in sums.blocks])[-1]
    return both_intervals(rides, duration, minutes, support, used)


def both_intervals(
    rides: Rides, actual: np.ndarray, minutes: np.ndarray, support: np.ndarray, used: np.ndarray
) -> tuple[Intervals, Intervals]:
    """Return intervals with and without distance from answers to unseen rides.

    Args:
        rides: n rides as they were asked.
        actual: minutes, shape (n,).
        minutes: answers with and without their distance, shape (2, n).
        support: past trips of their pair, shape (n,).
        used: whose distance was used, bool of shape (n,).
    """
    group, places = interval_groups(rides, support), scale_places(rides, used)
    aided, unaided = np.clip(minutes, *TRIP_MINUTES)
    without = fit_intervals(unaided, actual, group, places)
    if not used.any():  # as in FHV months: a distance that is asked with says nothing
        return without, without
    return (
        fit_intervals(aided[used], actual[used], group[used], [place[used] for place in places]),
        without,
    )


def calibration_rows(window: Window) -> int:
    """Return how many trips of a window the quantiles rest on."""
    return -(-len(window) // max(len(window) // CALIBRATION_ROWS, 1))


def fit_intervals(
    predicted: np.ndarray,
    actual: np.ndarray,
    group: np.ndarray,
    places: Sequence[np.ndarray] | None = None,
) -> Intervals:
    """Learn the quantiles from trips that the predicting model has not seen.

    First the curves, then the factors of what they say, then the curves anew, of errors that
    the factors have made alike.

    Args:
        predicted, actual: minutes, shape (n,); group: from `ride_groups`, shape (n,).
        places: from `scale_places`; None: no factors.
    """
    predicted, actual = predicted.astype("float64"), actual.astype("float64")
    intervals = Intervals(*_fit_curves(predicted, actual, group))
    if places is None or not len(predicted):
        return intervals
    quantiles = intervals.unscaled(predicted, group)
    scaled = replace(intervals, scales=_fit_scales(quantiles, actual, places))
    middle = quantiles[:, 1]
    alike = middle + (actual - middle) / scaled.scale(places)
    knots, ratios = _fit_curves(predicted, alike, group)
    return replace(scaled, knots=knots, ratios=ratios)


def _fit_scales(
    quantiles: np.ndarray, actual: np.ndarray, places: Sequence[np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Return the factors of SCALES: how far, against the curves, truths lie from P50."""
    low, middle, high = quantiles.T
    room = np.maximum(np.where(actual < middle, middle - low, high - middle), LEAST_ROOM)
    off = np.abs(actual - middle) / room
    scales = plain_scales()
    for _ in range(SCALE_PASSES):
        for factors, place in zip(scales, places, strict=True):
            left = np.minimum(off / product_of(scales, places), FARTHEST)
            trips = np.bincount(place, minlength=len(factors))
            sums = np.bincount(place, left, minlength=len(factors))
            usual = max(float(left.mean()), LEAST_ROOM)
            factors *= (sums + SCALE_TRIPS * usual) / ((trips + SCALE_TRIPS) * usual)
    return tuple(np.clip(factors, LEAST_SCALE, MOST_SCALE) for factors in scales)


def _fit_curves(
    predicted: np.ndarray, actual: np.ndarray, group: np.ndarray
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Return knots and ratios of each group.

    A group with few trips borrows: first all kinds with the same support, then all trips.
    """
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
    return tuple(knots), tuple(ratios)


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
