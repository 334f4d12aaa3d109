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
from typing import Any

import numpy as np

from taxi_duration.model.curves import Curve

ATLAS_FILE, SOURCES_FILE = "atlas.npz", "atlas.json"
# Columns of the pair table, by the name that formulas give them, and what they are in the
# feature tables of the months that the atlas is made from.
ATLAS_COLUMNS = {
    "atlas_minutes": "minutes_pair",
    "atlas_miles": "miles_pair",
    "atlas_pace": "pace_pair",
    "atlas_line_start": "line_start",
    "atlas_line_slope": "line_slope",
}


@dataclass(frozen=True)
class Atlas:
    """Usual minutes, miles and pace of routes and hours.

    Args:
        pair: ATLAS_COLUMNS, float32, shape (266, 266, 5).
        pickup_hour: ratio to the usual, of minutes and of pace, float32, shape (266, 72, 2).
        dropoff_hour: the same, over the whole city's ratio.
        minutes_of_miles: the usual minutes of a distance anywhere.
    """

    pair: np.ndarray
    pickup_hour: np.ndarray
    dropoff_hour: np.ndarray
    minutes_of_miles: Curve


def atlas_for(first_day: np.datetime64) -> Atlas | None:
    """Return the atlas for a window that begins on this day, None when that is too early."""
    return _load() if first_day >= np.datetime64(atlas_sources()["known_from"]) else None


@cache
def atlas_sources() -> dict[str, Any]:
    """Return what the atlas was made from: `known_from`, `sha256`, `months`."""
    sources: dict[str, Any] = json.loads((files(__package__) / SOURCES_FILE).read_text())
    return sources


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
