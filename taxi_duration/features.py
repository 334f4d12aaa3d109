"""Features of a ride, from what is known when it is asked: two zones, a time, maybe a distance.

Everything is a look-up in tables that were fitted on past trips, so that one ride costs
microseconds and a month costs a few array look-ups. Both ways give the same float32 row.
Derived features use only + - * /: those are exact in IEEE arithmetic, so Python's floats and
numpy's arrays agree to the last bit. (A tree does not care for a logarithm anyway.)
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache, lru_cache

import numpy as np

from taxi_duration.rides import Rides
from taxi_duration.zones import LAST_ZONE, zone_table

ZONES = LAST_ZONE + 1  # LocationID 0-265; 0 is unused
CELLS = 72  # weekday, Saturday, Sunday or holiday: 24 hours each
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
)  # fmt: skip
DISTANCE_FEATURES = (
    *FEATURES,
    "pickup_hour_pace", "dropoff_hour_pace", "distance_miles", "distance_to_straight",
    "distance_to_usual", "distance_less_usual", "minutes_by_distance",
    "minutes_by_distance_hour", "minutes_scaled", "minutes_by_line",
)  # fmt: skip
_PAIR_WIDTH = len(PAIR_COLUMNS) + len(LINE_COLUMNS)


# --- Geometry ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """Where zones lie.

    Args:
        centre_km: east and north of the city's centre, shape (266, 2), km, NaN if unknown.
        straight_km, east_km, north_km: from zone to zone, shape (266, 266), km.
        near, wide: how much trips of one zone say about another, shape (266, 266), 0 to 1.
        borough: code of each zone's borough, int, shape (266,).
    """

    centre_km: np.ndarray
    straight_km: np.ndarray
    east_km: np.ndarray
    north_km: np.ndarray
    near: np.ndarray
    wide: np.ndarray
    borough: np.ndarray


@cache
def zone_geometry() -> Geometry:
    """Return distances, directions and neighbourhoods of the built-in zones."""
    zones = zone_table()
    longitude, latitude, area_km2 = zones.longitude, zones.latitude, zones.area_km2
    x = (longitude + 73.95) * 84.39  # km in a degree of longitude at 40.7 degrees north
    y = (latitude - 40.73) * 111.2
    radius = np.sqrt(area_km2 / np.pi)
    east, north = x[None, :] - x[:, None], y[None, :] - y[:, None]
    centres = np.hypot(east, north)
    # Two random points of one disc are about 0.9 radii apart: no distance inside a zone is 0.
    straight = np.maximum(centres, 0.45 * (radius[:, None] + radius[None, :]))
    return Geometry(
        centre_km=np.column_stack([x, y]),
        straight_km=straight,
        east_km=east,
        north_km=north,
        near=_neighbourhood(centres, radius, 0.3, 0.8),
        wide=_neighbourhood(centres, radius, 1.0, 2.0),
        borough=np.unique(zones.borough, return_inverse=True)[1],
    )


def _neighbourhood(
    centres_km: np.ndarray, radius_km: np.ndarray, reach_km: float, reach_radii: float
) -> np.ndarray:
    """Return Gaussian weights between zones that reach further where zones are large."""
    reach = reach_km + reach_radii * (radius_km[:, None] + radius_km[None, :]) / 2
    weights = np.nan_to_num(np.exp(-0.5 * (centres_km / reach) ** 2))
    weights[weights < 0.01] = 0.0
    np.fill_diagonal(weights, 1.0)  # a zone without a centroid knows only itself
    return weights


# --- Time -------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def us_holidays(year: int) -> frozenset[date]:
    """Return the federal holidays of a year. Source: 5 U.S.C. 6103, without shifted days off."""

    def nth(month: int, weekday: int, n: int) -> date:
        first = date(year, month, 1)
        return first + timedelta((weekday - first.weekday()) % 7 + 7 * (n - 1))

    last_of_may = date(year, 5, 31)
    days = {date(year, 1, 1), date(year, 7, 4), date(year, 11, 11), date(year, 12, 25)}
    days |= {nth(1, 0, 3), nth(2, 0, 3), nth(9, 0, 1), nth(10, 0, 2), nth(11, 3, 4)}
    days.add(last_of_may - timedelta(last_of_may.weekday()))
    if year >= 2021:  # Juneteenth became one in June 2021
        days.add(date(year, 6, 19))
    return frozenset(days)


def _clock(pickup_at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return minute of day, hour of week, holiday (0/1) and cell (0-71), int64 of shape (n,).

    Seconds are cut off: half the green records have full minutes, which tells where a record
    came from and nothing about the ride.
    """
    days = pickup_at.astype("datetime64[D]")
    minute = (pickup_at - days).astype("timedelta64[m]").astype("int64")
    weekday = (days.astype("int64") + 3) % 7  # 1970-01-01 was a Thursday
    unique, inverse = np.unique(days, return_inverse=True)
    is_holiday = np.array([d in us_holidays(d.year) for d in unique.tolist()], dtype="int64")
    holiday = is_holiday[inverse] if len(unique) else np.zeros(0, dtype="int64")
    hour = minute // 60
    kind = np.where((weekday == 6) | (holiday == 1), 2, np.where(weekday == 5, 1, 0))
    return minute, weekday * 24 + hour, holiday, kind * 24 + hour


