"""The outlines of the taxi zones, for maps: 263 of them, enough to recognise the city by."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np

STEP_DEGREES = 1e-4  # of the stored corners, about 10 metres


def stored_shapes() -> bytes:
    """Return the file of the shapes as JSON, for maps that are drawn elsewhere.

    `borders`: a border as `[x, y, dx, dy, …]`, its first corner, then steps, all in units of
    STEP_DEGREES. `zones`: outlines by LocationID, each a list of numbers of borders, where `~i`
    is border i from its end, as in TopoJSON. A border of two zones is there once.

    Source: TLC taxi zone polygons, simplified; `taxi_duration/data/zone_borders.py` makes it.
    """
    return (files(__package__) / "zone_shapes.json").read_bytes()


@cache
def zone_shapes() -> dict[int, list[np.ndarray]]:
    """Return the outlines of zones 1-263 by LocationID; 264 and 265 are no places.

    A zone has one outline an island; each is float64 of shape (corners, 2), longitude and
    latitude in degrees, not closed. Zones 56 and 57 share one, so do 103, 104 and 105.
    """
    content = json.loads(stored_shapes())
    borders = [np.array(steps).reshape(-1, 2).cumsum(axis=0) for steps in content["borders"]]

    def outline(numbers: list[int]) -> np.ndarray:
        # A border ends where the next begins.
        parts = [borders[i][:-1] if i >= 0 else borders[~i][:0:-1] for i in numbers]
        return np.concatenate(parts) * STEP_DEGREES

    return {
        int(zone): [outline(ring) for ring in rings] for zone, rings in content["zones"].items()
    }
