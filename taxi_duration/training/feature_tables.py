"""Fits the tables that a ride's features are looked up in, from sums over past trips."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from taxi_duration.data.window import Window
from taxi_duration.domain.geometry import ZONES, zone_geometry
from taxi_duration.domain.pickup_calendar import CELLS
from taxi_duration.domain.rides import Rides
from taxi_duration.model.atlas import Atlas, atlas_for
from taxi_duration.model.curves import Curve
from taxi_duration.model.features import DISTANCE_FEATURES, PAIR_TABLE, FeatureTables, transform
from taxi_duration.training.curve_fitting import fit_curve
from taxi_duration.training.window_sums import (
    HALF_LIFE_DAYS,
    TableSums,
    WindowSums,
    window_sums,
)

# How many trips a prior counts for: chosen, not searched for. More makes rare routes and hours
# alike, less lets single trips speak.
BOROUGH_STRENGTH = 20.0  # of the city, for a pair of boroughs
PAIR_STRENGTH = 8.0  # of the step before, in the chain from boroughs to the pair itself
CITY_HOUR_STRENGTH = 10.0  # of "as usual", for an hour of the whole city
CELL_STRENGTH = 30.0  # of the step before, in the chain from the city's hour to a zone's
LINE_STRENGTH = 20.0  # of "actual is expected", for the line through the trips near a pair
# Of the trips' expected minutes, as a share of their square (a deviation of 5 %): in trips that
# are all alike, where the difference of two sums is nothing but rounding, there is no line.
SMALLEST_SPREAD = 0.05**2

# An hour's sums borrow from the hour before and the one after, so that ratios move smoothly;
# chosen: less leaves night hours to a few trips, more blurs where the rush begins.
HOUR_SHARE, NEXT_HOUR_SHARE = 0.6, 0.2

STRAIGHT_BINS = 40  # of a curve; chosen as MILES_CURVE_BINS
COUNTS = [PAIR_TABLE.index(name) for name in ("trips_pair", "trips_near")]


def fit_tables(sums: TableSums, curve: Curve, atlas: Atlas | None = None) -> FeatureTables:
    """Learn the tables from past trips.

    Args:
        sums: over the trips.
        curve: the usual minutes of a distance, with which they were made.
        atlas: kept beside the tables.
    """
    minutes_layers, hours = _fit_minutes(sums)
    miles_layers, pace_hours = _fit_pace(sums)
    layers = _places_and_counts(sums) | minutes_layers | miles_layers
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
        minutes_of_miles=replace(curve, unknown=math.nan),
        atlas=atlas,
    )


def window_tables(
    window: Window, half_life: float = HALF_LIFE_DAYS, atlas: Atlas | None = None
) -> FeatureTables:
    """Return the tables of a whole window.

    Args:
        half_life: days before the last one at which a trip counts half; may be infinite.
        atlas: kept beside the tables, see `window_atlas`.
    """
    sums = window_sums(window, half_life)
    return fit_tables(sums.table_sums(), sums.curve, atlas)


def window_atlas(window: Window) -> Atlas | None:
    """Return the atlas, None for a window that begins before it may be known, or unwanted."""
    return atlas_for(window_sums(window).days.first)


class FeatureBatch(NamedTuple):
    """Training features of some trips.

    Args:
        rides, minutes: of the trips, shape (n,), float32.
        rows: DISTANCE_FEATURES, float32, shape (n, 39); the first 28 need no distance.
        weight: how much each trip counts, 1 on average over the window, shape (n,).
    """

    rides: Rides
    minutes: np.ndarray
    rows: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class FoldTables:
    """Tables that left out the fold that they are used for: no trip sees its own duration.

    Args:
        tables: by fold, fitted on the days of all others; counts are scaled up to the whole.
        sums: of the window.
        left_out: a block whose trips are in no table, and get no features; None for none.
    """

    tables: dict[int, FeatureTables]
    sums: WindowSums
    left_out: int | None = None

    def batches(self, window: Window) -> Iterator[FeatureBatch]:
        """Yield out-of-fold features of trips, in their order.

        Args:
            window: that the tables are of, or a sample of its trips.
        """
        groups = self.sums.groups
        for rides, minutes in window.batches():
            block, fold = groups.block_and_fold(rides, groups.places(rides.pickup_at))
            if self.left_out is not None:
                kept = block != self.left_out
                rides, minutes, fold = rides.take(kept), minutes[kept], fold[kept]
            rows = np.empty((len(rides), len(DISTANCE_FEATURES)), dtype="float32")
            for k in np.unique(fold):
                rows[fold == k] = transform(rides.take(fold == k), self.tables[k], True)
            weight = self.sums.weight_of(rides.pickup_at, self.left_out)
            yield FeatureBatch(rides, minutes, rows, weight)


def fold_tables(
    sums: WindowSums, left_out: int | None = None, atlas: Atlas | None = None
) -> FoldTables:
    """Return the tables of each fold of a window.

    Args:
        left_out: a block of days that no table may know.
        atlas: kept beside the tables.
    """
    trips = sums.pairs(left_out)[:, 0].sum()
    tables = {}
    for fold, others in sums.fold_sums(left_out):
        made = fit_tables(others, sums.curve, atlas)
        made.pair[:, :, COUNTS] *= np.float32(trips / others.pair("trips").sum())
        tables[fold] = made
    return FoldTables(tables, sums, left_out)


HourRatios = tuple[np.ndarray, np.ndarray, np.ndarray]  # of the city, by pickup, by drop-off


def _fit_minutes(sums: TableSums) -> tuple[dict[str, np.ndarray], HourRatios]:
    """Return layers of the pair table and the hours' ratios that need no distance.

    Pair tables hold ratios to what the straight distance alone would say.
    """
    trips, weight = sums.pair("trips"), sums.pair("weight")
    base = _along_straight(trips, sums.pair("minutes"))
    one = _mean(trips, base.ravel())
    ratios = _pair_ratios(sums.pair("weight_minutes"), weight * base.ravel(), one)
    wide, near, own = (base * ratio for ratio in ratios)
    root = np.sqrt(own.ravel())
    *_, root_pair = _pair_ratios(sums.pair("weight_root"), weight * root, _mean(trips, root))
    layers = {
        "minutes_wide": wide, "minutes_near": near, "minutes_pair": own, "root_pair": root_pair,
    }  # fmt: skip
    usual = own.ravel()
    expected = sums.cell("weight") * usual[sums.keys // CELLS]
    return layers, _hour_ratios(sums.keys, sums.cell("minutes"), expected, _mean(trips, usual))


def _fit_pace(sums: TableSums) -> tuple[dict[str, np.ndarray], HourRatios]:
    """Return the same against the asked distance, of trips whose distance is known."""
    known, pair, cell = sums.pair("known"), sums.keys // CELLS, sums.keys % CELLS
    base = _along_straight(known, sums.pair("known_miles"))
    weighted = sums.pair("weight_known") * base.ravel()
    ratios = _pair_ratios(sums.pair("weight_known_miles"), weighted, _mean(known, base.ravel()))
    _, miles_near, miles_own = (base * ratio for ratio in ratios)
    usual, plain = sums.cell("known_usual"), sums.cell("known_plain_usual")
    of_pair, plain_of_pair = (np.bincount(pair, v, ZONES * ZONES) for v in (usual, plain))
    trips = known.sum()
    one = plain_of_pair.sum() / trips if trips else 0.0
    _, pace_near, pace = _pair_ratios(sums.pair("weight_known_minutes"), of_pair, one)
    near = pace_near.ravel()
    one = near @ plain_of_pair / trips if trips else 0.0
    hours = _hour_ratios(sums.keys, sums.cell("known_minutes"), usual * near[pair], one)
    city, by_pickup, by_dropoff = hours
    factor = pace.ravel()[pair] * by_pickup[pair // ZONES, cell] * by_dropoff[pair % ZONES, cell]
    start, slope = _pair_lines(sums, pair, factor / city[cell])
    layers = {
        "miles_near": miles_near, "miles_pair": miles_own, "pace_pair": pace,
        "line_start": start, "line_slope": slope,
    }  # fmt: skip
    return layers, hours


def _along_straight(trips: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return what the straight distance alone says of every pair, shape (266, 266).

    Args:
        trips, total: of every pair, and the sum of what is said, shape (PAIRS,).
    """
    straight_km = zone_geometry().straight_km
    return fit_curve(straight_km.ravel(), trips, total, STRAIGHT_BINS).at(straight_km)


