"""How the level of trips drifted within a window: trees learn without it, and answer at its end.

Over a year the city gets slower or quicker by a tenth; trees that learned from all of it would
answer at its middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from taxi_duration.data.window import Window
from taxi_duration.model.day_level import DayLevel
from taxi_duration.model.features import FEATURES
from taxi_duration.training.feature_tables import FoldTables
from taxi_duration.training.history import history_settings

EXPECTED = FEATURES.index("expected_minutes")
TREND_DAYS = history_settings().trend_days
TREND_ROWS = 100_000  # of a window, evenly spread: a day of a year has 300 of them
MIN_DAY_TRIPS = 20  # of these; stray dates have fewer
KERNEL_WIDTHS = 8.0  # from a day on, after which another one weighs nothing: 1e-14


@dataclass(frozen=True)
class WindowTrend:
    """The level of each day: datetime64[D], rising, and float64, 1 at the end, shape (d,) each."""

    days: np.ndarray
    level: np.ndarray

    def of(self, pickup_at: np.ndarray) -> np.ndarray:
        """Return the level of each trip's day, float32 of shape (n,)."""
        day = pickup_at.astype("datetime64[D]").astype("int64")
        level: np.ndarray = np.interp(day, self.days.astype("int64"), self.level)
        return level.astype("float32")


@dataclass(frozen=True, kw_only=True)
class DriftingLevel(DayLevel):
    """The level of a window's days: as of days alike in any year, times the window's own trend."""

    trend: WindowTrend

    def of(self, pickup_at: np.ndarray) -> np.ndarray:
        """Return the level of each trip's day, float32 of shape (n,)."""
        level: np.ndarray = super().of(pickup_at) * self.trend.of(pickup_at)
        return level

    @property
    def ahead(self) -> DayLevel:
        """The level of days after the window, on which the trend stays as it ended."""
        return DayLevel(self.season, self.kinds)


def drifting_level(folds: FoldTables, window: Window, level: DayLevel) -> DriftingLevel:
    """Return a window's level; arguments as `window_trend`."""
    return DriftingLevel(level.season, level.kinds, trend=window_trend(folds, window, level))


def window_trend(folds: FoldTables, window: Window, level: DayLevel) -> WindowTrend:
    """Return the trend of trips: actual over expected minutes, those of days around evened out.

    Args:
        folds: what is expected of a trip by days of other folds.
        window: the trips.
        level: of days, which is no drift.
    """
    trips = Window.of(*window.evenly(TREND_ROWS))
    parts = []
    for batch in folds.batches(trips):
        expected = batch.rows[:, EXPECTED] * level.of(batch.rides.pickup_at)
        parts.append((batch.rides.pickup_at.astype("datetime64[D]"), batch.minutes, expected))
    day, minutes, expected = (np.concatenate(column) for column in zip(*parts, strict=True))
    days, place, number = np.unique(day, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(place, values) for values in (minutes, expected)])
    known = number >= min(MIN_DAY_TRIPS, number.max())
    return smooth_trend(days[known], *sums[:, known])


def smooth_trend(days: np.ndarray, minutes: np.ndarray, expected: np.ndarray) -> WindowTrend:
    """Return the trend from sums of days, rising, shape (d,) each, d > 0."""
    place = (days - days[0]).astype("int64")
    far = int(KERNEL_WIDTHS * TREND_DAYS)
    kernel = np.exp(-0.5 * (np.arange(-far, far + 1) / TREND_DAYS) ** 2)
    # Days that are not there hold nothing.
    around = (
        np.convolve(np.bincount(place, of_days), kernel)[far + place]
        for of_days in (minutes, expected)
    )
    level = np.divide(*around)
    return WindowTrend(days, level / level[-1])
