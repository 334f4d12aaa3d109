"""How long trips usually are at each time of the year: what the month after a window brings."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from taxi_duration.data.window import Window
from taxi_duration.model.features import FEATURES
from taxi_duration.training.feature_tables import out_of_fold_features

STRAY_SHARE = 0.01  # a few trips are dated years before or after their month
AHEAD_DAYS = 31  # a model is made for the month after its window
SEASON_DAMPING = 0.7  # share of the season's step that 12 pairs of months really made
SEASON_STEP_DAYS = 7  # between two heights of the season's curve; the first is 4 January
SEASON_KERNEL_DAYS = 8.0


def last_day(pickup_at: np.ndarray) -> np.datetime64:
    days = np.sort(pickup_at.astype("datetime64[D]"))
    return days[int((1 - STRAY_SHARE) * (len(days) - 1))]


@cache
def _season() -> dict[str, Any]:
    """Return the stored season: `level` by week and the date it is `known_from`."""
    import json

    return json.loads((files(__package__) / "season.json").read_text())


def season_level(days: np.ndarray) -> np.ndarray:
    """Return how long trips usually are at that time of the year, 1 on average, shape (n,).

    Schools and offices make the city's traffic: early January and the summer are quick,
    autumn is slow, by 10 % between them.

    Args:
        days: datetime64, shape (n,).
    """
    level = np.array(_season()["level"])
    start = days.astype("datetime64[Y]").astype("datetime64[D]")
    day_of_year = (days.astype("datetime64[D]") - start).astype("int64")
    knots = SEASON_STEP_DAYS // 2 + SEASON_STEP_DAYS * np.arange(len(level))
    return np.interp(day_of_year, knots, level, period=366)


def season_step(pickup_at: np.ndarray) -> float:
    """Return how much longer the season makes trips in the month after a window.

    A window that ends before the season's own data does gets 1: it could not have known.
    (A line through the window's days, asked for the next month, was wrong as often as right
    over 12 pairs of months; the season takes a quarter of a per cent off the RMSE.)

    Args:
        pickup_at: the window's trips, shape (n,), n > 0.
    """
    days, last = pickup_at.astype("datetime64[D]"), last_day(pickup_at)
    if last < np.datetime64(_season()["known_from"]):
        return 1.0
    ahead = season_level(last + np.arange(1, AHEAD_DAYS + 1)).mean()
    step = ahead / season_level(days).mean() - 1.0
    return float(1.0 + SEASON_DAMPING * step)


def measure_season(window: Window) -> np.ndarray:
    """Return the `level` of season.json: usual duration by week of the year, 1 on average.

    Trips are compared with what their route and hour say over the whole time; weekdays are
    evened out and holidays left out. Give it most of a year at least.

    """
    rides, duration = window.whole()
    rows = out_of_fold_features(rides, duration)
    expected = rows[:, FEATURES.index("expected_minutes")].astype("float64")
    normal = rows[:, FEATURES.index("holiday")] == 0
    day = rides.pickup_at.astype("datetime64[D]")[normal]
    start = day.astype("datetime64[Y]").astype("datetime64[D]")
    day_of_year = (day - start).astype("int64")
    weekday = (day.astype("int64") + 3) % 7
    expected, minutes = expected[normal], duration[normal].astype("float64")
    by_weekday = np.bincount(weekday, minutes, 7) / np.bincount(weekday, expected, 7)
    usual = expected * by_weekday[weekday]
    knots = SEASON_STEP_DAYS // 2 + SEASON_STEP_DAYS * np.arange(366 // SEASON_STEP_DAYS)
    top, bottom = (np.bincount(day_of_year, v, 366) for v in (minutes, usual))
    apart = np.abs(knots[:, None] - np.arange(366))
    kernel = np.exp(-0.5 * (np.minimum(apart, 366 - apart) / SEASON_KERNEL_DAYS) ** 2)
    seen = np.isin(knots, day_of_year)  # else a line from the week before to the week after
    level = ((kernel @ top) / (kernel @ bottom))[seen]
    level = np.interp(knots, knots[seen], level, period=366)
    return np.round(level / level.mean(), 3)