def _mean(trips: np.ndarray, values: np.ndarray) -> float:
    """Return the mean over trips of what every pair says, 0 without trips."""
    return float(trips @ values / trips.sum()) if trips.any() else 0.0


def _places_and_counts(sums: TableSums) -> dict[str, np.ndarray]:
    """Return the layers that do not depend on durations."""
    geometry, (_, near) = zone_geometry(), _neighbourhoods()
    count = sums.pair("trips").reshape(ZONES, ZONES)
    return {
        "straight_km": geometry.straight_km,
        "east_km": geometry.east_km,
        "north_km": geometry.north_km,
        "trips_pair": count,
        "trips_near": near @ count @ near.T,
    }


@cache
def _neighbourhoods() -> tuple[Any, Any]:
    """Return the weights of wide and near zones, sparse: most are 0, of near ones nearly all."""
    from scipy.sparse import csr_array

    geometry = zone_geometry()
    return csr_array(geometry.wide), csr_array(geometry.near)


def _pair_ratios(top: np.ndarray, bottom: np.ndarray, one: float) -> list[np.ndarray]:
    """Return actual over base for every pair of zones: wide, near and own, each (266, 266).

    The chain is city, borough pair, pairs of wide then near neighbourhoods, then the pair
    itself with its way back. Each step counts its own trips against some trips of the step
    before, so an unseen pair takes what its neighbours say.

    Args:
        top, bottom: weighted sums of actual and base by pair, shape (PAIRS,).
        one: base of a trip on average, 0 without trips.
    """
    if not one:
        return [np.ones((ZONES, ZONES))] * 3
    top, bottom = top.reshape(ZONES, ZONES), bottom.reshape(ZONES, ZONES)
    geometry, prior = zone_geometry(), PAIR_STRENGTH * one
    member = (geometry.borough[None, :] == np.unique(geometry.borough)[:, None]).astype(float)
    city = top.sum() / bottom.sum()
    start = BOROUGH_STRENGTH * one
    boroughs = (member @ top @ member.T + start * city) / (member @ bottom @ member.T + start)
    ratio = boroughs[geometry.borough][:, geometry.borough]
    steps = []
    for weights in _neighbourhoods():
        up, down = weights @ top @ weights.T, weights @ bottom @ weights.T
        ratio = (up + prior * ratio) / (down + prior)
        steps.append(ratio)
    both_ways = ((top + top.T) / 2 + prior * ratio) / ((bottom + bottom.T) / 2 + prior)
    steps.append((top + prior * both_ways) / (bottom + prior))
    return steps


