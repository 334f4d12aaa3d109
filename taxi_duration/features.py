"""Features of a ride, from what is known when it is asked: two zones, a time, maybe a distance.

Everything is a look-up in tables that were fitted on past trips, so that one ride costs
microseconds and a month costs a few array look-ups. Both ways give the same float32 row.
Derived features use only + - * /: those are exact in IEEE arithmetic, so Python's floats and
numpy's arrays agree to the last bit. (A tree does not care for a logarithm anyway.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from taxi_duration.atlas import DISTANCE_FEATURE, ROUTE_FEATURES, Atlas, RideAtlas
from taxi_duration.clock import CELLS, read_clock, us_holidays
from taxi_duration.curves import Curve, RideCurve, fit_curve
from taxi_duration.geometry import ZONES, Geometry, zone_geometry
from taxi_duration.rides import Rides

MAX_DISTANCE_MILES = 100.0  # longer ones are meter faults: up to 244,152 miles were recorded
FOLDS = 5  # by day: trips of one day share its weather and must not encode each other
PAIR_STRENGTH = 8.0  # trips a prior counts for, in the chain of pair tables
CELL_STRENGTH = 30.0  # the same for zone x hour tables
LINE_STRENGTH = 20.0  # the same for a pair's own line through its past trips

PAIR_COLUMNS = (
    "straight_km", "east_km", "north_km", "minutes_wide", "minutes_near", "minutes_pair",
    "root_pair", "trips_pair", "trips_near", "miles_near", "miles_pair", "speed_pair", "pace_pair",
)  # fmt: skip
LINE_COLUMNS = ("line_start", "line_slope")  # last in the pair table; not features themselves
CELL_COLUMNS = ("minutes", "pace")
FEATURES = (
    "minute_of_day", "hour_of_week", "holiday",
    "pickup_x_km", "pickup_y_km", "dropoff_x_km", "dropoff_y_km",
    *PAIR_COLUMNS,
    "city_hour", "pickup_hour", "dropoff_hour", "expected_minutes",
    *ROUTE_FEATURES,
)  # fmt: skip
DISTANCE_FEATURES = (
    *FEATURES,
    "pickup_hour_pace", "dropoff_hour_pace", "distance_miles", "distance_to_straight",
    "distance_to_usual", "distance_less_usual", "minutes_by_distance",
    "minutes_by_distance_hour", "minutes_scaled", "minutes_by_line", DISTANCE_FEATURE,
)  # fmt: skip
_PAIR_WIDTH = len(PAIR_COLUMNS) + len(LINE_COLUMNS)
_NO_ROUTE = (math.nan,) * len(ROUTE_FEATURES)


def known_distance(trip_distance: np.ndarray) -> np.ndarray:
    """Return distances as float64 miles, with NaN where they cannot be true."""
    miles = np.asarray(trip_distance, dtype="float32").astype("float64")
    with np.errstate(invalid="ignore"):
        return np.where((miles > 0) & (miles <= MAX_DISTANCE_MILES), miles, np.nan)


# --- Tables -----------------------------------------------------------------------------


@dataclass(frozen=True)
class FeatureTables:
    """All that a ride's features are looked up in.

    Args:
        centre: zones' centres, float32, shape (266, 2), km.
        pair: PAIR_COLUMNS then LINE_COLUMNS, float32, shape (266, 266, 15).
        pickup_hour, dropoff_hour: CELL_COLUMNS, ratio to the usual, float32, (266, 72, 2).
        city_hour: the same for the whole city, float32, shape (72, 2).
        minutes_of_miles: the usual minutes of a distance anywhere.
        atlas: what earlier years say; None for a window that must not know it.
    """

    centre: np.ndarray
    pair: np.ndarray
    pickup_hour: np.ndarray
    dropoff_hour: np.ndarray
    city_hour: np.ndarray
    minutes_of_miles: Curve
    atlas: Atlas | None = None

    @property
    def trips(self) -> np.ndarray:
        """Past trips of each pair, shape (266, 266): what an answer rests on."""
        return self.pair[:, :, PAIR_COLUMNS.index("trips_pair")]


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


def transform(rides: Rides, tables: FeatureTables, with_distance: bool) -> np.ndarray:
    """Return float32 features, shape (n, 38) with the asked distance or (n, 27) without.

    The first 27 are the same in both.
    """
    pickup, dropoff = _zones(rides)
    minute, hour_of_week, holiday, cell = read_clock(rides.pickup_at)
    names = DISTANCE_FEATURES if with_distance else FEATURES
    out = np.empty((len(pickup), len(names)), dtype="float32")
    out[:, 0], out[:, 1], out[:, 2] = minute, hour_of_week, holiday
    out[:, 3:5], out[:, 5:7] = tables.centre[pickup], tables.centre[dropoff]
    pair = tables.pair[pickup, dropoff]
    at = 7 + len(PAIR_COLUMNS)
    out[:, 7:at] = pair[:, : len(PAIR_COLUMNS)]
    city = tables.city_hour[cell].astype("float64")
    by_pickup = tables.pickup_hour[pickup, cell].astype("float64")
    by_dropoff = tables.dropoff_hour[dropoff, cell].astype("float64")
    wide_pair = dict(zip(PAIR_COLUMNS + LINE_COLUMNS, pair.T.astype("float64"), strict=True))
    minutes = wide_pair["minutes_pair"]
    out[:, at] = city[:, 0]
    out[:, at + 1] = by_pickup[:, 0]
    out[:, at + 2] = by_dropoff[:, 0]
    out[:, at + 3] = minutes * by_pickup[:, 0] * by_dropoff[:, 0] / city[:, 0]
    miles = known_distance(rides.trip_distance)
    *from_atlas, by_atlas = (
        (np.nan,) * 4
        if tables.atlas is None
        else tables.atlas.features(pickup, dropoff, cell, miles)
    )
    for i, column in enumerate(from_atlas):
        out[:, at + 4 + i] = column
    at += len(from_atlas)
    if not with_distance:
        return out
    usual_miles = wide_pair["miles_pair"]
    by_miles = np.where(np.isnan(miles), np.nan, tables.minutes_of_miles.at(miles))
    by_miles = by_miles * wide_pair["pace_pair"]
    by_hour = by_miles * by_pickup[:, 1] * by_dropoff[:, 1] / city[:, 1]
    out[:, at + 4] = by_pickup[:, 1]
    out[:, at + 5] = by_dropoff[:, 1]
    out[:, at + 6] = miles
    out[:, at + 7] = miles / wide_pair["straight_km"]
    out[:, at + 8] = miles / usual_miles
    out[:, at + 9] = miles - usual_miles
    out[:, at + 10] = by_miles
    out[:, at + 11] = by_hour
    out[:, at + 12] = miles * minutes / usual_miles
    out[:, at + 13] = wide_pair["line_start"] + wide_pair["line_slope"] * by_hour
    out[:, at + 14] = by_atlas
    return out


class RideFeatures:
    """The features of one ride, from the same tables without arrays: a few microseconds."""

    def __init__(self, tables: FeatureTables) -> None:
        self._pair = memoryview(np.ascontiguousarray(tables.pair).reshape(-1))
        self._pickup = memoryview(np.ascontiguousarray(tables.pickup_hour).reshape(-1))
        self._dropoff = memoryview(np.ascontiguousarray(tables.dropoff_hour).reshape(-1))
        self._city = tables.city_hour.astype("float64").tolist()
        self._centre = tables.centre.astype("float64").tolist()
        self._minutes_of_miles = RideCurve(tables.minutes_of_miles)
        self._atlas = None if tables.atlas is None else RideAtlas(tables.atlas)

    def row(
        self,
        pickup: int,
        dropoff: int,
        pickup_at: datetime,
        miles: float | None,
        conditions: Sequence[float] = (),
    ) -> np.ndarray:
        """Return the features of one ride, equal to the bit to what `transform` gives.

        Args:
            pickup, dropoff: zones, 1-265.
            pickup_at: New York local time.
            miles: asked distance; None for the features without distance.
            conditions: of the hour, put last (see `conditions.py`), k of them.
        Returns:
            float32, shape (38 + k,), or (27 + k,) without distance.
        """
        hour, weekday = pickup_at.hour, pickup_at.weekday()
        holiday = pickup_at.date() in us_holidays(pickup_at.year)
        kind = 2 if holiday or weekday == 6 else 1 if weekday == 5 else 0
        cell = kind * 24 + hour
        start = (pickup * ZONES + dropoff) * _PAIR_WIDTH
        pair = self._pair[start : start + _PAIR_WIDTH].tolist()
        i, j = (pickup * CELLS + cell) * 2, (dropoff * CELLS + cell) * 2
        from_minutes, from_pace = self._pickup[i], self._pickup[i + 1]
        to_minutes, to_pace = self._dropoff[j], self._dropoff[j + 1]
        city_minutes, city_pace = self._city[cell]
        line_slope, line_start = pair.pop(), pair.pop()
        minutes = pair[5]
        out = [hour * 60 + pickup_at.minute, weekday * 24 + hour, holiday]
        out += self._centre[pickup]
        out += self._centre[dropoff]
        out += pair
        out += (
            city_minutes,
            from_minutes,
            to_minutes,
            minutes * from_minutes * to_minutes / city_minutes,
        )
        atlas = self._atlas
        out += _NO_ROUTE if atlas is None else atlas.route(pickup, dropoff, cell)
        if miles is None:
            out += conditions
            return np.array(out, dtype="float32")
        miles = float(np.float32(miles))
        if not 0 < miles <= MAX_DISTANCE_MILES:
            miles = math.nan
        usual_miles = pair[10]
        by_miles = self._minutes_of_miles.at(miles) * pair[12]
        by_hour = by_miles * from_pace * to_pace / city_pace
        out += (
            from_pace,
            to_pace,
            miles,
            miles / pair[0],
            miles / usual_miles,
            miles - usual_miles,
            by_miles,
            by_hour,
            miles * minutes / usual_miles,
            line_start + line_slope * by_hour,
            math.nan if atlas is None else atlas.by_line(pickup, dropoff, cell, miles),
        )
        out += conditions
        return np.array(out, dtype="float32")


# --- Fitting the tables -----------------------------------------------------------------

Pair = tuple[np.ndarray, np.ndarray]


def _zones(rides: Rides) -> Pair:
    return rides.PULocationID.astype("int64"), rides.DOLocationID.astype("int64")


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
