"""Which true durations count: one rule for every error, test, page and metric.

A true duration is scored (the public course's rule), outside that rule and believable, or
quarantined: it cannot be how long this ride took. No model has a part in the rule, so that a bad
one cannot pass by calling the truth wrong. The log's hourly sums (`live/hourly_sums.py`) keep what
the rule needs to know of a day. How the bounds were measured stands in docs/loop.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from taxi_duration.domain.geometry import INNER_RADII, zone_geometry
from taxi_duration.domain.limits import LONGEST_MINUTES, SHORTEST_MINUTES
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.zones import zone_table

UNKNOWN = ""  # no true duration has come
SCORED, SHORT, LONG = "scored", "short", "long"
OUTSIDE = (SHORT, LONG)
NO_TIME, WHOLE_DAY, TOO_FAST, OFF_BY_FACTOR = "no_time", "whole_day", "too_fast", "off_by_factor"
QUARANTINED = (NO_TIME, WHOLE_DAY, TOO_FAST, OFF_BY_FACTOR)

DAY_MINUTES = 1440.0
# No car in the city keeps this up over the ground between two zones. Of 2.6 million real rides of
# 1 to 60 minutes 38 were faster; by the meter's distance, whose own faults are many, 3,200.
FASTEST_KM_A_MINUTE = 160 / 60
# Of each zone's radius (as a disc of its area): a ride may begin and end at the near edges.
EDGE_RADII = 2.0
# What a ride takes in usual traffic: minutes to get going, and for each km as the crow flies;
# within a quarter of the real median at every distance up to 30 km.
START_MINUTES, MINUTES_A_KM = 4.0, 2.4


class Bounds(NamedTuple):
    """A group of at least `fewest` rides is off by a factor when more than half of them took
    less than `quick` or more than `slow` times the usual minutes.
    """

    fewest: int
    quick: float
    slow: float


# Real days, at any hour of theirs, had middle rides of 0.58 (April 2020) to 1.42 times the usual.
OF_A_DAY = Bounds(50, 0.5, 1.6)
# One sender's rides may all be from one crowded corner: real ones had 0.48 to 2.55.
OF_A_CALL = Bounds(20, 1 / 3, 3.0)


class Places(NamedTuple):
    """Where zones lie, each of shape (266,): km east and north, radius in km; NaN if nowhere."""

    east: np.ndarray
    north: np.ndarray
    radius: np.ndarray


@cache
def zone_places() -> Places:
    """Return the centres and radii by LocationID."""
    east, north = zone_geometry().centre_km.T
    return Places(east, north, np.sqrt(zone_table().area_km2 / np.pi))


class Pace(NamedTuple):
    """How rides were to usual traffic; each of shape (n,).

    `placed` lies between zones that are somewhere; only such rides can be quick or slow.
    """

    placed: np.ndarray
    quick: np.ndarray
    slow: np.ndarray


def judge_truths(
    minutes: np.ndarray, rides: Rides, received_at: np.ndarray | None = None
) -> np.ndarray:
    """Return what each true duration is: a code of this module, shape (n,).

    Args:
        minutes: true durations, NaN where none has come, shape (n,).
        rides: what was asked; the asked distance has no part, since its own faults are many.
        received_at: unix seconds, shape (n,). All feedback of one call shares it, and is one
            sender's: a call that is off by a factor goes as a whole. None when not known.
    """
    minutes = minutes.astype("float64")
    verdict = judge_calls(minutes, rides, received_at)
    day = rides.pickup_at.astype("datetime64[D]")
    return _without_groups(verdict, minutes, rides, day, OF_A_DAY)


def judge_calls(
    minutes: np.ndarray, rides: Rides, received_at: np.ndarray | None = None
) -> np.ndarray:
    """As `judge_truths`, before days are looked at as a whole."""
    verdict = _judge_alone(minutes, rides)
    if received_at is None:
        return verdict
    return _without_groups(verdict, minutes, rides, received_at, OF_A_CALL)


def pace_of(minutes: np.ndarray, rides: Rides, verdict: np.ndarray, bounds: Bounds) -> Pace:
    """Return how rides were to usual traffic; those that are off already say nothing.

    Args:
        verdict: as `judge_calls` and `judge_truths` give it.
    """
    centres, radii = _between(rides)
    usual = START_MINUTES + MINUTES_A_KM * np.maximum(centres, INNER_RADII / 2 * radii)
    placed = _may_be_off(minutes, verdict) & ~np.isnan(usual)  # NaN: a zone without a place
    return Pace(
        placed,
        placed & (minutes < bounds.quick * usual),
        placed & (minutes > bounds.slow * usual),
    )


def is_off(placed: Any, quick: Any, slow: Any, bounds: Bounds) -> Any:
    """True for groups whose middle ride was far quicker or slower than any traffic.

    Args:
        placed, quick, slow: how many rides of a group are so; numbers or arrays.
    """
    return (placed >= bounds.fewest) & (2 * np.maximum(quick, slow) > placed)


def count_truths(verdicts: np.ndarray) -> dict[str, int]:
    """Return how many true durations of each code there are; those not known are left out."""
    codes, counts = np.unique(verdicts[verdicts != UNKNOWN], return_counts=True)
    return dict(zip(codes.tolist(), counts.tolist(), strict=True))


def count_of(counts: dict[str, int], codes: Iterable[str]) -> int:
    """Return the number of true durations with one of these codes."""
    return sum(counts.get(code, 0) for code in codes)


def _judge_alone(minutes: np.ndarray, rides: Rides) -> np.ndarray:
    """Judge each ride by its own minutes alone."""
    minutes = minutes.astype("float64")
    known = np.isfinite(minutes) & (minutes >= 0)
    verdict: np.ndarray = np.select(
        [np.isnan(minutes), ~known, minutes >= DAY_MINUTES, _too_fast(minutes, rides),
         minutes < SHORTEST_MINUTES, minutes > LONGEST_MINUTES],
        [UNKNOWN, NO_TIME, WHOLE_DAY, TOO_FAST, SHORT, LONG],
        SCORED,
    )  # fmt: skip
    return verdict.astype(f"U{len(OFF_BY_FACTOR)}")


def _too_fast(minutes: np.ndarray, rides: Rides) -> np.ndarray:
    centres, radii = _between(rides)
    fast: np.ndarray = centres > FASTEST_KM_A_MINUTE * minutes + EDGE_RADII * radii
    return fast


def _may_be_off(minutes: np.ndarray, verdict: np.ndarray) -> np.ndarray:
    known: np.ndarray = np.isfinite(minutes) & (minutes >= 0) & (verdict != OFF_BY_FACTOR)
    return known


def _without_groups(
    verdict: np.ndarray, minutes: np.ndarray, rides: Rides, group: np.ndarray, bounds: Bounds
) -> np.ndarray:
    """The same verdicts, those of groups that are off by a factor replaced."""
    if len(minutes) < bounds.fewest:
        return verdict
    pace = pace_of(minutes, rides, verdict, bounds)
    _, at = np.unique(group, return_inverse=True)
    placed, quick, slow = (np.bincount(at, flags) for flags in pace)
    off = is_off(placed, quick, slow, bounds)[at] & _may_be_off(minutes, verdict)
    return np.where(off, OFF_BY_FACTOR, verdict)


def _between(rides: Rides) -> tuple[np.ndarray, np.ndarray]:
    """From centre to centre of a ride's zones, and the sum of their radii, km, NaN if nowhere."""
    places, start, end = zone_places(), rides.PULocationID, rides.DOLocationID
    centres = np.hypot(
        places.east[end] - places.east[start], places.north[end] - places.north[start]
    )
    return centres, places.radius[start] + places.radius[end]
