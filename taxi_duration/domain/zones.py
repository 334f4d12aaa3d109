"""Taxi zones: borough, name, centroid and area, as arrays indexed by LocationID."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from taxi_duration.domain.limits import LAST_ZONE, UNKNOWN_ZONE

AIRPORT_ZONES = (1, 132, 138)  # Newark, JFK, LaGuardia
OUTER_BOROUGHS = ("Bronx", "Brooklyn", "Queens", "Staten Island")


class ZoneTable(NamedTuple):
    """Arrays of length 266, indexed by LocationID (row 0 is unused).

    Longitude and latitude are degrees, area is km²; NaN for 0, 264 and 265.
    Source: TLC taxi zone polygons (centroids) and zone lookup table (boroughs, names).
    """

    borough: np.ndarray
    name: np.ndarray
    longitude: np.ndarray
    latitude: np.ndarray
    area_km2: np.ndarray


@cache
def zone_table() -> ZoneTable:
    """Return the built-in zone table."""
    borough = np.full(LAST_ZONE + 1, "Unknown", dtype="U14")
    name = np.full(LAST_ZONE + 1, "Unknown", dtype="U64")
    figures = np.full((3, LAST_ZONE + 1), np.nan)
    with (files(__package__) / "zones.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            zone = int(row["id"])
            borough[zone], name[zone] = row["borough"], row["name"]
            if row["longitude"]:
                figures[:, zone] = [float(row[c]) for c in ("longitude", "latitude", "area_km2")]
    return ZoneTable(borough, name, *figures)


class ZoneGroups(NamedTuple):
    """Which zones lie there, bool of shape (266,) each."""

    airport: np.ndarray
    manhattan: np.ndarray
    outer: np.ndarray


@cache
def zone_groups() -> ZoneGroups:
    """Return the airports, Manhattan, and the other boroughs."""
    borough = zone_table().borough
    airport = np.isin(np.arange(len(borough)), AIRPORT_ZONES)
    return ZoneGroups(airport, borough == "Manhattan", np.isin(borough, OUTER_BOROUGHS))


def is_unknown(pickup: np.ndarray, dropoff: np.ndarray) -> np.ndarray:
    """True for rides of which a zone is not known or not in the city, shape (n,)."""
    unknown: np.ndarray = (pickup >= UNKNOWN_ZONE) | (dropoff >= UNKNOWN_ZONE)
    return unknown
