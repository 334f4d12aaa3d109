"""Fits the tables that a ride's features are looked up in, from past trips."""

from __future__ import annotations

import numpy as np

from taxi_duration.domain.geometry import ZONES, Geometry, zone_geometry
from taxi_duration.domain.pickup_calendar import CELLS, read_clock
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.zones import Pair
from taxi_duration.model.atlas import Atlas
from taxi_duration.model.curves import Curve
from taxi_duration.model.features import (
    DISTANCE_FEATURES,
    FeatureTables,
    _zones,
    known_distance,
    transform,
)

FOLDS = 5  # by day: trips of one day share its weather and must not encode each other
PAIR_STRENGTH = 8.0  # trips a prior counts for, in the chain of pair tables
CELL_STRENGTH = 30.0  # the same for zone x hour tables
LINE_STRENGTH = 20.0  # the same for a pair's own line through its past trips


def fit_tables(
    rides: Rides,
    duration: np.ndarray,
    weight: np.ndarray | None = None,
    atlas: Atlas | None = None,
) -> FeatureTables:
    """Learn the tables from past trips.

    Args:
        rides: shape (n,).
        duration: minutes, shape (n,).
        weight: how much each trip counts, about 1, shape (n,); None for all alike.
        atlas: kept beside the tables.
    """
    geometry = zone_geometry()
    pickup, dropoff = _zones(rides)
    cell = read_clock(rides.pickup_at)[3]
    miles = known_distance(rides.trip_distance)
    minutes = duration.astype("float64")
    weight = np.ones(len(minutes)) if weight is None else weight
    pair, known = (pickup, dropoff), ~np.isnan(miles)

    # Pair tables hold ratios to what the straight distance alone would say.
    by_straight = fit_curve(geometry.straight_km[pair], minutes)
    base = by_straight.at(geometry.straight_km)
    wide, near, own = (base * r for r in _pair_ratios(pair, minutes, base[pair], weight, geometry))
    root = _pair_ratios(pair, np.sqrt(minutes), np.sqrt(own[pair]), weight, geometry)[2]
    city, by_pickup, by_dropoff = _hour_ratios(pair, cell, minutes, own[pair], weight, geometry)
    trips = np.bincount(_flat(pair), minlength=ZONES * ZONES).reshape(ZONES, ZONES).astype(float)

    # The same against the asked distance, from the trips whose distance is known.
    pair_d, cell_d = (pickup[known], dropoff[known]), cell[known]
    miles_d, minutes_d, weight_d = miles[known], minutes[known], weight[known]
    miles_base = fit_curve(geometry.straight_km[pair_d], miles_d).at(geometry.straight_km)
    miles_ratios = _pair_ratios(pair_d, miles_d, miles_base[pair_d], weight_d, geometry)
    miles_near, miles_own = miles_base * miles_ratios[1], miles_base * miles_ratios[2]
    by_miles = fit_curve(miles_d, minutes_d, bins=60)
    usual = by_miles.at(miles_d)
    _, pace_near, pace_own = _pair_ratios(pair_d, minutes_d, usual, weight_d, geometry)
    usual_pair = usual * pace_near[pair_d]
    city_p, pickup_p, dropoff_p = _hour_ratios(
        pair_d, cell_d, minutes_d, usual_pair, weight_d, geometry
    )
    expected = usual * pace_own[pair_d] * pickup_p[pair_d[0], cell_d]
    expected = expected * dropoff_p[pair_d[1], cell_d] / city_p[cell_d]
    start, slope = _pair_lines(pair_d, expected, minutes_d, weight_d, geometry)

    with np.errstate(invalid="ignore"):
        speed = miles_own / own
    layers = (
        geometry.straight_km, geometry.east_km, geometry.north_km, wide, near, own, root, trips,
        geometry.near @ trips @ geometry.near.T, miles_near, miles_own, speed, pace_own,
        start, slope,
    )  # fmt: skip
    return FeatureTables(
        centre=geometry.centre_km.astype("float32"),
        pair=np.stack(layers, axis=2).astype("float32"),
        pickup_hour=np.stack([by_pickup, pickup_p], axis=2).astype("float32"),
        dropoff_hour=np.stack([by_dropoff, dropoff_p], axis=2).astype("float32"),
        city_hour=np.stack([city, city_p], axis=1).astype("float32"),
        minutes_of_miles=by_miles,
        atlas=atlas,
    )


def out_of_fold_features(
    rides: Rides,
    duration: np.ndarray,
    weight: np.ndarray | None = None,
    atlas: Atlas | None = None,
) -> np.ndarray:
    """Return training features, float32 of shape (n, 38), from tables that left out the day.

    A trip must not see its own duration: each fifth of the days is looked up in tables
    fitted on the other days. Counts are scaled up to the size of the whole. Arguments as
    `fit_tables`.
    """
    days = rides.pickup_at.astype("datetime64[D]").astype("int64")
    order = days if len(np.unique(days)) >= FOLDS else np.arange(len(days))
    fold = order % FOLDS
    out = np.empty((len(days), len(DISTANCE_FEATURES)), dtype="float32")
    counts = [DISTANCE_FEATURES.index(name) for name in ("trips_pair", "trips_near")]
    for k in np.unique(fold):
        held, rest = rides.take(fold == k), rides.take(fold != k)
        others = None if weight is None else weight[fold != k]
        tables = fit_tables(rest, duration[fold != k], others, atlas)
        rows = transform(held, tables, with_distance=True)
        rows[:, counts] *= np.float32(len(fold) / np.count_nonzero(fold != k))
        out[fold == k] = rows
    return out


