"""How long trips usually are at each time of the year: what the month after a window brings."""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from taxi_duration.data.window import Window
from taxi_duration.model.features import FEATURES
from taxi_duration.training.day_groups import DayCounts
from taxi_duration.training.feature_tables import fold_tables
from taxi_duration.training.window_sums import window_sums

EXPECTED, HOLIDAY = (FEATURES.index(name) for name in ("expected_minutes", "holiday"))
AHEAD_DAYS = 31  # a model is made for the month after its window
SEASON_DAMPING = 0.7  # share of the season's step that 12 pairs of months really made
SEASON_STEP_DAYS = 7  # between two heights of the season's curve; the first is 4 January
SEASON_KERNEL_DAYS = 8.0


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


def season_step(days: DayCounts) -> float:
    """Return how much longer the season makes trips in the month after a window.

    A window that ends before the season's own data does gets 1: it could not have known.
    (A line through the window's days, asked for the next month, was wrong as often as right
    over 12 pairs of months; the season takes a quarter of a per cent off the RMSE.)

    Args:
        days: of the window, with trips.
    """
    last = days.last
    if last < np.datetime64(_season()["known_from"]):
        return 1.0
    ahead = season_level(last + np.arange(1, AHEAD_DAYS + 1)).mean()
    usual = np.average(season_level(days.days), weights=days.trips)
    step = ahead / usual - 1.0
    return float(1.0 + SEASON_DAMPING * step)


def measure_season(window: Window) -> np.ndarray:
    """Return the `level` of season.json: usual duration by week of the year, 1 on average.

    Trips are compared with what their route and hour say over the whole time; weekdays are
    evened out and holidays left out. Give it most of a year at least.

    """
    day, minutes, expected = _by_day(window)
    weekday = (day.astype("int64") + 3) % 7
    by_weekday = np.bincount(weekday, minutes, 7) / np.bincount(weekday, expected, 7)
    usual = expected * by_weekday[weekday]
    day_of_year = (day - day.astype("datetime64[Y]").astype("datetime64[D]")).astype("int64")
    knots = SEASON_STEP_DAYS // 2 + SEASON_STEP_DAYS * np.arange(366 // SEASON_STEP_DAYS)
    top, bottom = (np.bincount(day_of_year, v, 366) for v in (minutes, usual))
    apart = np.abs(knots[:, None] - np.arange(366))
    kernel = np.exp(-0.5 * (np.minimum(apart, 366 - apart) / SEASON_KERNEL_DAYS) ** 2)
    seen = np.isin(knots, day_of_year)  # else a line from the week before to the week after
    level = ((kernel @ top) / (kernel @ bottom))[seen]
    level = np.interp(knots, knots[seen], level, period=366)
    return np.round(level / level.mean(), 3)


def _by_day(window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return days that are no holidays, and their trips' actual and expected minutes, (d,) each."""
    sums = window_sums(window, math.inf)
    days = sums.days.days
    total = np.zeros((2, len(days)))
    normal = np.zeros(len(days), dtype=bool)
    for batch in fold_tables(sums).batches(window):
        place = np.searchsorted(days, batch.rides.pickup_at.astype("datetime64[D]"))
        for row, values in enumerate((batch.minutes, batch.rows[:, EXPECTED])):
            total[row] += np.bincount(place, values.astype("float64"), len(days))
        normal[place] = batch.rows[:, HOLIDAY] == 0
    return days[normal], total[0, normal], total[1, normal]
