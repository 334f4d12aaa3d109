"""The newest day by itself: two weeks of other days would hide what began yesterday.

A day's weather passes, a fault stays: an alarm needs two days in a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from taxi_duration.domain.findings import LEVELS, Level, Reason
from taxi_duration.domain.pickup_calendar import window_days

DAY = np.timedelta64(24, "h")


def newest_days(pickup_at: np.ndarray, fewest: int) -> list[np.ndarray]:
    """Return masks of the newest day's rides and of the day before, shape (n,) each.

    A day is 24 hours back from the newest pickup, so that every hour is in it; days are joined
    until they have enough rides. Rides dated outside the window's days are in none.

    Args:
        pickup_at: shape (n,).
        fewest: rides of a day. Fewer masks come where there are not enough.
    """
    real = np.isin(pickup_at.astype("datetime64[D]"), window_days(pickup_at))
    if not real.any():
        return []
    age = (pickup_at[real].max() - pickup_at) // DAY
    rides = np.bincount(age[real])
    found: list[np.ndarray] = []
    first = total = 0
    for day, count in enumerate(rides):
        total += count
        if total >= fewest:
            found.append(real & (age >= first) & (age <= day))
            first, total = day + 1, 0
        if len(found) == 2:
            break
    return found


def join_days(found: Sequence[dict[str, Reason]]) -> list[Reason]:
    """Return what the newest day and the one before it say together.

    Args:
        found: of each day, newest first, the reasons by what was measured; at most two.
    """
    newest, before = (*found, {}, {})[:2]
    joined = []
    for measure, reason in newest.items():
        level = _level_of_days(reason.level, before[measure].level if measure in before else "ok")
        if level != "ok":
            joined.append(replace(reason, level=level, text=f"the newest day alone: {reason.text}"))
    return joined


def _level_of_days(newest: Level, before: Level) -> Level:
    """Alarm after two days of it; watch after one, or after two days of watch."""
    lower = min(newest, before, key=LEVELS.index)
    return "watch" if newest == "alarm" != before else lower
