"""Replays the live traffic on rides of the past: each ride knows only truths known by then.

The service builds its level anew every half minute; here it is built every hour or so, with the
rides that end within that time and whose truth comes at once: a level never looks at bins that end
after the pickup. Only the proof learns of the factors that were given when the time is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from taxi_duration.domain.limits import TRIP_MINUTES
from taxi_duration.live.traffic_bins import (
    BIN_MINUTES,
    BINS_A_DAY,
    TrafficBins,
    clipped_logs,
    end_bin,
    minute_of,
)
from taxi_duration.live.traffic_level import TrafficLevel, TrafficSettings, traffic_settings


class AnsweredRides(NamedTuple):
    """Rides with what one version answered to them, each of shape (n,), in order of pickup.

    Args:
        pickup_at: datetime64, New York's clock.
        area: of the pickup zone, see `live.traffic_bins`.
        truth: true durations, minutes; those that no score counts are never known.
        base: answered minutes without traffic.
        known_at: minute of ride time since 1970 at which the truth is known, inf if never; None
            when each is known as the ride ends.
    """

    pickup_at: np.ndarray
    area: np.ndarray
    truth: np.ndarray
    base: np.ndarray
    known_at: np.ndarray | None = None

    def part(self, start: int, end: int) -> AnsweredRides:
        """Return the rides from one place to before another."""
        known_at = None if self.known_at is None else self.known_at[start:end]
        pickup_at, area, truth, base = (column[start:end] for column in self[:4])
        return AnsweredRides(pickup_at, area, truth, base, known_at)


class _Truths(NamedTuple):
    """Rides whose truth is known, or will be, shape (n,); `ended` and `known` are bins."""

    ended: np.ndarray
    known: np.ndarray
    area: np.ndarray
    log: np.ndarray
    without: np.ndarray
    with_it: np.ndarray


@dataclass
class TrafficReplay:
    """The level of one version as time goes on.

    Args:
        hours: answered with one level, a part of the day.
    """

    settings: TrafficSettings = field(default_factory=traffic_settings)
    hours: int = 1
    _truths: _Truths = field(
        default_factory=lambda: _Truths(*(np.zeros(0) for _ in _Truths._fields))
    )

    def factors(self, rides: AnsweredRides) -> np.ndarray:
        """Return the factor given to each ride, shape (n,); their truths are kept for later ones.

        Args:
            rides: not before those of the call before.
        """
        at = minute_of(rides.pickup_at)
        block = at // (60 * self.hours)
        edges = np.searchsorted(block, np.unique(block), side="left")
        given = np.ones(len(at))
        for start, end in zip(edges, [*edges[1:], len(at)], strict=True):
            some = rides.part(start, end)
            counts = self._add(some)
            level = self._level(int(block[start]))
            given[start:end] = level.factors(some.area, at[start:end])
            error = np.abs(some.truth - given_minutes(some.base, given[start:end]))[counts]
            self._truths.with_it[len(self._truths.ended) - len(error) :] = error
        return given

    def _level(self, block: int) -> TrafficLevel:
        """Return the level of the hours with a number since 1970."""
        start, end = (at * 60 * self.hours // BIN_MINUTES for at in (block, block + 1))
        truths = self._truths
        at_once = (truths.known == truths.ended) & (truths.ended < end)
        known = (truths.known < start) | at_once
        known &= truths.ended >= start - self.settings.horizon_days * BINS_A_DAY
        ended, _, area, log, without, with_it = (column[known] for column in truths)
        one, none = np.ones(len(log)), np.zeros(len(log))
        ints = ended.astype("int64"), area.astype("int64")
        bins = TrafficBins(*ints, one, log, without, with_it, none, none, none, none)
        return TrafficLevel(bins, self.settings)

    def _add(self, rides: AnsweredRides) -> np.ndarray:
        """Add rides, as if answered without traffic; return which count, shape (n,)."""
        ended = end_bin(rides.pickup_at, np.where(np.isfinite(rides.truth), rides.truth, 0))
        known = ended.astype("float64")
        if rides.known_at is not None:
            known = np.maximum(known, np.floor(rides.known_at / BIN_MINUTES))
        counts: np.ndarray = (rides.truth >= TRIP_MINUTES[0]) & (rides.truth <= TRIP_MINUTES[1])
        counts &= np.isfinite(known)
        truth, base = rides.truth[counts], rides.base[counts]
        error = np.abs(truth - base)
        new = _Truths(
            ended[counts],
            known[counts],
            rides.area[counts],
            clipped_logs(truth, base),
            error,
            error,
        )
        before = self._truths
        # What is too old for any level is forgotten.
        kept = before.ended >= ended.min() - 2 * self.settings.horizon_days * BINS_A_DAY
        pairs = zip((column[kept] for column in before), new, strict=True)
        self._truths = _Truths(*(np.concatenate(pair) for pair in pairs))
        return counts


def given_minutes(base: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return answers with traffic, shape (n,): no factor carries one out of a trip's limits."""
    shortest, longest = TRIP_MINUTES
    low, high = np.minimum(base, shortest), np.maximum(base, longest)
    given: np.ndarray = np.clip(base * factor, low, high)
    return given
