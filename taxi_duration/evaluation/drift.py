"""Drift: how far today's rides and answers are from those of the training months, with a size.

A p-value fires on every large month; a size does not. Each measure has a unit, and two bounds
set from real months that were quiet (`drift_settings.json`, with reasons). One day is held to
wider bounds (`day_drift_settings.json`): a holiday or a storm is no other city.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from taxi_duration.domain.findings import Bound, Drift, level_of, read_bounds
from taxi_duration.domain.geometry import zone_geometry
from taxi_duration.domain.pickup_calendar import read_clocks, window_days
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.zones import is_unknown, zone_table
from taxi_duration.model.features import known_distance

if TYPE_CHECKING:
    from taxi_duration.evaluation.error_estimate import ErrorEstimator

SETTINGS_FILE = "drift_settings.json"
DAY_SETTINGS_FILE = "day_drift_settings.json"
BINS = 10  # of a number, each with a tenth of the reference
TOP_ZONES = 20  # the busiest zones of the reference have a bin each, the rest share one
SMALLEST_SHARE = 1e-4  # of an empty bin, so that one ride more or less does not decide
MIN_ROWS = 500  # fewer find no drift but a coarse one
MIN_DAYS = 7  # a Friday and a Saturday are not a week that drifted
# Standard errors that chance adds once in about 1,000 looks: 17 measures are looked at daily.
CHANCE = 3.0
# The Wasserstein distance of two samples of one city, in units of `_spread / √n`: its mean
# (√(2/π), normal differences at each point), and what it passes once in about 1,000 looks.
SHIFT_MEAN, SHIFT_CHANCE = 0.8, 2.0
MEDIAN_ERROR = 1.25  # standard error of a median over that of a mean


class Sample(NamedTuple):
    """Rides with what was answered and, where known, what came true.

    `predicted` and `actual` are minutes; None where there are none. The rides may be one in
    `every` of all. Of a reference, `predicted` may belong to other rides, and `errors` is what
    was learned about the size of errors on rides that the model had not seen.
    """

    rides: Rides
    predicted: np.ndarray | None = None
    actual: np.ndarray | None = None
    every: int = 1
    errors: ErrorEstimator | None = None

    def trips_a_day(self) -> float:
        """Return the trips of a usual day: the median over the days that have any."""
        days, trips = np.unique(self.rides.pickup_at.astype("datetime64[D]"), return_counts=True)
        ridden = np.isin(days, window_days(self.rides.pickup_at))
        return float(np.median(trips[ridden])) * self.every


class Finding(NamedTuple):
    """A measure before it is judged; `noise` is what chance may still add to the value."""

    feature: str
    measure: str
    value: float
    noise: float
    unit: str = ""


# Wasserstein distances are in these units. `detour` is the logarithm of the asked distance over
# that between the zones: a unit's fault shows there whatever the rides.
UNITS = {
    "hour": "hours",
    "trip_distance": "miles",
    "straight_distance": "km",
    "prediction": "minutes",
    "duration": "minutes",
}


@cache
def drift_bounds(one_day: bool = False) -> dict[str, Bound]:
    """Return the bounds by `feature.measure`, as stored with the package."""
    return read_bounds(__package__, DAY_SETTINGS_FILE if one_day else SETTINGS_FILE)


def measure_drift(
    reference: Sample,
    current: Sample,
    whole_months: bool = True,
    bounds: Mapping[str, Bound] | None = None,
    one_day: bool = False,
) -> list[Drift]:
    """Return every measure of the current rides against the reference that has bounds.

    Args:
        reference: of the months that the model learned from.
        current: of a later month, or from the prediction log; fewer than MIN_ROWS rides or
            MIN_DAYS days give nothing.
        whole_months: both sides are all trips of their time, so that their number can be compared.
        bounds: by `feature.measure`; the package's own when None.
        one_day: the current rides are of a day or two: they are held to a day's bounds, and
            against the reference's rides on the same days of the week.
    """
    if min(len(reference.rides), len(current.rides)) < MIN_ROWS:
        return []
    if one_day:
        reference = like_days(reference, current.rides.pickup_at)
    if len(reference.rides) < MIN_ROWS:
        return []
    if not one_day and len(window_days(current.rides.pickup_at)) < MIN_DAYS:
        return []
    bounds = drift_bounds(one_day) if bounds is None else bounds
    found = [*_number_drifts(reference, current), *_ride_drifts(reference.rides, current.rides)]
    if whole_months:
        volume = current.trips_a_day() / reference.trips_a_day()
        value = max(volume, 1 / volume)
        counts = len(reference.rides), len(current.rides)
        noise = CHANCE * MEDIAN_ERROR * value * _difference_error(*counts)
        found.append(Finding("volume", "ratio", value, noise, "times"))
    drifts = {f"{f.feature}.{f.measure}": f for f in found}
    return [_judged(drifts[name], bounds[name]) for name in bounds if name in drifts]


def like_days(reference: Sample, pickup_at: np.ndarray) -> Sample:
    """Return the reference's rides with the mix of working days, Saturdays and Sundays of others.

    Answers that may belong to other rides stay as they are.
    """
    kind, wanted = (read_clocks(at)[1] // 24 for at in (reference.rides.pickup_at, pickup_at))
    share = np.bincount(wanted, minlength=3) / len(wanted)
    there = np.bincount(kind, minlength=3)
    size = min(there[k] / share[k] for k in np.flatnonzero(share))
    parts = []
    for k in np.flatnonzero(share):
        rows = np.flatnonzero(kind == k)
        parts.append(rows[np.linspace(0, len(rows) - 1, int(size * share[k])).astype("int64")])
    kept = np.concatenate(parts)
    actual = None if reference.actual is None else reference.actual[kept]
    return reference._replace(rides=reference.rides.take(kept), actual=actual)


# --- measures --------------------------------------------------------------------------------


def psi(expected: np.ndarray, found: np.ndarray, subset: bool = False) -> float:
    """Return the population stability index of two sets of counts, bin by bin.

    What chance alone gives on average, (bins - 1) (1 / n + 1 / m), is taken off, so that a few
    hundred rides are held to the same bounds as a month.

    Args:
        subset: `found` are some of `expected`; they then differ by less, 1 / m - 1 / n.
    """
    p, q = (np.maximum(c / c.sum(), SMALLEST_SHARE) for c in (expected, found))
    noise = (len(p) - 1) * psi_unit(expected.sum(), found.sum(), subset)
    return max(float(((q - p) * np.log(q / p)).sum()) - noise, 0.0)


def psi_unit(n: int, m: int, subset: bool = False) -> float:
    """Return what chance adds to a PSI of n and m rides for each degree of freedom."""
    return 1 / m - 1 / n if subset else 1 / n + 1 / m


def psi_chance(bins: int, n: int, m: int, subset: bool = False) -> float:
    """Return what chance may still add to such a PSI: it is a chi-square in those units."""
    return CHANCE * float(np.sqrt(2 * (bins - 1))) * psi_unit(n, m, subset)


def number_psi(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the PSI over tenths of the reference."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    counts = [
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        for values in (reference, current)
    ]
    return psi(counts[0], counts[1])


def zone_psi(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the PSI over the reference's busiest zones and all others together."""
    size = len(zone_table().name)
    before, now = (np.bincount(zones, minlength=size) for zones in (reference, current))
    top = np.argsort(-before, kind="stable")[:TOP_ZONES]
    counts = [np.append(c[top], c.sum() - c[top].sum()) for c in (before, now)]
    return psi(counts[0], counts[1])


