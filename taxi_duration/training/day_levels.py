"""What each day of a history was like, and what it says of the days to come.

`day_levels.csv` holds, for every day of the real months at hand, how long its trips took beside
what their routes and hours say. A ridge with one prior for each part takes it apart: weekdays, a
level that drifts from week to week, the season, kinds of days. What the history does not show
stays at its prior: no effect. A window uses the days before its own end, and no others.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from taxi_duration.domain.pickup_calendar import read_clocks
from taxi_duration.domain.special_days import FREE_DAYS, day_kinds, special_day
from taxi_duration.model.day_level import SEASON_KNOTS, DayLevel

# Standard deviations of logarithms, chosen among some 45 sets on 22 months, each predicted from the
# month before it (2020-09 to 2022-06, green). Several sets near these did as well.
DAY_SD = 0.06  # of a day of many trips: its weather
RIDE_SD = 0.5  # of one trip around what its route and hour say
WEEK_SD = 0.012  # of a service's level from one week to the next
SEASON_SD = 0.04  # of the season's first wave in a year; of the k-th a k-th
KIND_SD = 0.06  # of a kind of day
FREE_SD = 0.15  # of one on which most are free: the largest differences
WEEKDAY_SD = 0.3  # of a weekday: hardly a prior at all
WAVES = 10  # in a year: what differs from one five weeks to the next
YEAR_DAYS = 365.2425
# Steps and days far off count less, as in Student's t of so many degrees of freedom: a lockdown
# is no season, a blizzard no holiday.
FREEDOM, ROUNDS = 4.0, 6
MIN_TRIPS = 50  # of a day
SEASON_DAYS = 396  # of history, 13 months: in less a season looks like any other drift


class History(NamedTuple):
    """Days, shape (d,) each: datetime64[D], a service's name, trips, and the level: actual over
    expected minutes."""

    days: np.ndarray
    service: np.ndarray
    trips: np.ndarray
    level: np.ndarray

    def before(self, end: np.datetime64) -> History:
        """Return the days before one."""
        rows = (self.days < end) & (self.trips >= MIN_TRIPS)
        return History(*(column[rows] for column in self))


@cache
def stored_history() -> History:
    """Return the days of `day_levels.csv`."""
    text = (files(__package__) / "day_levels.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    return History(
        np.array([row["day"] for row in rows], "datetime64[D]"),
        np.array([row["service"] for row in rows]),
        np.array([row["trips"] for row in rows], "float64"),
        np.array([row["level"] for row in rows], "float64"),
    )


def day_level(last: np.datetime64, history: History | None = None) -> DayLevel:
    """Return what was known of days when a window ended.

    Args:
        last: the window's last day; nothing after it is used.
        history: in place of the stored one.
    """
    return _stored_level(last) if history is None else _learn(history.before(last + 1))


@cache
def _stored_level(last: np.datetime64) -> DayLevel:
    """Learn once for a fit, its rehearsals and its curves: it takes a tenth of a second."""
    return _learn(stored_history().before(last + 1))


def _learn(known: History) -> DayLevel:
    if not len(known.days):
        return DayLevel()
    kinds = sorted(day_kinds())
    columns, prior, is_step = _design(known, kinds)
    found = _ridge(columns, np.log(known.level), known.trips, prior, is_step)
    waves, effects = found[: 2 * WAVES], found[2 * WAVES :][: len(kinds)]
    season = np.exp(_waves(np.datetime64("2021-01-01") + SEASON_KNOTS) @ waves)
    if np.ptp(known.days).astype("int64") < SEASON_DAYS:
        season[:] = 1.0
    factors = np.exp(effects).round(4).tolist()
    shown = {kind: factor for kind, factor in zip(kinds, factors, strict=True) if factor != 1}
    return DayLevel(season / season.mean(), shown)


def _design(known: History, kinds: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the columns of all parts, their priors, and which of them are steps of a week."""
    names = np.array([special_day(day) or "" for day in known.days.tolist()])
    weekday = read_clocks(known.days.astype("datetime64[s]"))[0][1] // 24
    parts = [(_waves(known.days), SEASON_SD / (1 + np.arange(2 * WAVES) // 2))]
    by_kind = [FREE_SD if kind in FREE_DAYS else KIND_SD for kind in kinds]
    parts += [(names[:, None] == np.array(kinds), np.array(by_kind))]
    for service in np.unique(known.service):
        own = (known.service == service)[:, None]
        steps = own * _steps(known.days, known.days[own[:, 0]])
        parts.append((own & (weekday[:, None] == np.arange(7)), np.full(7, WEEKDAY_SD)))
        parts.append((steps, np.full(steps.shape[1], WEEK_SD)))
    columns = np.hstack([each for each, _ in parts]).astype("float64")
    prior = np.concatenate([sd for _, sd in parts])
    return columns, prior, prior == WEEK_SD


def _waves(days: np.ndarray) -> np.ndarray:
    """Return cosines and sines of the year's waves, shape (d, 2 * WAVES)."""
    angle = days.astype("datetime64[D]").astype("int64") * (2 * np.pi / YEAR_DAYS)
    both = [(np.cos(k * angle), np.sin(k * angle)) for k in range(1, WAVES + 1)]
    return np.stack([wave for pair in both for wave in pair], axis=1)


def _steps(days: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return how much of each week of a service has passed by each day, 0 to 1, (d, weeks)."""
    first, last = own.min(), own.max()
    begins = np.arange(first, last, 7)
    return np.clip((days[:, None] - begins).astype("int64") / 7, 0, 1)


def _ridge(
    columns: np.ndarray,
    wanted: np.ndarray,
    trips: np.ndarray,
    prior: np.ndarray,
    is_step: np.ndarray,
) -> np.ndarray:
    """Return the coefficients: days and steps that lie far off count less in each round."""
    usual = 1 / (DAY_SD**2 + RIDE_SD**2 / trips)
    weight, spread = usual, prior
    for _ in range(ROUNDS):
        weighted = columns.T * weight
        found = np.linalg.solve(weighted @ columns + np.diag(1 / spread**2), weighted @ wanted)
        off, far = wanted - columns @ found, found / prior
        weight = usual * (FREEDOM + 1) / (FREEDOM + off**2 * usual)
        wider = np.sqrt((FREEDOM + far**2) / (FREEDOM + 1))
        spread = np.where(is_step, prior * wider, prior)
    return found
