"""Fits the tables that a ride's features are looked up in, from past trips."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from taxi_duration.domain.geometry import ZONES, zone_geometry
from taxi_duration.domain.pickup_calendar import CELLS, read_clocks
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.zones import Pair
from taxi_duration.model.atlas import Atlas
from taxi_duration.model.curves import Curve
from taxi_duration.model.features import (
    DISTANCE_FEATURES,
    PAIR_TABLE,
    FeatureTables,
    known_distance,
    transform,
)

# How many trips a prior counts for: chosen, not searched for. More makes rare routes and hours
# alike, less lets single trips speak.
BOROUGH_STRENGTH = 20.0  # of the city, for a pair of boroughs
PAIR_STRENGTH = 8.0  # of the step before, in the chain from boroughs to the pair itself
CITY_HOUR_STRENGTH = 10.0  # of "as usual", for an hour of the whole city
CELL_STRENGTH = 30.0  # of the step before, in the chain from the city's hour to a zone's
LINE_STRENGTH = 20.0  # of "actual is expected", for the line through the trips near a pair

# An hour's sums borrow from the hour before and the one after, so that ratios move smoothly;
# chosen: less leaves night hours to a few trips, more blurs where the rush begins.
HOUR_SHARE, NEXT_HOUR_SHARE = 0.6, 0.2

# Bins of a curve; chosen: a month gives each over a thousand trips, and more bins bend no more.
STRAIGHT_BINS, MILES_BINS = 40, 60
FOLDS = 5  # by day: trips of one day share its weather and must not encode each other


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
    trips = _Trips(
        (rides.PULocationID.astype("int64"), rides.DOLocationID.astype("int64")),
        read_clocks(rides.pickup_at)[1],
        known_distance(rides.trip_distance),
        duration.astype("float64"),
        np.ones(len(rides)) if weight is None else weight,
    )
    minutes_layers, hours = _fit_minutes(trips)
    miles_layers, pace_hours, minutes_of_miles = _fit_pace(trips.with_distance())
    layers = _places_and_counts(trips) | minutes_layers | miles_layers
    with np.errstate(invalid="ignore"):
        layers["speed_pair"] = layers["miles_pair"] / layers["minutes_pair"]
    city, pickup, dropoff = (
        np.stack(both, axis=-1).astype("float32") for both in zip(hours, pace_hours, strict=True)
    )
    return FeatureTables(
        centre=zone_geometry().centre_km.astype("float32"),
        pair=np.stack([layers[name] for name in PAIR_TABLE], axis=2).astype("float32"),
        pickup_hour=pickup,
        dropoff_hour=dropoff,
        city_hour=city,
        minutes_of_miles=minutes_of_miles,
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


class _Trips(NamedTuple):
    """Past trips as columns of shape (n,): zones, cell of the week, miles, minutes, weight."""

    pair: Pair
    cell: np.ndarray
    miles: np.ndarray
    minutes: np.ndarray
    weight: np.ndarray

    def with_distance(self) -> _Trips:
        """Return those whose distance is known."""
        (pickup, dropoff), *columns = self
        known = ~np.isnan(self.miles)
        return _Trips((pickup[known], dropoff[known]), *(column[known] for column in columns))


HourRatios = tuple[np.ndarray, np.ndarray, np.ndarray]  # of the city, by pickup, by drop-off


def _fit_minutes(trips: _Trips) -> tuple[dict[str, np.ndarray], HourRatios]:
    """Return layers of the pair table and the hours' ratios that need no distance.

    Pair tables hold ratios to what the straight distance alone would say.
    """
    straight_km, minutes = zone_geometry().straight_km, trips.minutes
    base = fit_curve(straight_km[trips.pair], minutes, STRAIGHT_BINS).at(straight_km)
    wide, near, own = (base * r for r in _pair_ratios(trips, minutes, base[trips.pair]))
    usual = own[trips.pair]
    *_, root = _pair_ratios(trips, np.sqrt(minutes), np.sqrt(usual))
    layers = {"minutes_wide": wide, "minutes_near": near, "minutes_pair": own, "root_pair": root}
    return layers, _hour_ratios(trips, minutes, usual)


def _fit_pace(trips: _Trips) -> tuple[dict[str, np.ndarray], HourRatios, Curve]:
    """Return the same against the asked distance, and the usual minutes of a distance.

    Args:
        trips: whose distance is known.
    """
    pair, cell, miles, minutes, _ = trips
    straight_km = zone_geometry().straight_km
    base = fit_curve(straight_km[pair], miles, STRAIGHT_BINS).at(straight_km)
    _, miles_near, miles_own = (base * r for r in _pair_ratios(trips, miles, base[pair]))
    by_miles = fit_curve(miles, minutes, MILES_BINS)
    usual = by_miles.at(miles)
    _, pace_near, pace = _pair_ratios(trips, minutes, usual)
    hours = city, by_pickup, by_dropoff = _hour_ratios(trips, minutes, usual * pace_near[pair])
    expected = usual * pace[pair] * by_pickup[pair[0], cell] * by_dropoff[pair[1], cell]
    start, slope = _pair_lines(trips, expected / city[cell])
    layers = {
        "miles_near": miles_near, "miles_pair": miles_own, "pace_pair": pace,
        "line_start": start, "line_slope": slope,
    }  # fmt: skip
    return layers, hours, replace(by_miles, unknown=float("nan"))


def _places_and_counts(trips: _Trips) -> dict[str, np.ndarray]:
    """Return the layers that do not depend on durations."""
    geometry, count = zone_geometry(), _pair_sums(trips.pair, np.ones(len(trips.minutes)))
    return {
        "straight_km": geometry.straight_km,
        "east_km": geometry.east_km,
        "north_km": geometry.north_km,
        "trips_pair": count,
        "trips_near": geometry.near @ count @ geometry.near.T,
    }


def _pair_sums(pair: Pair, values: np.ndarray) -> np.ndarray:
    """Return sums by pair, shape (266, 266)."""
    return np.bincount(pair[0] * ZONES + pair[1], values, ZONES * ZONES).reshape(ZONES, ZONES)


def _pair_ratios(trips: _Trips, actual: np.ndarray, base: np.ndarray) -> list[np.ndarray]:
    """Return actual over base for every pair of zones: wide, near and own, each (266, 266).

    The chain is city, borough pair, pairs of wide then near neighbourhoods, then the pair
    itself with its way back. Each step counts its own trips against some trips of the step
    before, so an unseen pair takes its neighbours' word.

    Args:
        actual, base: of each trip, shape (n,).
    """
    if not len(actual):
        return [np.ones((ZONES, ZONES))] * 3
    top, bottom = (_pair_sums(trips.pair, trips.weight * values) for values in (actual, base))
    geometry, one = zone_geometry(), base.mean()
    prior = PAIR_STRENGTH * one
    member = (geometry.borough[None, :] == np.unique(geometry.borough)[:, None]).astype(float)
    city = top.sum() / bottom.sum()
    start = BOROUGH_STRENGTH * one
    boroughs = (member @ top @ member.T + start * city) / (member @ bottom @ member.T + start)
    ratio = boroughs[geometry.borough][:, geometry.borough]
    steps = []
    for weights in (geometry.wide, geometry.near):
        up, down = weights @ top @ weights.T, weights @ bottom @ weights.T
        ratio = (up + prior * ratio) / (down + prior)
        steps.append(ratio)
    both_ways = ((top + top.T) / 2 + prior * ratio) / ((bottom + bottom.T) / 2 + prior)
    steps.append((top + prior * both_ways) / (bottom + prior))
    return steps


def _hour_ratios(trips: _Trips, actual: np.ndarray, base: np.ndarray) -> HourRatios:
    """Return actual over base by hour: of the city (72,), by pickup and drop-off (266, 72)."""
    if not len(actual):
        return np.ones(CELLS), np.ones((ZONES, CELLS)), np.ones((ZONES, CELLS))
    geometry, one, ratios = zone_geometry(), base.mean(), []
    for zone in trips.pair:
        top, bottom = (
            _hour_sums(zone, trips.cell, trips.weight * values) for values in (actual, base)
        )
        start = CITY_HOUR_STRENGTH * one
        city = (top.sum(axis=0) + start) / (bottom.sum(axis=0) + start)
        ratio = np.broadcast_to(city, top.shape)
        prior = CELL_STRENGTH * one
        for weights in (geometry.wide, geometry.near):
            ratio = (weights @ top + prior * ratio) / (weights @ bottom + prior)
        ratios.append((top + prior * ratio) / (bottom + prior))
    return city, ratios[0], ratios[1]


def _hour_sums(zone: np.ndarray, cell: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return sums by zone and cell, shape (266, 72), each hour leaning on its neighbours."""
    sums = np.bincount(zone * CELLS + cell, values, ZONES * CELLS).reshape(ZONES, 3, 24)
    before, after = (NEXT_HOUR_SHARE * np.roll(sums, step, axis=2) for step in (1, -1))
    sums = HOUR_SHARE * sums + before + after
    return sums.reshape(ZONES, CELLS)


def _pair_lines(trips: _Trips, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return start and slope of actual minutes over expected ones near each pair, (266, 266).

    Ridge towards start 0 and slope 1: it corrects how long and short trips of one pair differ.

    Args:
        expected: minutes of each trip, shape (n,).
    """
    if not len(expected):
        return np.zeros((ZONES, ZONES)), np.ones((ZONES, ZONES))
    near, actual = zone_geometry().near, trips.minutes

    def sums(values: np.ndarray) -> np.ndarray:
        return near @ _pair_sums(trips.pair, trips.weight * values) @ near.T

    n, sx, sy = sums(np.ones(len(expected))), sums(expected), sums(actual)
    sxx, sxy = sums(expected * expected), sums(expected * actual)
    mean = sx / np.maximum(n, 1e-9)  # where no trip is near, any number does
    prior = LINE_STRENGTH * expected.var()
    slope = (sxy - mean * sy + prior) / (sxx - mean * sx + prior)
    one = LINE_STRENGTH * expected.mean()
    height = mean * (sy + one) / (sx + one)
    return np.where(n > 0, height - slope * mean, 0.0), np.where(n > 0, slope, 1.0)


def fit_curve(x: np.ndarray, y: np.ndarray, bins: int) -> Curve:
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