def shift(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the Wasserstein distance: how far a value moved on average, in its own unit."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(reference, current))


def _number_drifts(reference: Sample, current: Sample) -> Iterator[Finding]:
    before, now = feature_values(reference), feature_values(current)
    for name in before.keys() & now.keys():
        old, new = before[name], now[name]
        if min(len(old), len(new)) < MIN_ROWS:
            continue
        noise = psi_chance(BINS, len(old), len(new))
        yield Finding(name, "psi", number_psi(old, new), noise)
        if name in UNITS:
            unit = _spread(old) * _difference_error(len(old), len(new))
            moved = _without(shift(old, new), SHIFT_MEAN * unit)
            yield Finding(name, "shift", moved, SHIFT_CHANCE * unit, UNITS[name])


def _ride_drifts(before: Rides, now: Rides) -> Iterator[Finding]:
    old_zones, new_zones = _zones(before), _zones(now)
    for name, zones in old_zones.items():
        noise = psi_chance(TOP_ZONES + 1, len(before), len(now))
        yield Finding(name, "psi", zone_psi(zones, new_zones[name]), noise)
    recent = _shares(now)
    for name, usual in _shares(before).items():
        pooled = (usual * len(before) + recent[name] * len(now)) / (len(before) + len(now))
        unit = float(np.sqrt(pooled * (1 - pooled))) * _difference_error(len(before), len(now))
        yield Finding(name, "share", _without(abs(recent[name] - usual), unit), CHANCE * unit)


def _difference_error(n: int, m: int) -> float:
    """Standard error of a difference of two means, of values that spread by 1."""
    return float(np.sqrt(1 / n + 1 / m))


def _without(value: float, chance: float) -> float:
    """A distance without what chance gives on average; independent errors add by squares."""
    return float(np.sqrt(max(value**2 - chance**2, 0.0)))


def _spread(values: np.ndarray) -> float:
    """∫ √(F (1 - F)): how far apart samples of these values lie, times the root of their size."""
    ordered = np.sort(values)
    below = np.arange(1, len(ordered)) / len(ordered)
    return float((np.diff(ordered) * np.sqrt(below * (1 - below))).sum())


def feature_values(sample: Sample) -> dict[str, np.ndarray]:
    """Return the numbers of each feature; those that are not known are left out."""
    rides = sample.rides
    minute = (rides.pickup_at - rides.pickup_at.astype("datetime64[D]")).astype("m8[m]")
    miles = known_distance(rides.trip_distance)
    straight = zone_geometry().straight_km[rides.PULocationID, rides.DOLocationID]
    values = {
        "hour": minute.astype("int64") / 60,
        "trip_distance": miles,
        "straight_distance": straight,
        "detour": np.log(miles / straight),
        "prediction": sample.predicted,
        "duration": sample.actual,
    }
    return {name: found[~np.isnan(found)] for name, found in values.items() if found is not None}


def _zones(rides: Rides) -> dict[str, np.ndarray]:
    return {"pickup_zone": rides.PULocationID, "dropoff_zone": rides.DOLocationID}


def _shares(rides: Rides) -> dict[str, float]:
    unknown = is_unknown(rides.PULocationID, rides.DOLocationID)
    missing = np.isnan(known_distance(rides.trip_distance))
    return {"unknown_zone": float(unknown.mean()), "missing_distance": float(missing.mean())}


def _judged(found: Finding, bound: Bound) -> Drift:
    level = level_of(found.value - found.noise, bound.watch, bound.alarm)
    return Drift(
        found.feature, found.measure, float(found.value), found.unit, level, bound.watch,
        bound.alarm, float(found.noise),
    )  # fmt: skip
