"""Features of a ride, from what is known when it is asked: two zones, a time, maybe a distance.

A ride looks rows up in tables that were fitted on past trips, and formulas make the rest, so
that one ride costs microseconds and a month costs a few array look-ups. Look-ups come in two
forms, numbers of one ride and columns of many; names and formulas stand once, for both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from struct import Struct
from typing import Any

import numpy as np

from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.limits import can_be_miles
from taxi_duration.domain.pickup_calendar import (
    CELLS,
    CLOCK_COLUMNS,
    near_cell,
    near_cells,
    read_clock,
    read_clocks,
)
from taxi_duration.domain.rides import Rides
from taxi_duration.model.atlas import ATLAS_COLUMNS, Atlas
from taxi_duration.model.curves import Curve, RideCurve

# --- Names and formulas -----------------------------------------------------------------

PAIR_COLUMNS = (
    "straight_km", "east_km", "north_km", "minutes_wide", "minutes_near", "minutes_pair",
    "root_pair", "trips_pair", "trips_near", "miles_near", "miles_pair", "speed_pair", "pace_pair",
)  # fmt: skip
LINE_COLUMNS = ("line_start", "line_slope")  # of the pair table too, but not features themselves
PAIR_TABLE = (*PAIR_COLUMNS, *LINE_COLUMNS)

# What a ride looks up, and how the values of each look-up are called.
LOOK_UPS: dict[str, tuple[str, ...]] = {
    "clock": CLOCK_COLUMNS,
    "pickup_centre": ("pickup_x_km", "pickup_y_km"),
    "dropoff_centre": ("dropoff_x_km", "dropoff_y_km"),
    "pair": PAIR_TABLE,
    "city": ("city_hour", "city_hour_pace"),
    "pickup": ("pickup_hour", "pickup_hour_pace", "atlas_pickup_hour", "atlas_pickup_pace"),
    "dropoff": ("dropoff_hour", "dropoff_hour_pace", "atlas_dropoff_hour", "atlas_dropoff_pace"),
    "atlas_pair": tuple(ATLAS_COLUMNS),
    "distance": ("distance_miles", "minutes_of_miles", "atlas_minutes_of_miles"),
}
# Looked up in the hour's cell and in the one next in time.
HOURLY = ("city", "pickup", "dropoff")
# In order: a formula may use those before it. Only + - * /: these are exact in IEEE arithmetic,
# so Python's floats and numpy's arrays agree to the last bit. (A tree does not care for a
# logarithm anyway.)
FORMULAS: dict[str, str] = {
    "expected_minutes": "minutes_pair * pickup_hour * dropoff_hour / city_hour",
    "atlas_expected": "atlas_minutes * atlas_pickup_hour * atlas_dropoff_hour",
    "distance_to_straight": "distance_miles / straight_km",
    "distance_to_usual": "distance_miles / miles_pair",
    "distance_less_usual": "distance_miles - miles_pair",
    "minutes_by_distance": "minutes_of_miles * pace_pair",
    "minutes_by_distance_hour": (
        "minutes_by_distance * pickup_hour_pace * dropoff_hour_pace / city_hour_pace"
    ),
    "minutes_scaled": "distance_miles * minutes_pair / miles_pair",
    "minutes_by_line": "line_start + line_slope * minutes_by_distance_hour",
    "atlas_by_line": (
        "atlas_line_start + atlas_line_slope"
        " * (atlas_minutes_of_miles * atlas_pace * atlas_pickup_pace * atlas_dropoff_pace)"
    ),
}
# The features, in the order in which trees know them.
FEATURES = (
    "minutes_from_10", "minutes_from_16", "hour_of_week", "holiday",
    "pickup_x_km", "pickup_y_km", "dropoff_x_km", "dropoff_y_km",
    *PAIR_COLUMNS,
    "city_hour", "pickup_hour", "dropoff_hour", "expected_minutes",
    "atlas_minutes", "atlas_miles", "atlas_expected",
)  # fmt: skip
DISTANCE_FEATURES = (
    *FEATURES,
    "pickup_hour_pace", "dropoff_hour_pace", "distance_miles", "distance_to_straight",
    "distance_to_usual", "distance_less_usual", "minutes_by_distance",
    "minutes_by_distance_hour", "minutes_scaled", "minutes_by_line", "atlas_by_line",
)  # fmt: skip
# Those that the distance enters; each grows with it, whatever the pair and the time.
RISING = frozenset(DISTANCE_FEATURES[DISTANCE_FEATURES.index("distance_miles") :])
# Looked-up values that a formula divides by. None is 0 (see `FeatureTables`): there numpy would
# say infinity, and Python would raise.
DIVISORS = frozenset(re.findall(r"/ (\w+)", " ".join(FORMULAS.values())))


def _compile(names: Sequence[str]) -> Callable[..., tuple[Any, ...]]:
    """Return a function of the look-ups (see LOOK_UPS) that gives the features of these names.

    It is written out from LOOK_UPS and FORMULAS as one straight line of Python: a formula costs
    one ride tens of nanoseconds, where a loop over named formulas would cost a microsecond.
    Numbers of one ride or columns of many may be given: the same code runs on both.

    Raises:
        NameError: a formula or a feature uses a name that is neither looked up nor made before.
    """
    formulas = {name: formula for name, formula in FORMULAS.items() if name in names}
    needed = {*names, *re.findall(r"\w+", " ".join(formulas.values()))}
    groups = {group: values for group, values in LOOK_UPS.items() if needed.intersection(values)}
    lines = [
        *(line for group, values in groups.items() for line in _unpack(group, values, needed)),
        *(f"{name} = {formula}" for name, formula in formulas.items()),
        f"return {', '.join(names)}",
    ]  # fmt: skip
    scope: dict[str, Any] = {}
    exec("\n  ".join([f"def features({', '.join(LOOK_UPS)}):", *lines]), scope)
    features: Callable[..., tuple[Any, ...]] = scope["features"]
    if unknown := features.__code__.co_names:
        raise NameError(f"features use unknown names: {', '.join(unknown)}")
    return features


def _unpack(group: str, values: Sequence[str], needed: set[str]) -> list[str]:
    """Return lines that name the values of a look-up; of an hour's, on the line to the next."""
    if group not in HOURLY:
        return [f"{', '.join(values)} = {group}"]
    own, near = (", ".join(f"{value}_{which}" for value in values) for which in ("own", "near"))
    mixed = [value for value in values if value in needed]
    return [
        f"({own}), ({near}), share = {group}",
        *(f"{value} = {value}_own + ({value}_near - {value}_own) * share" for value in mixed),
    ]