def known_distance(trip_distance: np.ndarray) -> np.ndarray:
    """Return distances as float64 miles, with NaN where they cannot be true."""
    miles = np.asarray(trip_distance, dtype="float32").astype("float64")
    with np.errstate(invalid="ignore"):
        return np.where((miles > 0) & (miles <= MAX_DISTANCE_MILES), miles, np.nan)


# --- Tables -----------------------------------------------------------------------------


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

    def at(self, x: np.ndarray) -> np.ndarray:
        """Return float64 values at x, any shape."""
        inside = np.clip(np.where(np.isnan(x), self.x[0], x), self.x[0], self.x[-1])
        i = np.clip(np.searchsorted(self.x, inside, side="right") - 1, 0, len(self.slope) - 1)
        return np.where(np.isnan(x), self.unknown, self.y[i] + (inside - self.x[i]) * self.slope[i])


@dataclass(frozen=True)
class FeatureTables:
    """All that a ride's features are looked up in.

    Args:
        centre: zones' centres, float32, shape (266, 2), km.
        pair: PAIR_COLUMNS then LINE_COLUMNS, float32, shape (266, 266, 15).
        pickup_hour, dropoff_hour: CELL_COLUMNS, ratio to the usual, float32, (266, 72, 2).
        city_hour: the same for the whole city, float32, shape (72, 2).
        minutes_of_miles: the usual minutes of a distance anywhere.
    """

    centre: np.ndarray
    pair: np.ndarray
    pickup_hour: np.ndarray
    dropoff_hour: np.ndarray
    city_hour: np.ndarray
    minutes_of_miles: Curve

    @property
    def trips(self) -> np.ndarray:
        """Past trips of each pair, shape (266, 266): what an answer rests on."""
        return self.pair[:, :, PAIR_COLUMNS.index("trips_pair")]