def _flat(pair: Pair) -> np.ndarray:
    return pair[0] * ZONES + pair[1]


def _pair_sums(pair: Pair, values: np.ndarray) -> np.ndarray:
    """Return sums by pair, shape (266, 266)."""
    return np.bincount(_flat(pair), values, ZONES * ZONES).reshape(ZONES, ZONES)


def _pair_ratios(
    pair: Pair, actual: np.ndarray, base: np.ndarray, weight: np.ndarray, geometry: Geometry
) -> list[np.ndarray]:
    """Return actual over base for every pair of zones: wide, near and own, each (266, 266).

    The chain is city, borough pair, pairs of wide then near neighbourhoods, then the pair
    itself with its way back. Each step counts its own trips against PAIR_STRENGTH trips of
    the step before, so an unseen pair takes its neighbours' word.
    """
    if not len(actual):
        return [np.ones((ZONES, ZONES))] * 3
    top, bottom = _pair_sums(pair, weight * actual), _pair_sums(pair, weight * base)
    one = base.mean()
    prior = PAIR_STRENGTH * one
    member = (geometry.borough[None, :] == np.unique(geometry.borough)[:, None]).astype(float)
    city = top.sum() / bottom.sum()
    boroughs = (member @ top @ member.T + 20 * one * city) / (member @ bottom @ member.T + 20 * one)
    ratio = boroughs[geometry.borough][:, geometry.borough]
    steps = []
    for weights in (geometry.wide, geometry.near):
        up, down = weights @ top @ weights.T, weights @ bottom @ weights.T
        ratio = (up + prior * ratio) / (down + prior)
        steps.append(ratio)
    both_ways = ((top + top.T) / 2 + prior * ratio) / ((bottom + bottom.T) / 2 + prior)
    steps.append((top + prior * both_ways) / (bottom + prior))
    return steps


def _hour_ratios(
    pair: Pair,
    cell: np.ndarray,
    actual: np.ndarray,
    base: np.ndarray,
    weight: np.ndarray,
    geometry: Geometry,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return actual over base by hour: of the city (72,), by pickup and drop-off (266, 72)."""
    if not len(actual):
        return np.ones(CELLS), np.ones((ZONES, CELLS)), np.ones((ZONES, CELLS))
    one, ratios = base.mean(), []
    for zone in pair:
        top, bottom = (_hour_sums(zone, cell, weight * values) for values in (actual, base))
        city = (top.sum(axis=0) + 10 * one) / (bottom.sum(axis=0) + 10 * one)
        ratio = np.broadcast_to(city, top.shape)
        for weights in (geometry.wide, geometry.near, np.eye(ZONES)):
            prior = CELL_STRENGTH * one
            ratio = (weights @ top + prior * ratio) / (weights @ bottom + prior)
        ratios.append(ratio)
    return city, ratios[0], ratios[1]


def _hour_sums(zone: np.ndarray, cell: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return sums by zone and cell, shape (266, 72), each hour leaning on its neighbours."""
    sums = np.bincount(zone * CELLS + cell, values, ZONES * CELLS).reshape(ZONES, 3, 24)
    sums = 0.6 * sums + 0.2 * np.roll(sums, 1, axis=2) + 0.2 * np.roll(sums, -1, axis=2)
    return sums.reshape(ZONES, CELLS)


def _pair_lines(
    pair: Pair, expected: np.ndarray, actual: np.ndarray, weight: np.ndarray, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """Return start and slope of actual minutes over expected ones near each pair, (266, 266).

    Ridge towards start 0 and slope 1: it corrects how long and short trips of one pair differ.
    """
    if not len(actual):
        return np.zeros((ZONES, ZONES)), np.ones((ZONES, ZONES))
    near = geometry.near

    def sums(values: np.ndarray) -> np.ndarray:
        return near @ _pair_sums(pair, weight * values) @ near.T

    n, sx, sy = sums(np.ones(len(actual))), sums(expected), sums(actual)
    sxx, sxy = sums(expected * expected), sums(expected * actual)
    mean = sx / np.maximum(n, 1e-9)
    prior = LINE_STRENGTH * expected.var()
    slope = (sxy - mean * sy + prior) / (sxx - mean * sx + prior)
    one = LINE_STRENGTH * expected.mean()
    height = mean * (sy + one) / (sx + one)
    return np.where(n > 0, height - slope * mean, 0.0), np.where(n > 0, slope, 1.0)


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