def _hour_ratios(keys: np.ndarray, actual: np.ndarray, base: np.ndarray, one: float) -> HourRatios:
    """Return actual over base by hour: of the city (72,), by pickup and drop-off (266, 72).

    Args:
        keys: pair * CELLS + cell, shape (m,).
        actual, base: weighted sums at the keys, shape (m,).
        one: base of a trip on average, 0 without trips.
    """
    if not one:
        return np.ones(CELLS), np.ones((ZONES, CELLS)), np.ones((ZONES, CELLS))
    ratios = []
    pair, cell = keys // CELLS, keys % CELLS
    for zone in (pair // ZONES, pair % ZONES):
        top, bottom = (_hour_sums(zone * CELLS + cell, values) for values in (actual, base))
        start = CITY_HOUR_STRENGTH * one
        city = (top.sum(axis=0) + start) / (bottom.sum(axis=0) + start)
        ratio = np.broadcast_to(city, top.shape)
        prior = CELL_STRENGTH * one
        for weights in _neighbourhoods():
            ratio = (weights @ top + prior * ratio) / (weights @ bottom + prior)
        ratios.append((top + prior * ratio) / (bottom + prior))
    return city, ratios[0], ratios[1]


def _hour_sums(at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return sums by zone and cell, shape (266, 72), each hour leaning on its neighbours."""
    sums = np.bincount(at, values, ZONES * CELLS).reshape(ZONES, 3, 24)
    before, after = (NEXT_HOUR_SHARE * np.roll(sums, step, axis=2) for step in (1, -1))
    sums = HOUR_SHARE * sums + before + after
    return sums.reshape(ZONES, CELLS)


def _pair_lines(
    sums: TableSums, pair: np.ndarray, factor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return start and slope of actual minutes over expected ones near each pair, (266, 266).

    Ridge towards start 0 and slope 1: it corrects how long and short trips of one pair differ.

    Args:
        pair: of each key, shape (m,).
        factor: what the usual minutes of a distance are multiplied by at each key, shape (m,).
    """
    trips = sums.pair("known").sum()
    if not trips:
        return np.zeros((ZONES, ZONES)), np.ones((ZONES, ZONES))
    _, near = _neighbourhoods()

    def around(of_pair: np.ndarray) -> np.ndarray:
        return near @ of_pair.reshape(ZONES, ZONES) @ near.T

    def product(name: str, factor: np.ndarray) -> np.ndarray:
        return around(np.bincount(pair, sums.cell(f"known_{name}") * factor, ZONES * ZONES))

    n, sy = around(sums.pair("weight_known")), around(sums.pair("weight_known_minutes"))
    sx, sxx = product("usual", factor), product("usual2", factor * factor)
    sxy = product("usual_minutes", factor)
    expected = factor @ sums.cell("known_plain_usual") / trips
    variance = (factor * factor) @ sums.cell("known_plain_usual2") / trips - expected**2
    variance = max(variance, SMALLEST_SPREAD * expected**2)
    mean = sx / np.maximum(n, 1e-9)  # where no trip is near, any number does
    prior = LINE_STRENGTH * variance
    # Never falling: the features made of it rise with the distance.
    slope = np.maximum((sxy - mean * sy + prior) / (sxx - mean * sx + prior), 0.0)
    one = LINE_STRENGTH * expected
    height = mean * (sy + one) / (sx + one)
    return np.where(n > 0, height - slope * mean, 0.0), np.where(n > 0, slope, 1.0)
