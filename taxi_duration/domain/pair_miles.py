"""Which distances a ride between two zones can have, from the zones' outlines.

No ride is shorter than the straight line between the nearest points of its zones. Very much longer
ones are real (tours, errands, waiting taxis), and the meter says more of them than the zones do: on
green taxis of 2021-02 to 2021-12 an answer with the distance was closer than one without up to 30
miles beyond the farthest points of the zones (RMSE 14.8 against 24.8 minutes from 25 to 30 miles),
and farther off above. Below the nearest points it was farther off at once (6.7 against 5.6 in the
first twentieth of a mile). On 26 months, 2020-04 to 2022-06, 5,015 of 1,925,937 rides are shorter
than that (RMSE 8.2 with the distance, 7.3 without) and 93 longer (19.4 and 18.5); the error of all
rides is smaller by the rule in 22 of the months, and larger by at most 0.11 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np

from taxi_duration.domain.geometry import KM_OF_LATITUDE, KM_OF_LONGITUDE, KM_OF_MILE, ZONES
from taxi_duration.domain.limits import MAX_TRIP_MILES
from taxi_duration.domain.zone_shapes import zone_shapes

DETOUR_MILES = 30.0
# Stored are whole hundredths of a mile, rounded away from what is refused.
HUNDREDTHS = 100
FILE = "pair_miles.npz"


@cache
def pair_miles() -> tuple[np.ndarray, np.ndarray]:
    """Return the shortest and the longest distance of each pair of zones.

    Returns:
        Miles, float32, each of shape (266, 266); 0 and MAX_TRIP_MILES where an outline is not
        known.
    """
    with (files(__package__) / FILE).open("rb") as file, np.load(file) as stored:
        nearest, farthest = stored["nearest"], stored["farthest"]
    is_known = farthest > 0
    longest = np.where(is_known, farthest / HUNDREDTHS + DETOUR_MILES, MAX_TRIP_MILES)
    return (nearest / HUNDREDTHS).astype("float32"), longest.clip(max=MAX_TRIP_MILES).astype("f4")


def can_be(miles: Any, shortest: Any, longest: Any) -> Any:
    """Say whether a distance can be a ride's; numbers or arrays, False for NaN.

    Args:
        shortest, longest: of the ride's pair, see `pair_miles`.
    """
    return (miles > 0) & (miles >= shortest) & (miles <= longest)


def write_pairs(path: Path) -> None:
    """Write the file anew; needed when the outlines change.

    `python -c "from taxi_duration.domain.pair_miles import *; write_pairs(Path(FILE))"`
    """
    found = measure_pairs(list(zone_shapes()))
    np.savez_compressed(path, nearest=found["nearest"], farthest=found["farthest"])


def measure_pairs(zones: Sequence[int]) -> dict[str, np.ndarray]:
    """Return what the file holds of these zones, from their outlines.

    Returns:
        Hundredths of miles, uint16, of shape (266, 266), 0 for other zones.
    """
    starts, ends = _edges(zones)
    nearest, farthest = np.zeros((2, ZONES, ZONES))
    for one, other in combinations_with_replacement(zones, 2):
        both = [one, other], [other, one]
        apart = starts[one][:, None] - starts[other]
        farthest[both] = np.hypot(apart[..., 0], apart[..., 1]).max()
        if one != other:
            there = _to_edges(starts[one], starts[other], ends[other])
            back = _to_edges(starts[other], starts[one], ends[one])
            nearest[both] = min(there, back)
    return {
        "nearest": np.floor(nearest / KM_OF_MILE * HUNDREDTHS).astype("uint16"),
        "farthest": np.ceil(farthest / KM_OF_MILE * HUNDREDTHS).astype("uint16"),
    }


def _edges(zones: Sequence[int]) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Return where the edges of each zone's outlines start and end, km, shape (n, 2) each."""
    scale = np.array([KM_OF_LONGITUDE, KM_OF_LATITUDE])
    shapes = {zone: [ring * scale for ring in zone_shapes()[zone]] for zone in zones}
    return (
        {zone: np.concatenate(rings) for zone, rings in shapes.items()},
        {z: np.concatenate([np.roll(r, -1, axis=0) for r in rings]) for z, rings in shapes.items()},
    )


def _to_edges(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> float:
    """Return the smallest distance from points, (n, 2), to edges, (m, 2) each."""
    along = ends - starts
    squared = np.maximum((along**2).sum(axis=1), 1e-12)  # an edge may be a point
    from_start = points[:, None] - starts
    share = ((from_start * along).sum(axis=2) / squared).clip(0, 1)
    apart = from_start - share[..., None] * along
    return float(np.hypot(apart[..., 0], apart[..., 1]).min())