_with_distance, _without_distance = _compile(DISTANCE_FEATURES), _compile(FEATURES)


# --- Tables -----------------------------------------------------------------------------


@dataclass(frozen=True)
class FeatureTables:
    """All that a ride's features are looked up in.

    Args:
        centre: zones' centres, float32, shape (266, 2), km.
        pair: PAIR_TABLE, float32, shape (266, 266, 15).
        pickup_hour, dropoff_hour: minutes and pace, as ratios to the usual, float32, shape
            (266, 72, 2).
        city_hour: the same for the whole city, float32, shape (72, 2).
        minutes_of_miles: the usual minutes of a distance anywhere, NaN for an unknown one.
        atlas: what earlier years say; None for a window that must not know it.
    Raises:
        ValueError: a value that formulas divide by is 0.
    """

    centre: np.ndarray
    pair: np.ndarray
    pickup_hour: np.ndarray
    dropoff_hour: np.ndarray
    city_hour: np.ndarray
    minutes_of_miles: Curve
    atlas: Atlas | None = None

    def __post_init__(self) -> None:
        looked_up = {"pair": self.pair, "city": self.city_hour}
        for group, table in looked_up.items():
            for i, name in enumerate(LOOK_UPS[group]):
                if name in DIVISORS and not table[..., i].all():
                    raise ValueError(f"{name} is 0 somewhere, and formulas divide by it")

    @property
    def trips(self) -> np.ndarray:
        """Past trips of each pair, shape (266, 266): what an answer rests on."""
        return self.pair[:, :, PAIR_TABLE.index("trips_pair")]


