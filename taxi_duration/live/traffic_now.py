"""The live traffic in an answer: what multiplies it and stretches its interval, and how.

The same arithmetic serves one ride, columns of rides, and `trace`, which does it again with the
logged factors. Batch scoring and the registered model know no traffic.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from taxi_duration.domain.limits import LONGEST_MINUTES, SHORTEST_MINUTES
from taxi_duration.domain.rides import NEW_YORK, Answer, Answers, Rides
from taxi_duration.live.interval_stretch import IntervalStretch, stretch_settings
from taxi_duration.live.traffic_bins import AREAS, BIN_MINUTES, TrafficBins, minute_of, zone_areas
from taxi_duration.live.traffic_level import TrafficLevel, traffic_settings

REASON = "traffic now"  # among the reasons of an answer
DIGITS = 4  # of factors: 0.006 minutes of the longest answer; log and answers stay short
# Pickup times, in slots of ten minutes, of which factors are remembered: a month's.
MOST_SLOTS = 5_000
HOUR = 60  # minutes
EPOCH, SLOT = datetime(1970, 1, 1), timedelta(minutes=BIN_MINUTES)
AREA_OF_ZONE: list[int] = zone_areas().tolist()
ALL_AREAS = np.arange(len(AREAS))


def horizon_days() -> float:
    """Return how many days of bins, of ride time, say something about the newest rides."""
    return max(traffic_settings().horizon_days, stretch_settings().horizon_days)


def ride_clock(at: float) -> int:
    """Return the latest reading of New York's clock at or before unix seconds, minutes since 1970.

    In the hour after the clocks were set back, it is what they would show without that.
    """
    moments = (datetime.fromtimestamp(at - back, UTC).astimezone(NEW_YORK) for back in (0, 3600))
    offset = max(moment.utcoffset() or timedelta(0) for moment in moments)
    return int((at + offset.total_seconds()) // 60)


class Traffic(NamedTuple):
    """What an answer is multiplied with, and its interval stretched with below and above p50.

    Numbers, or arrays of shape (n,).
    """

    factor: Any = 1.0
    low: Any = 1.0
    high: Any = 1.0


NO_TRAFFIC = Traffic()


def in_traffic(answer: Answer, traffic: Traffic) -> Answer:
    """Return the answer to one ride as it is given."""
    duration, p10, p50, p90, support, used_distance = answer
    now, low, middle, high = _moved(traffic, duration, p10, p50, p90)
    return Answer(
        _kept(now, duration), _kept(low, p10), _kept(middle, p50), _kept(high, p90),
        support, used_distance,
    )  # fmt: skip


def all_in_traffic(answers: Answers, traffic: Traffic) -> Answers:
    """Return the answers to n rides as they are given."""
    minutes = (answers.duration, answers.p10, answers.p50, answers.p90)
    base = [column.astype("float64") for column in minutes]
    duration, p10, p50, p90 = (
        np.clip(now, np.minimum(own, SHORTEST_MINUTES), np.maximum(own, LONGEST_MINUTES))
        .astype("float32")
        for now, own in zip(_moved(traffic, *base), base, strict=True)
    )  # fmt: skip
    return Answers(duration, p10, p50, p90, answers.support, answers.used_distance)


def _moved(traffic: Traffic, duration: Any, p10: Any, p50: Any, p90: Any) -> tuple[Any, ...]:
    """Return the minutes multiplied, and the interval stretched about its middle."""
    factor, low, high = traffic
    middle = p50 * factor
    return (
        duration * factor,
        middle - (p50 - p10) * factor * low,
        middle,
        middle + (p90 - p50) * factor * high,
    )


def _kept(now: float, own: float) -> float:
    """Keep minutes within the limits of a trip.

    Where the model's `own` lie beyond them, these are the limit: a factor carries nothing out.
    """
    if SHORTEST_MINUTES <= now <= LONGEST_MINUTES:
        return now
    return min(max(now, min(own, SHORTEST_MINUTES)), max(own, LONGEST_MINUTES))


class VersionTraffic:
    """The live traffic of one model version, from its bins; for many threads.

    Args:
        bins: of the version, of rides that have ended.
    """

    def __init__(self, bins: TrafficBins) -> None:
        self.bins = bins
        self._level, self._stretch = TrafficLevel(bins), IntervalStretch(bins)
        self._known: dict[int, list[Traffic | None]] = {}

    def at(self, zone: int, pickup_at: datetime) -> Traffic | None:
        """Return the traffic of a ride from a zone; None when there is nothing to apply.

        Args:
            pickup_at: New York local time.
        """
        slot = (pickup_at - EPOCH) // SLOT
        known = self._known.get(slot)
        if known is None:
            known = self._remember(slot)
        return known[AREA_OF_ZONE[zone]]

    def of(self, rides: Rides) -> Traffic | None:
        """Return the same for n rides, arrays of shape (n,); None when it is nothing for all."""
        traffic = self._at(zone_areas()[rides.PULocationID], minute_of(rides.pickup_at))
        return traffic if any((part != 1.0).any() for part in traffic) else None

    def levels(self, ats: np.ndarray) -> np.ndarray:
        """Return the factor of each area, shape (n, areas).

        Args:
            ats: minutes of ride time since 1970, shape (n,).
        """
        areas, minutes = np.tile(ALL_AREAS, len(ats)), np.repeat(ats, len(AREAS))
        factors: np.ndarray = self._at(areas, minutes).factor
        return factors.reshape(len(ats), len(AREAS))

    def stretch(self, at: int) -> tuple[float, float]:
        """Return what stretches the interval of a ride below and above its middle.

        Args:
            at: minute of ride time since 1970.
        """
        _, low, high = self._at(ALL_AREAS[:1], np.array([at]))
        return float(low[0]), float(high[0])

    def _at(self, areas: np.ndarray, minutes: np.ndarray) -> Traffic:
        """Return factors and stretches of rides by area and minute, each of shape (n,)."""
        factor = np.round(self._level.factors(areas, minutes), DIGITS)
        # It moves over days: one stretch for all rides of an hour.
        stretch = np.round(self._stretch.many(minutes // HOUR * HOUR), DIGITS)
        return Traffic(factor, *stretch.T)

    def _remember(self, slot: int) -> list[Traffic | None]:
        """Return the traffic of a slot in each area, and keep it."""
        columns = self._at(ALL_AREAS, np.full(len(AREAS), slot * BIN_MINUTES))
        found = [Traffic(*one) for one in zip(*(part.tolist() for part in columns), strict=True)]
        known = [None if one == NO_TRAFFIC else one for one in found]
        if len(self._known) >= MOST_SLOTS:
            self._known = {}
        self._known[slot] = known
        return known