def fit_tables(rides: Rides, duration: np.ndarray) -> FeatureTables:
    """Learn the tables from past trips.

    Args:
        rides: shape (n,).
        duration: minutes, shape (n,).
    """
    geometry = zone_geometry()
    pickup, dropoff = _zones(rides)
    cell = _clock(rides.pickup_at)[3]
    miles = known_distance(rides.trip_distance)
    minutes = duration.astype("float64")
    pair, known = (pickup, dropoff), ~np.isnan(miles)

    # Pair tables hold ratios to what the straight distance alone would say.
    by_straight = _fit_curve(geometry.straight_km[pair], minutes)
    base = by_straight.at(geometry.straight_km)
    wide, near, own = (base * r for r in _pair_ratios(pair, minutes, base[pair], geometry))
    root = _pair_ratios(pair, np.sqrt(minutes), np.sqrt(own[pair]), geometry)[2]
    city, by_pickup, by_dropoff = _hour_ratios(pair, cell, minutes, own[pair], geometry)
    trips = np.bincount(_flat(pair), minlength=ZONES * ZONES).reshape(ZONES, ZONES).astype(float)

    # The same against the asked distance, from the trips whose distance is known.
    pair_d, cell_d = (pickup[known], dropoff[known]), cell[known]
    miles_d, minutes_d = miles[known], minutes[known]
    miles_base = _fit_curve(geometry.straight_km[pair_d], miles_d).at(geometry.straight_km)
    miles_ratios = _pair_ratios(pair_d, miles_d, miles_base[pair_d], geometry)
    miles_near, miles_own = miles_base * miles_ratios[1], miles_base * miles_ratios[2]
    by_miles = _fit_curve(miles_d, minutes_d, bins=60)
    usual = by_miles.at(miles_d)
    _, pace_near, pace_own = _pair_ratios(pair_d, minutes_d, usual, geometry)
    usual_pair = usual * pace_near[pair_d]
    city_p, pickup_p, dropoff_p = _hour_ratios(pair_d, cell_d, minutes_d, usual_pair, geometry)
    expected = usual * pace_own[pair_d] * pickup_p[pair_d[0], cell_d]
    expected = expected * dropoff_p[pair_d[1], cell_d] / city_p[cell_d]
    start, slope = _pair_lines(pair_d, expected, minutes_d, geometry)

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
    )


def out_of_fold_features(rides: Rides, duration: np.ndarray) -> np.ndarray:
    """Return training features, float32 of shape (n, 34), from tables that left out the day.

    A trip must not see its own duration: each fifth of the days is looked up in tables
    fitted on the other days. Counts are scaled up to the size of the whole.
    """
    days = rides.pickup_at.astype("datetime64[D]").astype("int64")
    order = days if len(np.unique(days)) >= FOLDS else np.arange(len(days))
    fold = order % FOLDS
    out = np.empty((len(days), len(DISTANCE_FEATURES)), dtype="float32")
    counts = [DISTANCE_FEATURES.index(name) for name in ("trips_pair", "trips_near")]
    for k in np.unique(fold):
        held, rest = rides.take(fold == k), rides.take(fold != k)
        tables = fit_tables(rest, duration[fold != k])
        rows = transform(held, tables, with_distance=True)
        rows[:, counts] *= np.float32(len(fold) / np.count_nonzero(fold != k))
        out[fold == k] = rows
    return out


def transform(rides: Rides, tables: FeatureTables, with_distance: bool) -> np.ndarray:
    """Return float32 features, shape (n, 34) with the asked distance or (n, 24) without.

    The first 24 are the same in both.
    """
    pickup, dropoff = _zones(rides)
    minute, hour_of_week, holiday, cell = _clock(rides.pickup_at)
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
    if not with_distance:
        return out
    miles = known_distance(rides.trip_distance)
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
    return out


