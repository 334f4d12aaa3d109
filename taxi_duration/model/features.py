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

from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.limits import MAX_TRIP_MILES
from taxi_duration.domain.pickup_calendar import CELLS, read_clock, us_holidays
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.zones import Pair
from taxi_duration.model.atlas import DISTANCE_FEATURE, ROUTE_FEATURES, Atlas, RideAtlas
from taxi_duration.model.curves import Curve, RideCurve

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
        return np.where((miles > 0) & (miles <= MAX_TRIP_MILES), miles, np.nan)


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
            conditions: of the hour, put last (see `extra_features.py`), k of them.
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
        if not 0 < miles <= MAX_TRIP_MILES:
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


def _zones(rides: Rides) -> Pair:
    return rides.PULocationID.astype("int64"), rides.DOLocationID.astype("int64")
