"""The atlas: what earlier years say of the city, for routes a training window hardly saw.

Usual minutes and miles of every pair of zones, and how fast the hours are around each zone,
from the months listed in `atlas.json`; made by `python pipeline.py atlas`. A window that begins
before the atlas's last month ended goes without: it must not know its own future, nor meet its
own trips twice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.pickup_calendar import CELLS
from taxi_duration.model.curves import Curve, RideCurve

if TYPE_CHECKING:
    pass

ATLAS_FILE, SOURCES_FILE = "atlas.npz", "atlas.json"
ROUTE_FEATURES = ("atlas_minutes", "atlas_miles", "atlas_expected")
DISTANCE_FEATURE = "atlas_by_line"
PAIR_COLUMNS = ("minutes_pair", "miles_pair", "pace_pair", "line_start", "line_slope")


@dataclass(frozen=True)
class Atlas:
    """Usual minutes, miles and pace of routes and hours.

    Args:
        pair: PAIR_COLUMNS (see `features.py`), float32, shape (266, 266, 5).
        pickup_hour: ratio to the usual, of minutes and of pace, float32, shape (266, 72, 2).
        dropoff_hour: the same, over the whole city's ratio.
        minutes_of_miles: the usual minutes of a distance anywhere.
    """

    pair: np.ndarray
    pickup_hour: np.ndarray
    dropoff_hour: np.ndarray
    minutes_of_miles: Curve

    def features(
        self, pickup: np.ndarray, dropoff: np.ndarray, cell: np.ndarray, miles: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """Return ROUTE_FEATURES and DISTANCE_FEATURE, each float64 of shape (n,).

        Args:
            pickup, dropoff: zones; cell: of the week (0-71); miles: NaN where not known.
        """
        minutes, usual_miles, pace, start, slope = self.pair[pickup, dropoff].T.astype("float64")
        from_minutes, from_pace = self.pickup_hour[pickup, cell].T.astype("float64")
        to_minutes, to_pace = self.dropoff_hour[dropoff, cell].T.astype("float64")
        by_miles = np.where(np.isnan(miles), np.nan, self.minutes_of_miles.at(miles))
        return (
            minutes,
            usual_miles,
            minutes * from_minutes * to_minutes,
            start + slope * (by_miles * pace * from_pace * to_pace),
        )


class RideAtlas:
    """The same for one ride, without arrays."""

    def __init__(self, atlas: Atlas) -> None:
        self._pair = memoryview(np.ascontiguousarray(atlas.pair).reshape(-1))
        self._pickup = memoryview(np.ascontiguousarray(atlas.pickup_hour).reshape(-1))
        self._dropoff = memoryview(np.ascontiguousarray(atlas.dropoff_hour).reshape(-1))
        self._minutes_of_miles = RideCurve(atlas.minutes_of_miles)

    def route(self, pickup: int, dropoff: int, cell: int) -> tuple[float, float, float]:
        """Return ROUTE_FEATURES, equal to the bit to what `Atlas.features` gives."""
        at = (pickup * ZONES + dropoff) * len(PAIR_COLUMNS)
        minutes = self._pair[at]
        i, j = (pickup * CELLS + cell) * 2, (dropoff * CELLS + cell) * 2
        return minutes, self._pair[at + 1], minutes * self._pickup[i] * self._dropoff[j]

    def by_line(self, pickup: int, dropoff: int, cell: int, miles: float) -> float:
        """Return DISTANCE_FEATURE, NaN for an unknown distance."""
        at = (pickup * ZONES + dropoff) * len(PAIR_COLUMNS)
        pace, start, slope = self._pair[at + 2 : at + 5].tolist()
        i, j = (pickup * CELLS + cell) * 2 + 1, (dropoff * CELLS + cell) * 2 + 1
        by_hour = self._minutes_of_miles.at(miles) * pace * self._pickup[i] * self._dropoff[j]
        return start + slope * by_hour


def atlas_for(first_day: np.datetime64) -> Atlas | None:
    """Return the atlas for a window that begins on this day, None when that is too early."""
    return _load() if first_day >= np.datetime64(atlas_sources()["known_from"]) else None


@cache
def atlas_sources() -> dict[str, Any]:
    """Return what the atlas was made from: `known_from`, `sha256`, `months`."""
    return json.loads((files(__package__) / SOURCES_FILE).read_text())


def atlas_path() -> Path:
    """Return where the built-in atlas lies."""
    return Path(str(files(__package__) / ATLAS_FILE))


@cache
def _load() -> Atlas:
    with atlas_path().open("rb") as file, np.load(file) as stored:
        pair, pickup_hour, dropoff_hour = (
            stored[name].astype("float32") for name in ("pair", "pickup_hour", "dropoff_hour")
        )
        knots, heights = stored["knots"], stored["heights"]
    curve = Curve(knots, heights, np.diff(heights) / np.diff(knots), float("nan"))
    return Atlas(pair, pickup_hour, dropoff_hour, curve)