class RideFeatures:
    """The features of one ride, from the same tables without arrays: a few microseconds."""

    def __init__(self, tables: FeatureTables) -> None:
        self._pair = memoryview(np.ascontiguousarray(tables.pair).reshape(-1))
        self._pickup = memoryview(np.ascontiguousarray(tables.pickup_hour).reshape(-1))
        self._dropoff = memoryview(np.ascontiguousarray(tables.dropoff_hour).reshape(-1))
        self._city = tables.city_hour.astype("float64").tolist()
        self._centre = tables.centre.astype("float64").tolist()
        curve = tables.minutes_of_miles
        self._x, self._y = curve.x.tolist(), curve.y.tolist()
        self._slope = curve.slope.tolist()

    def row(
        self, pickup: int, dropoff: int, pickup_at: datetime, miles: float | None
    ) -> np.ndarray:
        """Return the features of one ride, equal to the bit to what `transform` gives.

        Args:
            pickup, dropoff: zones, 1-265.
            pickup_at: New York local time.
            miles: asked distance; None for the features without distance.
        Returns:
            float32, shape (34,), or (24,) without distance.
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
        if miles is None:
            return np.array(out, dtype="float32")
        miles = float(np.float32(miles))
        if not 0 < miles <= MAX_DISTANCE_MILES:
            miles = math.nan
        usual_miles = pair[10]
        by_miles = self._minutes_of(miles) * pair[12]
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
        )
        return np.array(out, dtype="float32")

    def _minutes_of(self, miles: float) -> float:
        """Return what `Curve.at` gives, NaN for an unknown distance."""
        if miles != miles:
            return miles
        x = self._x
        miles = min(max(miles, x[0]), x[-1])
        i = min(bisect_right(x, miles) - 1, len(self._slope) - 1)
        return self._y[i] + (miles - x[i]) * self._slope[i]


# --- Fitting the tables -----------------------------------------------------------------

Pair = tuple[np.ndarray, np.ndarray]


def _zones(rides: Rides) -> Pair:
    return rides.PULocationID.astype("int64"), rides.DOLocationID.astype("int64")


def _flat(pair: Pair) -> np.ndarray:
    return pair[0] * ZONES + pair[1]


def _pair_sums(pair: Pair, values: np.ndarray) -> np.ndarray:
    """Return sums by pair, shape (266, 266)."""
    return np.bincount(_flat(pair), values, ZONES * ZONES).reshape(ZONES, ZONES)


def _fit_curve(x: np.ndarray, y: np.ndarray, bins: int = 40) -> Curve:
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


def _pair_ratios(
    pair: Pair, actual: np.ndarray, base: np.ndarray, geometry: Geometry
) -> list[np.ndarray]:
    """Return actual over base for every pair of zones: wide, near and own, each (266, 266).

    The chain is city, borough pair, pairs of wide then near neighbourhoods, then the pair
    itself with its way back. Each step counts its own trips against PAIR_STRENGTH trips of
    the step before, so an unseen pair takes its neighbours' word.
    """
    if not len(actual):
        return [np.ones((ZONES, ZONES))] * 3
    top, bottom = _pair_sums(pair, actual), _pair_sums(pair, base)
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
    pair: Pair, cell: np.ndarray, actual: np.ndarray, base: np.ndarray, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return actual over base by hour: of the city (72,), by pickup and drop-off (266, 72)."""
    if not len(actual):
        return np.ones(CELLS), np.ones((ZONES, CELLS)), np.ones((ZONES, CELLS))
    one, ratios = base.mean(), []
    for zone in pair:
        top, bottom = (_hour_sums(zone, cell, values) for values in (actual, base))
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
    pair: Pair, expected: np.ndarray, actual: np.ndarray, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """Return start and slope of actual minutes over expected ones near each pair, (266, 266).

    Ridge towards start 0 and slope 1: it corrects how long and short trips of one pair differ.
    """
    if not len(actual):
        return np.zeros((ZONES, ZONES)), np.ones((ZONES, ZONES))
    near = geometry.near

    def sums(values: np.ndarray) -> np.ndarray:
        return near @ _pair_sums(pair, values) @ near.T

    n, sx, sy = sums(np.ones(len(actual))), sums(expected), sums(actual)
    sxx, sxy = sums(expected * expected), sums(expected * actual)
    mean = sx / np.maximum(n, 1e-9)
    prior = LINE_STRENGTH * expected.var()
    slope = (sxy - mean * sy + prior) / (sxx - mean * sx + prior)
    one = LINE_STRENGTH * expected.mean()
    height = mean * (sy + one) / (sx + one)
    return np.where(n > 0, height - slope * mean, 0.0), np.where(n > 0, slope, 1.0)