class _LookUps:
    """What rides look up in the tables, for one ride or for many.

    Args:
        rows_of: turns a table into its look-up, from a row's position to the row's values.
        curve: turns a curve into its look-up.
    """

    def __init__(
        self,
        tables: FeatureTables,
        rows_of: Callable[[np.ndarray], Callable[[Any], Any]],
        curve: Callable[[Curve], Callable[[Any], Any]],
    ) -> None:
        atlas = tables.atlas
        self._atlas_pair: Callable[[Any], Any]
        self._atlas_minutes_of_miles: Callable[[Any], Any]
        self._centre, self._city = rows_of(tables.centre), rows_of(tables.city_hour)
        self._pair = rows_of(tables.pair)
        self._pickup = rows_of(_beside(tables.pickup_hour, atlas.pickup_hour if atlas else None))
        self._dropoff = rows_of(_beside(tables.dropoff_hour, atlas.dropoff_hour if atlas else None))
        self._minutes_of_miles = curve(tables.minutes_of_miles)
        if atlas is None:
            unknown = (math.nan,) * len(ATLAS_COLUMNS)
            self._atlas_pair = lambda at: unknown
            self._atlas_minutes_of_miles = lambda miles: math.nan
        else:
            self._atlas_pair = rows_of(atlas.pair)
            self._atlas_minutes_of_miles = curve(atlas.minutes_of_miles)

    def features(
        self, pickup: Any, dropoff: Any, when: tuple[Any, Any], near: tuple[Any, Any], miles: Any
    ) -> tuple[Any, ...]:
        """Return DISTANCE_FEATURES, or FEATURES where miles is None.

        Args: numbers of one ride, or columns of shape (n,).
            pickup, dropoff: zones, int or int64.
            when: as `read_clock` or `read_clocks` gives it.
            near: as `near_cell` or `near_cells` gives it.
            miles: NaN where not known.
        """
        clock, cell = when
        cells = (cell, *near)
        pair = pickup * ZONES + dropoff
        formulas: Callable[..., tuple[Any, ...]] = _without_distance
        distance: tuple[Any, Any, Any] | None = None
        if miles is not None:
            formulas = _with_distance
            distance = miles, self._minutes_of_miles(miles), self._atlas_minutes_of_miles(miles)
        return formulas(
            clock=clock,
            pickup_centre=self._centre(pickup),
            dropoff_centre=self._centre(dropoff),
            pair=self._pair(pair),
            city=self._at_time(self._city, 0, cells),
            pickup=self._at_time(self._pickup, pickup * CELLS, cells),
            dropoff=self._at_time(self._dropoff, dropoff * CELLS, cells),
            atlas_pair=self._atlas_pair(pair),
            distance=distance,
        )

    def _at_time(
        self, look_up: Callable[[Any], Any], first: Any, cells: tuple[Any, Any, Any]
    ) -> Any:
        """Return the values of a place in two cells, and how much the second counts.

        Args:
            first: position of the place's first cell.
            cells: its own, the one next in time, and how much of that.
        """
        own, other, share = cells
        return look_up(first + own), look_up(first + other), share


def _beside(hours: np.ndarray, atlas_hours: np.ndarray | None) -> np.ndarray:
    """Return one table of both, so that a ride looks up once; NaN where there is no atlas."""
    return np.concatenate(
        [hours, np.full_like(hours, np.nan) if atlas_hours is None else atlas_hours], axis=2
    )


# --- Many rides -------------------------------------------------------------------------

BLOCK_ROWS = 4096  # rides looked up together: their columns stay in the cache; measured


def transform(rides: Rides, tables: FeatureTables, with_distance: bool) -> np.ndarray:
    """Return float32 features, shape (n, 39) with the asked distance or (n, 28) without.

    The first 28 are the same in both.
    """
    look_ups = _LookUps(tables, _columns_of, lambda curve: curve.at)
    out = np.empty((len(rides), len(DISTANCE_FEATURES if with_distance else FEATURES)), "float32")
    for start in range(0, len(rides), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        some = rides.take(rows)
        pickup, dropoff = some.PULocationID.astype("int64"), some.DOLocationID.astype("int64")
        miles = known_distance(some.trip_distance) if with_distance else None
        columns = look_ups.features(
            pickup, dropoff, read_clocks(some.pickup_at), near_cells(some.pickup_at), miles
        )
        for place, column in zip(out[rows].T, columns, strict=True):
            place[:] = column
    return out


def _columns_of(table: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a table's look-up of n rows, as float64 columns of shape (k, n)."""
    rows = table.reshape(-1, table.shape[-1])
    return lambda at: rows.take(at, axis=0).T.astype("float64", order="C")


def known_distance(trip_distance: np.ndarray) -> np.ndarray:
    """Return distances as float64 miles, with NaN where they cannot be true."""
    miles = np.asarray(trip_distance, dtype="float32").astype("float64")
    return np.where(can_be_miles(miles), miles, np.nan)


# --- One ride ---------------------------------------------------------------------------


class RideFeatures:
    """The features of one ride, from the same tables without arrays: a few microseconds."""

    def __init__(self, tables: FeatureTables) -> None:
        self._look_ups = _LookUps(tables, _row_of, lambda curve: RideCurve(curve).at)

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
            miles: as `known_miles` gives them, or NaN; None for the features without distance.
            conditions: of the hour, put last (see `extra_features.py`), k of them.
        Returns:
            float32, shape (39 + k,), or (28 + k,) without distance.
        """
        features = self._look_ups.features(
            pickup, dropoff, read_clock(pickup_at), near_cell(pickup_at), miles
        )
        return np.array(features + tuple(conditions), dtype=np.float32)


def _row_of(table: np.ndarray) -> Callable[[int], tuple[float, ...]]:
    """Return a table's look-up of one row, as Python's floats from the table's own memory."""
    memory = np.ascontiguousarray(table).data.cast("B")
    row = Struct(f"{table.shape[-1]}{table.dtype.char}")
    read, size = row.unpack_from, row.size
    return lambda at: read(memory, at * size)


def known_miles(miles: float | None) -> float | None:
    """Return `known_distance` of one ride: None where it is not given or cannot be true."""
    if miles is None:
        return None
    miles = float(np.float32(miles))  # as precise as the columns of rides hold it
    return miles if can_be_miles(miles) else None
