"""What a pickup's time says: minute, hour of the week, free days, and the cell of the week."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np

from taxi_duration.domain.special_days import FREE_DAYS, SATURDAY, SUNDAY, THURSDAY, special_day

CELLS = 72  # weekday, Saturday, Sunday or free day: 24 hours each
HALF_HOUR_MINUTES, HALF_DAY_MINUTES = 30, 720
HALF_HOUR = timedelta(minutes=HALF_HOUR_MINUTES)
STRAY_SHARE = 0.01  # a real day has more than this of a middle day's trips, in snow too
# The week begins on Monday, 0:00; the hours of a free day are those of a Sunday.
# The minutes of the day are two waves, from 0 at their hour to 720 twelve hours away: together they
# tell every minute, and midnight is no step. (A minute from 0 to 1439 gave steps of up to 4.6
# minutes at midnight on 26 of 200 pairs.)
CLOCK_COLUMNS = ("minutes_from_10", "minutes_from_16", "hour_of_week", "holiday")


def read_clock(pickup_at: datetime) -> tuple[tuple[float, ...], int]:
    """Return CLOCK_COLUMNS and the cell of the week (0-71) of one ride, New York local time.

    Seconds are cut off: half the green records have full minutes, which says where a record
    came from and nothing about the ride.
    """
    return _clock(_day(pickup_at.date()), pickup_at.hour * 60 + pickup_at.minute)


def read_clocks(pickup_at: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Return the same for n rides, of shape (n,) each.

    Args:
        pickup_at: datetime64, New York local time, shape (n,).
    """
    days, inverse = np.unique(pickup_at.astype("datetime64[D]"), return_inverse=True)
    known = np.array([_day(day) for day in days.tolist()], dtype="int64").reshape(-1, 3)
    minute = (pickup_at - days[inverse]).astype("timedelta64[m]").astype("int64")
    return _clock(known[inverse].T, minute)


def near_cell(pickup_at: datetime) -> tuple[int, float]:
    """Return the cell next in time to a ride's own, and how much it counts beside it.

    That is nothing in the middle of an hour and half at its ends, in a straight line: what is
    looked up by cell then moves from hour to hour, and day to day, without a step.
    """
    other, share = near_hour(pickup_at)
    return _day(other.date())[2] * 24 + other.hour, share


def near_hour(pickup_at: datetime) -> tuple[datetime, float]:
    """Return a time in the hour next to a ride's own, and how much that hour counts beside it."""
    step = HALF_HOUR if pickup_at.minute >= HALF_HOUR_MINUTES else -HALF_HOUR
    return pickup_at + step, _share(pickup_at.minute)


def near_cells(pickup_at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `near_cell` of n rides, int64 and float64 of shape (n,)."""
    others, share = near_hours(pickup_at)
    return read_clocks(others)[1], share


def near_hours(pickup_at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `near_hour` of n rides, datetime64 and float64 of shape (n,)."""
    since = pickup_at.astype("datetime64[m]").astype("int64") % (2 * HALF_HOUR_MINUTES)
    step = np.where(since >= HALF_HOUR_MINUTES, 1, -1) * np.timedelta64(HALF_HOUR)
    return pickup_at + step, _share(since)


def _share(minute: Any) -> Any:
    return abs(minute - HALF_HOUR_MINUTES) / (2 * HALF_HOUR_MINUTES)


@lru_cache(maxsize=1024)
def _day(day: date) -> tuple[int, int, int]:
    """Return a day's weekday (Monday is 0), whether it is a free day (0/1), its row of cells."""
    free = special_day(day) in FREE_DAYS
    weekday = SUNDAY if free else day.weekday()
    return weekday, int(free), max(weekday - SATURDAY + 1, 0)


def _clock(day: Any, minute: Any) -> tuple[tuple[Any, ...], Any]:
    """Put a day (see `_day`) and its minute together: numbers and columns alike."""
    weekday, free, row = day
    hour = minute // 60
    from_10, from_16 = (_apart(minute, 60 * clock) for clock in (10, 16))
    return (from_10, from_16, weekday * 24 + minute / 60, free), row * 24 + hour


def _apart(minute: Any, other: int) -> Any:
    """Return the minutes between two times of a day, the shorter way round: 0 to 720."""
    return abs((minute - other + HALF_DAY_MINUTES) % (2 * HALF_DAY_MINUTES) - HALF_DAY_MINUTES)


def hours_of_day(pickup_at: np.ndarray) -> np.ndarray:
    """Return the hour of each time, 0 to 23, int64 of the same shape; datetime64 of any unit."""
    hours: np.ndarray = pickup_at.astype("datetime64[h]").astype("int64") % 24
    return hours


def weekdays(at: np.ndarray) -> np.ndarray:
    """Return the weekday of each time, Monday is 0, int64 of the same shape."""
    # 1970-01-01, day 0, was a Thursday.
    days: np.ndarray = (at.astype("datetime64[D]").astype("int64") + THURSDAY) % 7
    return days


def window_days(pickup_at: np.ndarray, months: Sequence[object] = ()) -> np.ndarray:
    """Return the days of a window on which people rode, in order, datetime64[D].

    A few records of every month are dated days or years outside it: those are no days of the
    window, and no count of days may hold them.

    Args:
        pickup_at: datetime64, shape (n,).
        months: that were asked for (anything that prints as `2021-01`). When they are not
            known, a day with less than STRAY_SHARE of a middle day's trips is stray.
    """
    days, trips = np.unique(pickup_at.astype("datetime64[D]"), return_counts=True)
    if len(months):
        asked = np.array([str(month) for month in months], dtype="datetime64[M]")
        return days[np.isin(days.astype("datetime64[M]"), asked)]
    return days[trips >= STRAY_SHARE * np.median(trips)] if len(days) else days


def calendar_days(months: Sequence[object]) -> np.ndarray:
    """Return every day of the months, in order, datetime64[D], whether anybody rode or not."""
    asked = np.unique(np.array([str(month) for month in months], dtype="datetime64[M]"))
    ends = [(m.astype("datetime64[D]"), (m + 1).astype("datetime64[D]")) for m in asked]
    return np.concatenate([np.arange(first, after) for first, after in ends])
