"""What drives a finding: segment and feature in which most of an error lies, what a drift moved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from taxi_duration.domain.findings import Drift
from taxi_duration.domain.geometry import zone_geometry
from taxi_duration.domain.pickup_calendar import hours_of_day
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.zones import zone_table
from taxi_duration.evaluation.drift import Sample, feature_values
from taxi_duration.evaluation.metrics import segment_masks
from taxi_duration.model.features import known_distance

# Standard errors beyond an even spread: a few hundred groups are looked at, and chance alone
# passes this in one of 1,000 looks at them all.
MIN_SIGMAS = 4.5
HOURS = 3  # of the day in one group
DETOURS = (0.25, 0.5, 0.75, 0.9)  # quantiles of the asked distance over that between the zones


class Driver(NamedTuple):
    """A group of rides with more than its share of the excess error.

    `excess` is how much farther off its rides are than expected, minutes a ride.
    """

    name: str
    share: float
    excess: float

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.name} ({self.share:.0%} of the rides) {self.excess:+.1f} min"


def find_drivers(answered: pd.DataFrame, expected: np.ndarray) -> list[Driver]:
    """Return the segment and the feature that stand out most; none when the error is even.

    Args:
        answered: rides with `true_duration`, as `log_frame`, shape (n, k).
        expected: absolute error of each, minutes, shape (n,).
    """
    error = np.abs((answered["duration"] - answered["true_duration"]).to_numpy())
    excess = error - expected
    rides = Rides.from_frame(answered)
    segments = segment_masks(rides, answered["support"].to_numpy())
    found = (
        _strongest(excess, ((name.replace("_", " "), mask) for name, mask in segments.items())),
        _strongest(excess, _feature_groups(rides)),
    )
    return [driver for driver in found if driver is not None]


def _strongest(excess: np.ndarray, groups: Iterator[tuple[str, np.ndarray]]) -> Driver | None:
    best, most = None, MIN_SIGMAS
    size, total, spread = len(excess), float(excess.sum()), float(excess.std())
    for name, mask in groups:
        n = np.count_nonzero(mask)
        if not 0 < n < size or spread == 0:
            continue
        inside = float(excess[mask].mean())
        outside = (total - inside * n) / (size - n)
        sigmas = (inside - outside) / (spread * math.sqrt(1 / n + 1 / (size - n)))
        if sigmas > most:
            best, most = Driver(name, n / size, inside), sigmas
    return best


def _feature_groups(rides: Rides) -> Iterator[tuple[str, np.ndarray]]:
    hour = hours_of_day(rides.pickup_at)
    for start in range(0, 24, HOURS):
        yield f"hours {start} to {start + HOURS}", hour // HOURS == start // HOURS
    for side, zones in (("pickup", rides.PULocationID), ("drop-off", rides.DOLocationID)):
        for zone in np.unique(zones):
            yield f"{side} zone {zone} {zone_table().name[zone]}", zones == zone
    miles = known_distance(rides.trip_distance)
    yield "no distance", np.isnan(miles)
    straight = zone_geometry().straight_km[rides.PULocationID, rides.DOLocationID]
    detour = miles / straight
    if not np.isnan(detour).all():
        for share, bound in zip(DETOURS, np.nanquantile(detour, DETOURS), strict=True):
            yield f"trip_distance long for the zones (top {1 - share:.0%})", detour > bound
            yield f"trip_distance short for the zones (lowest {share:.0%})", detour <= bound


def describe_drift(drift: Drift, reference: Sample, current: Sample) -> str:
    """Say what is different about a feature, and by how many minutes answers moved."""
    words = []
    side = {"pickup_zone": "PULocationID", "dropoff_zone": "DOLocationID"}.get(drift.feature)
    if side is not None:
        words.append(_moved_zone(getattr(reference.rides, side), getattr(current.rides, side)))
    before, now = (feature_values(sample).get(drift.feature) for sample in (reference, current))
    if before is not None and now is not None and len(before) and len(now):
        # A detour is a logarithm; as a factor it says whether the unit is another one.
        shown = (np.exp(np.median(x)) for x in (before, now)) if drift.feature == "detour" else (
            np.median(x) for x in (before, now))  # fmt: skip
        words.append("its middle went from {:.3g} to {:.3g}".format(*shown))
    if reference.predicted is not None and current.predicted is not None:
        moved = float(np.mean(current.predicted) - np.mean(reference.predicted))
        words.append(f"answers are {abs(moved):.1f} min {'longer' if moved > 0 else 'shorter'}")
    return ", ".join(words)


def _moved_zone(before: np.ndarray, now: np.ndarray) -> str:
    """The zone whose share of the rides changed most."""
    zones = zone_table()
    size = len(zones.name)
    old, new = (np.bincount(z, minlength=size) / len(z) for z in (before, now))
    zone = int(np.argmax(np.abs(new - old)))
    return f"zone {zone} {zones.name[zone]} went from {old[zone]:.1%} to {new[zone]:.1%}"
