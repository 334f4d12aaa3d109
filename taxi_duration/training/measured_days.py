r"""Makes `day_levels.csv` anew: how long each day's trips took beside what routes and hours say.

    python -m taxi_duration.training.measured_days green=2020-03:2020-07,2020-09:2022-06 \
        yellow=2019-01:2020-06 > taxi_duration/training/day_levels.csv

What routes and hours say of a month's trips is learned from the three months before it, so that no
day is measured by later ones. Months are linked as a price index is: the month before is measured
by the same tables, and keeps the level that it had.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import parse_months
from taxi_duration.model.features import FEATURES, transform
from taxi_duration.training.day_levels import MIN_TRIPS
from taxi_duration.training.feature_tables import fit_tables, fold_tables
from taxi_duration.training.window_sums import window_sums

TABLE_MONTHS = 3
EXPECTED = FEATURES.index("expected_minutes")
# The city was shut from 22 March to 8 June 2020 and emptied in the two weeks before, as it never
# was since: such days say nothing of others.
SHUT = np.datetime64("2020-03-08"), np.datetime64("2020-06-14")


class MeasuredDays(NamedTuple):
    """Days, their trips, and minutes over those expected; shape (d,) each."""

    days: np.ndarray
    trips: np.ndarray
    level: np.ndarray


def measure_days(months: Sequence[Window]) -> MeasuredDays:
    """Return the days of months in a row, each a window; the first month's level is 1."""
    measured: list[MeasuredDays] = []
    for number, month in enumerate(months):
        past = months[max(number - TABLE_MONTHS, 0) : number] or [month]
        window = Window(tuple(part for each in past for part in each.parts))
        sums = window_sums(window, math.inf)
        before = _by_day(
            (batch.rides.pickup_at, batch.minutes, batch.rows[:, EXPECTED])
            for batch in fold_tables(sums).batches(past[-1])
        )
        if not measured:
            measured.append(before)
            continue
        tables = fit_tables(sums.table_sums(), sums.curve)
        days = _by_day(
            (rides.pickup_at, minutes, transform(rides, tables, with_distance=False)[:, EXPECTED])
            for rides, minutes in month.batches()
        )
        link = _mean(measured[-1]) / _mean(before)
        measured.append(days._replace(level=days.level * link))
    return MeasuredDays(*map(np.concatenate, zip(*measured, strict=True)))


def _by_day(batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> MeasuredDays:
    """Return the days of batches of pickups, minutes and expected minutes, (n,) each."""
    pickup_at, minutes, expected = map(np.concatenate, zip(*batches, strict=True))
    days, place = np.unique(pickup_at.astype("datetime64[D]"), return_inverse=True)
    trips = np.bincount(place)
    actual, usual = (np.bincount(place, v.astype("float64")) for v in (minutes, expected))
    return MeasuredDays(days, trips, actual / usual)


def _mean(days: MeasuredDays) -> float:
    return float(np.average(days.level, weights=days.trips))


def main(asked: Sequence[str]) -> None:
    """Print the days of services and their months, `green=2020-03:2022-06`, as CSV."""
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["service", "day", "trips", "level"])
    for service, tags in (each.split("=") for each in asked):
        prepared = prepare_months(service, parse_months(tags))
        measured = measure_days([Window.learnable([month]) for month in prepared])
        for day, trips, level in zip(*measured, strict=True):
            if trips >= MIN_TRIPS and not SHUT[0] <= day <= SHUT[1]:
                out.writerow([service, day, trips, f"{level:.4f}"])


if __name__ == "__main__":
    main(sys.argv[1:])
