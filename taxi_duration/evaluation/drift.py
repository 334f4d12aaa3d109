"""Drift: how far today's rides and answers are from those of the training months, with a size.

A p-value fires on every large month; a size does not. Each measure has a unit, and two
bounds set from real months that were quiet (`drift_settings.json`, with reasons).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from taxi_duration.domain.geometry import zone_geometry
from taxi_duration.domain.levels import LEVELS
from taxi_duration.domain.pickup_calendar import window_days
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.zones import UNKNOWN_ZONE, zone_table
from taxi_duration.model.features import known_distance

BINS = 10  # of a number, each with a tenth of the reference
TOP_ZONES = 20  # the busiest zones of the reference have a bin each, the rest share one
SMALLEST_SHARE = 1e-4  # of an empty bin, so that one ride more or less does not decide
MIN_ROWS = 500  # with fewer, even what is left of a PSI's noise passes the bounds
MIN_DAYS = 7  # a Friday and a Saturday are not a week that drifted


class Bounds(NamedTuple):
    """From which value on a measure is watched, and from which on it is an alarm."""

    watch: float
    alarm: float


class Drift(NamedTuple):
    """One measured distance from the reference.

    `measure` is `psi` (no unit), `shift` (Wasserstein distance in `unit`), `share` (change of
    a share) or `ratio`; `level` is ok, watch or alarm.
    """

    feature: str
    measure: str
    value: float
    unit: str
    level: str
    watch: float
    alarm: float

    @property
    def text(self) -> str:
        """The finding in words, with its bounds."""
        return (
            f"{self.feature} {self.measure} {self.value:.3g}{' ' * bool(self.unit)}{self.unit} "
            f"(watch from {self.watch:g}, alarm from {self.alarm:g})"
        )


class Sample(NamedTuple):
    """Rides with what was answered and, where known, what came true.

    `predicted` and `actual` are minutes; None where there are none. The rides may be one in
    `every` of all. Of a reference, `predicted` may belong to other rides.
    """

    rides: Rides
    predicted: np.ndarray | None = None
    actual: np.ndarray | None = None
    every: int = 1

    def trips_a_day(self) -> float:
        """Return the trips of a usual day: the median over the days that have any."""
        days, trips = np.unique(self.rides.pickup_at.astype("datetime64[D]"), return_counts=True)
        ridden = np.isin(days, window_days(self.rides.pickup_at))
        return float(np.median(trips[ridden])) * self.every


# Wasserstein distances are in these units.
UNITS = {
    "hour": "hours",
    "trip_distance": "miles",
    "straight_distance": "km",
    "prediction": "minutes",
    "duration": "minutes",
}


@cache
def drift_bounds() -> dict[str, Bounds]:
    """Return the bounds by `feature.measure`, as stored with the package."""
    content = json.loads((files(__package__) / "drift_settings.json").read_text())
    return {name: Bounds(entry["watch"], entry["alarm"]) for name, entry in content.items()}


def measure_drift(
    reference: Sample,
    current: Sample,
    whole_months: bool = True,
    bounds: Mapping[str, Bounds] | None = None,
) -> list[Drift]:
    """Return every measure of the current rides against the reference.

    Args:
        reference: of the months that the model learned from.
        current: of a later month, or from the prediction log; fewer than MIN_ROWS rides or
            MIN_DAYS days give nothing, since their noise alone would pass the bounds.
        whole_months: both sides are all trips of their time, so that their number tells.
        bounds: by `feature.measure`; the package's own when None.
    """
    if min(len(reference.rides), len(current.rides)) < MIN_ROWS:
        return []
    if len(window_days(current.rides.pickup_at)) < MIN_DAYS:
        return []
    bounds = drift_bounds() if bounds is None else bounds
    found = []
    before, now = (_numbers(sample) for sample in (reference, current))
    for name in before.keys() & now.keys():
        if min(len(before[name]), len(now[name])) >= MIN_ROWS:
            found.append((name, "psi", number_psi(before[name], now[name]), ""))
            found.append((name, "shift", shift(before[name], now[name]), UNITS[name]))
    before, now = (_zones(sample.rides) for sample in (reference, current))
    found += [(name, "psi", zone_psi(before[name], now[name]), "") for name in before]
    before, now = (_shares(sample.rides) for sample in (reference, current))
    found += [(name, "share", abs(now[name] - before[name]), "") for name in before]
    if whole_months:
        volume = current.trips_a_day() / reference.trips_a_day()
        found.append(("volume", "ratio", max(volume, 1 / volume), "times"))
    order = {name: i for i, name in enumerate(bounds)}
    drifts = [_judged(*finding, bounds) for finding in found]
    return sorted(drifts, key=lambda d: order[f"{d.feature}.{d.measure}"])


def worst_level(drifts: list[Drift]) -> str:
    """Return the highest level among the findings; `ok` when there are none."""
    return LEVELS[max((LEVELS.index(drift.level) for drift in drifts), default=0)]


def psi(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the population stability index of two sets of counts, bin by bin.

    What chance alone gives on average, (bins - 1) (1 / n + 1 / m), is taken off, so that a few
    hundred rides are held to the same bounds as a month.
    """
    p, q = (np.maximum(c / c.sum(), SMALLEST_SHARE) for c in (expected, found))
    noise = (len(p) - 1) * (1 / expected.sum() + 1 / found.sum())
    return max(float(((q - p) * np.log(q / p)).sum()) - noise, 0.0)


def number_psi(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the PSI over tenths of the reference."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        for values in (reference, current)
    ]
    return psi(*counts)


def zone_psi(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the PSI over the reference's busiest zones and all others together."""
    size = len(zone_table().name)
    before, now = (np.bincount(zones, minlength=size) for zones in (reference, current))
    top = np.argsort(-before, kind="stable")[:TOP_ZONES]
    counts = [np.append(c[top], c.sum() - c[top].sum()) for c in (before, now)]
    return psi(*counts)


def shift(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the Wasserstein distance: how far a value moved on average, in its own unit."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(reference, current))


def _numbers(sample: Sample) -> dict[str, np.ndarray]:
    """Values by feature; those that are not known are left out."""
    rides = sample.rides
    minute = (rides.pickup_at - rides.pickup_at.astype("datetime64[D]")).astype("m8[m]")
    values = {
        "hour": minute.astype("int64") / 60,
        "trip_distance": known_distance(rides.trip_distance),
        "straight_distance": zone_geometry().straight_km[rides.PULocationID, rides.DOLocationID],
        "prediction": sample.predicted,
        "duration": sample.actual,
    }
    return {name: found[~np.isnan(found)] for name, found in values.items() if found is not None}


def _zones(rides: Rides) -> dict[str, np.ndarray]:
    return {"pickup_zone": rides.PULocationID, "dropoff_zone": rides.DOLocationID}


def _shares(rides: Rides) -> dict[str, float]:
    unknown = (rides.PULocationID >= UNKNOWN_ZONE) | (rides.DOLocationID >= UNKNOWN_ZONE)
    missing = np.isnan(known_distance(rides.trip_distance))
    return {"unknown_zone": float(unknown.mean()), "missing_distance": float(missing.mean())}


def _judged(
    feature: str, measure: str, value: float, unit: str, bounds: Mapping[str, Bounds]
) -> Drift:
    watch, alarm = bounds[f"{feature}.{measure}"]
    level = "alarm" if value >= alarm else "watch" if value >= watch else "ok"
    return Drift(feature, measure, value, unit, level, watch, alarm)
