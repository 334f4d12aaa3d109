"""Where zones lie: distances, directions and neighbourhoods, from centroids and areas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from taxi_duration.domain.limits import LAST_ZONE
from taxi_duration.domain.zones import zone_table

ZONES = LAST_ZONE + 1  # LocationID 0-265; 0 is unused

# A flat map around Manhattan: over the city's 50 km it is wrong by less than 0.5 %.
CENTRE_LONGITUDE, CENTRE_LATITUDE = -73.95, 40.73  # degrees; where x and y are 0
KM_OF_LONGITUDE, KM_OF_LATITUDE = 84.39, 111.2  # km in a degree, at 40.7 degrees north
KM_OF_MILE = 1.609344
# Two random points of one disc are about 0.9 radii apart: no distance inside a zone is 0.
INNER_RADII = 0.9
# How far a zone's trips speak for others: km, and radii of the zones on top; chosen so that
# `near` is the zones next door and `wide` a part of the city.
NEAR_KM, NEAR_RADII = 0.3, 0.8
WIDE_KM, WIDE_RADII = 1.0, 2.0
SMALLEST_WEIGHT = 0.01  # smaller ones are 0: hundreds of far zones would add up to a near one


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
    x = (longitude - CENTRE_LONGITUDE) * KM_OF_LONGITUDE
    y = (latitude - CENTRE_LATITUDE) * KM_OF_LATITUDE
    radius = np.sqrt(area_km2 / np.pi)
    east, north = x[None, :] - x[:, None], y[None, :] - y[:, None]
    centres = np.hypot(east, north)
    straight = np.maximum(centres, INNER_RADII / 2 * (radius[:, None] + radius[None, :]))
    return Geometry(
        centre_km=np.column_stack([x, y]),
        straight_km=straight,
        east_km=east,
        north_km=north,
        near=_neighbourhood(centres, radius, NEAR_KM, NEAR_RADII),
        wide=_neighbourhood(centres, radius, WIDE_KM, WIDE_RADII),
        borough=np.unique(zones.borough, return_inverse=True)[1],
    )


def _neighbourhood(
    centres_km: np.ndarray, radius_km: np.ndarray, reach_km: float, reach_radii: float
) -> np.ndarray:
    """Return Gaussian weights between zones that reach further where zones are large."""
    reach = reach_km + reach_radii * (radius_km[:, None] + radius_km[None, :]) / 2
    weights: np.ndarray = np.nan_to_num(np.exp(-0.5 * (centres_km / reach) ** 2))
    weights[weights < SMALLEST_WEIGHT] = 0.0
    np.fill_diagonal(weights, 1.0)  # a zone without a centroid knows only itself
    return weights
