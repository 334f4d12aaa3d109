"""The atlas: what earlier years say of the city, for routes a training window hardly saw.

Usual minutes and miles of every pair of zones, and how fast the hours are around each zone,
from the months listed in `atlas.json`; made by `python pipeline.py atlas`. `ATLAS` names another
folder with these two files. A window that begins before the atlas's last month ended goes
without: it must not know its own future, nor meet its own trips twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import msgspec
import numpy as np

from taxi_duration import environment
from taxi_duration.errors import SettingError
from taxi_duration.files import read_file, read_json, typed
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
SHAPES = {
    "pair": (266, 266, len(ATLAS_COLUMNS)),
    "pickup_hour": (266, 72, 2),
    "dropoff_hour": (266, 72, 2),
}


class AtlasSources(msgspec.Struct, frozen=True):
    """What an atlas was made from: `atlas.json`.

    Args:
        known_from: first day (ISO) that a window may begin on.
        sha256: of `atlas.npz`.
        months: file, digest and rows of each.
    """

    known_from: date
    sha256: str
    months: list[dict[str, Any]]


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
    """Return the atlas for a window that begins on this day, None when that is too early.

    Raises:
        SettingError: `ATLAS` names a folder that holds no atlas.
    """
    sources = atlas_sources()
    if sources is None or first_day < np.datetime64(sources["known_from"]):
        return None
    return _load(atlas_path(), sources["sha256"])


def atlas_sources() -> dict[str, Any] | None:
    """Return what the atlas was made from, as `AtlasSources`; None where there is to be none.

    Raises:
        SettingError: as `atlas_for`.
    """
    folder = environment.atlas_folder()
    if folder is None:
        return None
    try:
        sources: dict[str, Any] = read_json(folder / SOURCES_FILE)
        typed(sources, AtlasSources, SOURCES_FILE)
    except (OSError, ValueError) as error:
        raise SettingError(
            f"ATLAS is {environment.setting('ATLAS')!r}; allowed are auto, none, or a folder that "
            f"`pipeline.py atlas` wrote ({error})"
        ) from error
    return sources


def atlas_path() -> Path:
    """Return where the atlas lies that is in use, or was before `ATLAS=none`."""
    return (environment.atlas_folder() or Path(__file__).parent) / ATLAS_FILE


@lru_cache(maxsize=2)
def _load(path: Path, sha256: str) -> Atlas:
    """Load an atlas; SettingError when its SHA-256 is not the one in `atlas.json`."""
    try:
        content = read_file(path)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(f"its SHA-256 is another than {SOURCES_FILE} says")
        with np.load(BytesIO(content)) as stored:
            parts = {name: stored[name] for name in (*SHAPES, "knots", "heights")}
        _check(parts)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise SettingError(f"{path} is no atlas: {error}") from error
    pair, pickup_hour, dropoff_hour = (parts[name].astype("float32") for name in SHAPES)
    knots, heights = parts["knots"], parts["heights"]
    curve = Curve(knots, heights, np.diff(heights) / np.diff(knots), float("nan"))
    return Atlas(pair, pickup_hour, dropoff_hour, curve)


def _check(parts: dict[str, np.ndarray]) -> None:
    """Raise a ValueError unless shapes and values are those of an atlas."""
    for name, shape in {**SHAPES, "knots": (len(parts["heights"]),)}.items():
        if parts[name].shape != shape:
            raise ValueError(f"{name} has the shape {parts[name].shape}, expected is {shape}")
    if not all(np.isfinite(values).all() for values in parts.values()):
        raise ValueError("it holds values that are no numbers")
    if len(parts["knots"]) < 2 or not (np.diff(parts["knots"]) > 0).all():
        raise ValueError("the knots of its curve do not rise")
