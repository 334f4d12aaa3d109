"""A month in a few hundred numbers: what it is compared by with other months."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from msgspec import Struct

from taxi_duration.data.health.clocks import HOUR_MINUTES, Clocks, accepted_seconds, top_two
from taxi_duration.data.health.finding import ALL
from taxi_duration.data.health.marks import Mark, Marks, even_rows
from taxi_duration.domain.geometry import KM_OF_MILE, ZONES, zone_geometry
from taxi_duration.domain.limits import (
    LONGEST_MINUTES,
    MAX_TRIP_MILES,
    SHORTEST_MINUTES,
)
from taxi_duration.domain.zones import is_unknown

# Rows that are looked at, evenly spread: a share is then known to 1 %, in a few milliseconds.
ALL_ROWS, VENDOR_ROWS = 10_000, 5_000
HOUR_ROWS = 50_000  # for the hours of a month, of which there are 744
MOST_VENDORS = 20  # a manifest keeps a few thousand numbers of each
FEW = 200  # rides, and fewer show no correlation
WEEK_HOURS = 168


class VendorRows(NamedTuple):
    """A vendor, the places of its rows to look at, and how many it has in `total`."""

    name: str
    rows: np.ndarray
    total: int


class Group(Struct):
    """What is known of one vendor's rows, or of all.

    Args:
        rows: in the month; `seen` of them were looked at.
        shares: by name, 0-1, of the rows seen.
        medians: minutes, miles, and miles over the straight line's; NaN is left out.
        minutes: by clock, how many rows show each minute of the hour.
        week: pickups by hour of the week, Monday 0:00 first.
        zones: by column, how many rows name each zone 0-265.
    """

    rows: int
    seen: int
    shares: dict[str, float]
    medians: dict[str, float]
    minutes: dict[str, list[int]]
    week: list[int]
    zones: dict[str, list[int]]


class Profile(Struct):
    """A month.

    Args:
        groups: by vendor, when there are several; ALL is one of them.
        vendors: how many rows each has.
        types: by column, how many of the rows looked at have each value.
        hours: how many of the pickups looked at fall into each hour of the month.
        whose: the service that names its columns so; None when several may.
    """

    groups: dict[str, Group]
    vendors: dict[str, int]
    types: dict[str, dict[str, int]]
    hours: list[int]
    whose: str | None = None


def make_profile(
    trips: pd.DataFrame,
    marks: Marks,
    first_day: np.datetime64 | None,
    vendors: Sequence[VendorRows],
    whose: str | None = None,
) -> Profile:
    """Return the profile of a month's rows.

    Args:
        trips: all rows of the file, as `trips.find_reasons` takes them.
        marks: as `read_marks`.
        first_day: of the month, None when it is not known: no hour of it is counted then.
        vendors: as `vendor_rows`; the largest alone are kept, as FHV has hundreds.
        whose: as `Profile`.
    """
    every = even_rows(len(trips), ALL_ROWS)
    groups = {ALL: _group(trips, every, len(trips))}
    for name, rows, total in sorted(vendors, key=lambda vendor: -vendor.total)[:MOST_VENDORS]:
        if len(rows) >= FEW:
            groups[name] = _group(trips, rows, total)
    hours = _month_hours(trips["pickup_at"].to_numpy(), first_day)
    counts = marks.vendor.count() if marks.vendor else {}
    return Profile(groups, counts, marks.types, hours, whose)


def vendor_rows(vendor: Mark | None) -> Iterator[VendorRows]:
    """Yield each vendor's name, the rows of it to look at, and how many it has.

    A month of one vendor alone, or without any, has nothing to tell apart.
    """
    if vendor is None:
        return
    counts = vendor.counts
    if np.count_nonzero(counts) < 2:
        return
    # Of hundreds of small ones (FHV bases), each is found in one ordered list.
    small = np.flatnonzero((counts <= VENDOR_ROWS)[vendor.codes])
    order = small[np.argsort(vendor.codes[small], kind="stable")]
    ordered = vendor.codes[order]
    for code in np.flatnonzero(counts):
        if counts[code] > VENDOR_ROWS:
            rows = np.flatnonzero(vendor.codes == code)
            rows = rows[even_rows(len(rows), VENDOR_ROWS)]
        else:
            at = np.searchsorted(ordered, [code, code + 1])
            rows = order[at[0] : at[1]]
        yield VendorRows(vendor.names[code], rows, int(counts[code]))


def _group(trips: pd.DataFrame, rows: np.ndarray, total: int) -> Group:
    seen = {name: trips[name].to_numpy()[rows] for name in trips.columns}
    clocks = Clocks.of(seen["pickup_at"], seen["dropoff_at"])
    pickup, dropoff = clocks.minutes()
    zones = {name: seen[name] for name in ("PULocationID", "DOLocationID")}
    return Group(
        rows=total,
        seen=len(rows),
        shares=_shares(seen, clocks),
        medians=_medians(seen),
        minutes={
            "pickup_at": np.bincount(pickup, minlength=HOUR_MINUTES).tolist(),
            "dropoff_at": np.bincount(dropoff, minlength=HOUR_MINUTES).tolist(),
        },
        week=np.bincount(_week_hour(clocks.pickup), minlength=WEEK_HOURS).tolist(),
        zones={n: np.bincount(ids, minlength=ZONES).tolist() for n, ids in zones.items()},
    )


def _shares(seen: Mapping[str, np.ndarray], clocks: Clocks) -> dict[str, float]:
    minutes, miles = seen["duration"], seen["trip_distance"]
    seconds = np.bincount(clocks.pickup // 1_000_000 % 60, minlength=60)
    tops = top_two(accepted_seconds(clocks))
    known = ~np.isnan(miles)
    rows = {
        "accepted": (minutes >= SHORTEST_MINUTES) & (minutes <= LONGEST_MINUTES),
        "negative": minutes < 0,
        "no_distance": ~known,
        "unknown_zone": is_unknown(seen["PULocationID"], seen["DOLocationID"]),
    }
    shares = {name: float(found.mean()) if len(found) else 0.0 for name, found in rows.items()}
    if known.any():
        shares["zero_distance"] = float((miles[known] == 0).mean())
        shares["far"] = float((miles[known] > MAX_TRIP_MILES).mean())
    at = max(len(clocks.pickup), 1)
    shares["full_minute"] = float(seconds[0] / at)
    shares["top_second"] = float(seconds[1:].max() / max(seconds[1:].sum(), 1))
    shares["top_duration"] = float(tops[0][1] / at)
    shares["next_duration"] = float(tops[1][1] / at)
    return shares


def _medians(seen: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of rides between two zones, the longer half; a short one has its zones' size for length."""
    minutes, miles = seen["duration"], seen["trip_distance"]
    straight = zone_geometry().straight_km[seen["PULocationID"], seen["DOLocationID"]] / KM_OF_MILE
    kept = (minutes >= SHORTEST_MINUTES) & (minutes <= LONGEST_MINUTES)
    between = kept & (miles > 0) & (straight > 1)
    far = between & (miles <= MAX_TRIP_MILES)
    medians = {
        "minutes": minutes[kept],
        "miles": miles[kept & (miles > 0)],
        "detour": miles[between] / straight[between],
    }
    found = {n: float(np.median(values)) for n, values in medians.items() if len(values) >= 20}
    if far.sum() >= FEW:
        found["fit"] = _correlation(np.log(miles[far]), np.log(straight[far]))
    slow = kept & (straight > 1)
    if slow.sum() >= FEW:
        found["pace_fit"] = _correlation(np.log(minutes[slow]), np.log(straight[slow]))
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's; 0 when one of them is the same everywhere."""
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else 0.0


def _week_hour(pickup: np.ndarray) -> np.ndarray:
    """Hour of the week of int64 microseconds: 1970-01-01 was a Thursday."""
    return (pickup // 3_600_000_000 + 3 * 24) % WEEK_HOURS


def _month_hours(pickup_at: np.ndarray, first_day: np.datetime64 | None) -> list[int]:
    """How many of the pickups looked at fall into each hour of the month."""
    if first_day is None:
        return []
    month = first_day.astype("datetime64[M]")
    hours = int(((month + 1).astype("datetime64[h]") - month.astype("datetime64[h]")).astype(int))
    at = pickup_at[even_rows(len(pickup_at), HOUR_ROWS)]
    place = (at.astype("datetime64[h]") - month.astype("datetime64[h]")).astype("int64")
    inside = place[(place >= 0) & (place < hours) & ~np.isnat(at)]
    return np.bincount(inside, minlength=hours).tolist()
