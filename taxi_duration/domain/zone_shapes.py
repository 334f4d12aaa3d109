"""The outlines of the taxi zones, for maps: 263 of them, enough to recognise the city by."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np

STEP_DEGREES = 1e-4  # of the stored corners, about 10 metres


@cache
def zone_shapes() -> dict[int, list[np.ndarray]]:
    """Return the outlines of zones 1-263 by LocationID; 264 and 265 are no places.

    A zone has one outline an island; each is float64 of shape (corners, 2), longitude and
    latitude in degrees, not closed. Zones 56 and 57 share one, so do 103, 104 and 105.

    Source: TLC taxi zone polygons, simplified. The file keeps an outline as
    `[x, y, dx, dy, …]`: its first corner, then steps, all in units of STEP_DEGREES.
    """
    content = json.loads((files(__package__) / "zone_shapes.json").read_text(encoding="utf-8"))
    return {
        int(zone): [np.array(steps).reshape(-1, 2).cumsum(axis=0) * STEP_DEGREES for steps in rings]
        for zone, rings in content.items()
    }
