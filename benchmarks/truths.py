"""Which true durations count, tried on real months: what is believed, and what is found out.

    TLC_URL=../shared/tlc python benchmarks/truths.py green 2020-03:2020-07,2020-09:2022-06

The tables of docs/loop.md, "Which truths count".
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from taxi_duration.data.prepared import prepare_months
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.truths import OFF_BY_FACTOR, OUTSIDE, SCORED, TOO_FAST, judge_truths

CALLS = (1000, 100, 25)  # rides that one sender tells at once
FACTORS = {"seconds": 60.0, "hours": 1 / 60, "doubled": 2.0, "halved": 0.5}
LOCKDOWN = ("2020-03-16", "2020-06-08")


def read_rides(service: str, tags: str) -> pd.DataFrame:
    """Return every ride of the months in the order in which it ended."""
    months = [
        month.every_ride().assign(month=str(month.raw.month))
        for month in prepare_months(service, parse_months(tags))
    ]
    rides = pd.concat(months, ignore_index=True)
    rides = rides[rides["pickup_at"].dt.strftime("%Y-%m") == rides["month"]]
    return rides.sort_values("dropoff_at", kind="stable", ignore_index=True)


def show_believed(rides: pd.DataFrame) -> None:
    """Print what the rule says of the rides as they are, told in calls of several sizes."""
    minutes = rides["duration"].to_numpy("float64")
    of_the_rule = (minutes >= 1) & (minutes <= 60)
    for size in (None, *CALLS):
        calls = None if size is None else np.arange(len(rides)) // size
        verdicts = judge_truths(minutes, Rides.from_frame(rides), calls)
        off = np.isin(verdicts, (OFF_BY_FACTOR, TOO_FAST)) & of_the_rule
        groups = np.unique(calls[verdicts == OFF_BY_FACTOR]).size if size else 0
        print(
            f"calls of {size}: {len(rides):,} rides, scored {(verdicts == SCORED).mean():.2%}, "
            f"outside {np.isin(verdicts, OUTSIDE).mean():.2%}, of 1-60 min kept back "
            f"{off.sum():,} ({off.sum() / of_the_rule.sum():.4%}), too fast "
            f"{((verdicts == TOO_FAST) & of_the_rule).sum():,}, calls off {groups:,}"
        )


def show_found(rides: pd.DataFrame) -> None:
    """Print how many whole days, and how many calls amid good ones, are found out."""
    minutes, columns = rides["duration"].to_numpy("float64"), Rides.from_frame(rides)
    day = columns.pickup_at.astype("datetime64[D]")
    usual = (day < np.datetime64(LOCKDOWN[0])) | (day >= np.datetime64(LOCKDOWN[1]))
    for name, factor in FACTORS.items():
        off = judge_truths(minutes * factor, columns) == OFF_BY_FACTOR
        caught, known = (np.unique(day[mask]) for mask in (off, np.ones(len(day), bool)))
        shares = [np.isin(np.unique(day[mask]), caught).mean() for mask in (usual, ~usual)]
        text = f"{name}: of {len(known):,} days {shares[0]:.1%}, of lockdown's {shares[1]:.1%}"
        for size in CALLS[1:]:
            calls = np.arange(len(rides)) // size
            bad = calls % 20 == 3
            verdicts = judge_truths(np.where(bad, minutes * factor, minutes), columns, calls)
            found = verdicts == OFF_BY_FACTOR
            text += f"; calls of {size} {found[bad].mean():.1%} (others {found[~bad].mean():.3%})"
        print(text)


def main(service: str, tags: str) -> None:
    """Print both tables for the months of a service."""
    rides = read_rides(service, tags)
    show_believed(rides)
    show_found(rides)


if __name__ == "__main__":
    main(*sys.argv[1:])
