"""How long a day's trips take for the day it is: the season, and what kind of day it is.

A model's trees answer for a usual day; this is the factor that makes it the day of the ride.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from taxi_duration.domain.pickup_calendar import HALF_HOUR_MINUTES, near_hour, near_hours
from taxi_duration.domain.special_days import special_day

SEASON_WEEKS = 52  # heights of a season's curve, a week apart; the first is that of 4 January
LAST_HALF_HOUR = 24 * 60 - HALF_HOUR_MINUTES  # of a day begins at this minute
SEASON_KNOTS = 3 + 7 * np.arange(SEASON_WEEKS)  # days after 1 January


class DayParts(NamedTuple):
    """The factors of one day, and what kind of day it is (None for an ordinary one)."""

    season: float
    kind: float
    name: str | None

    @property
    def level(self) -> float:
        """Both together, as precise as float32, in which answers are."""
        return float(np.float32(self.season * self.kind))


@dataclass(frozen=True)
class DayLevel:
    """The factors of every day.

    Args:
        season: by week of the year, float64, shape (52,).
        kinds: by kind of day (see `special_days.py`); a kind that is not there counts 1.
    """

    season: np.ndarray = field(default_factory=lambda: np.ones(SEASON_WEEKS))
    kinds: Mapping[str, float] = field(default_factory=dict)

    def parts(self, day: date) -> DayParts:
        """Return the factors of a day."""
        after = (day - date(day.year, 1, 1)).days
        season = float(np.interp(after, SEASON_KNOTS, self.season, period=366))
        name = special_day(day)
        return DayParts(season, self.kinds.get(name, 1.0) if name else 1.0, name)

    def at(self, pickup_at: datetime) -> DayParts:
        """Return the factors of a time: between both days' in the half hours around midnight."""
        own, (other, share) = self.parts(pickup_at.date()), near_hour(pickup_at)
        if other.date() == pickup_at.date():
            return own
        near = self.parts(other.date())
        season, kind = (a + (b - a) * share for a, b in zip(own[:2], near[:2], strict=True))
        return DayParts(season, kind, own.name or near.name)

    def of(self, pickup_at: np.ndarray) -> np.ndarray:
        """Return the level of each ride's time, float32 of shape (n,).

        Args:
            pickup_at: datetime64, New York local time, shape (n,).
        """
        days = pickup_at.astype("datetime64[D]")
        factors = self._of_days(days)
        minute = (pickup_at - days).astype("timedelta64[m]").astype("int64")
        near = np.flatnonzero((minute < HALF_HOUR_MINUTES) | (minute >= LAST_HALF_HOUR))
        others, share = near_hours(pickup_at[near])
        own = factors[:, near]
        factors[:, near] = own + (self._of_days(others.astype("datetime64[D]")) - own) * share
        levels: np.ndarray = (factors[0] * factors[1]).astype("float32")
        return levels

    def _of_days(self, days: np.ndarray) -> np.ndarray:
        """Return the season's and the kind's factor of each ride's day, shape (2, n)."""
        each, place = np.unique(days, return_inverse=True)
        parts = [self.parts(day)[:2] for day in each.tolist()]
        factors: np.ndarray = np.array(parts, "float64").reshape(-1, 2).T[:, place]
        return factors


class RideLevel:
    """The level of one ride's time, found once a day: for rides that come one by one."""

    def __init__(self, level: DayLevel) -> None:
        self._of_day = lru_cache(maxsize=1024)(lambda day: level.parts(day).level)
        self._at = level.at

    def of(self, pickup_at: datetime) -> float:
        """Return what `DayLevel.of` gives."""
        minute = pickup_at.hour * 60 + pickup_at.minute
        if HALF_HOUR_MINUTES <= minute < LAST_HALF_HOUR:
            return self._of_day(pickup_at.date())
        return self._at(pickup_at).level
