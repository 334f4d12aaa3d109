"""The plain recipe that ours are held against: LightGBM with what a careful person would give it.

Zones, hour, weekday, centroids, straight distance and direction; the usual minutes and pace of the
pair and of both zones by hour, which leave out the trip's own fold of days; with a distance also
its ratio to the straight one. 127 leaves, rate 0.05, stopped on the last tenth of the days.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from taxi_duration.domain.geometry import ZONES, zone_geometry
from taxi_duration.domain.pickup_calendar import hours_of_day, weekdays
from taxi_duration.domain.rides import Rides
from taxi_duration.model.features import known_distance

SETTINGS = {"num_leaves": 127, "learning_rate": 0.05, "verbose": -1}
ROUNDS, PATIENCE = 2000, 50
STOP_SHARE = 0.1  # of the training days, at their end, tells when to stop
FOLDS = 5  # of days
PRIOR_TRIPS = 10.0  # that the mean counts for, beside the trips of a pair or of an hour
Predict = Callable[[Rides], np.ndarray]


def fit_plain_lightgbm(rides: Rides, minutes: np.ndarray, threads: int) -> tuple[Predict, Predict]:
    """Return what answers with the distance, and what answers without.

    Args:
        rides, minutes: past trips, shape (n,).
    """
    day = rides.pickup_at.astype("datetime64[D]").astype("int64")
    days = np.unique(day)
    early = day < days[int(len(days) * (1 - STOP_SHARE))]
    usual = [np.empty((len(rides), 3)) for _ in range(2)]
    for fold in range(FOLDS):
        own = day % FOLDS == fold
        encoded = Usual(rides.take(~own), minutes[~own]).of(rides.take(own))
        for place, values in zip(usual, encoded, strict=True):
            place[own] = values
    whole = Usual(rides, minutes)

    def fit(columns: Callable[..., np.ndarray]) -> Predict:
        booster = _boost(columns(rides, *usual), minutes, early, threads)
        return lambda asked: booster.predict(columns(asked, *whole.of(asked)), num_threads=threads)

    return fit(_with_distance), fit(_without_distance)


class Usual:
    """Usual minutes, and minutes a mile, of pairs and of zones by hour."""

    def __init__(self, rides: Rides, minutes: np.ndarray) -> None:
        miles = known_distance(rides.trip_distance)
        known = ~np.isnan(miles)
        self._tables = [
            [_means(codes[rows], top[rows], bottom[rows]) for codes in _codes(rides)]
            for top, bottom, rows in (
                (minutes, np.ones(len(rides)), known | True), (minutes, miles, known),
            )
        ]  # fmt: skip

    def of(self, rides: Rides) -> tuple[np.ndarray, np.ndarray]:
        """Return both for rides, shape (n, 3) each: of the pair, of pickup and drop-off by hour."""
        codes = _codes(rides)
        minutes, pace = (
            np.column_stack([table[code] for table, code in zip(tables, codes, strict=True)])
            for tables in self._tables
        )
        return minutes, pace


def _codes(rides: Rides) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pickup, dropoff = rides.PULocationID.astype("int64"), rides.DOLocationID.astype("int64")
    hour = hours_of_day(rides.pickup_at)
    return pickup * ZONES + dropoff, pickup * 24 + hour, dropoff * 24 + hour


def _means(code: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return top over bottom of each code, shape (ZONES * ZONES,), shrunk to that of all trips."""
    size = ZONES * ZONES
    prior = PRIOR_TRIPS * bottom.mean()
    tops, bottoms = np.bincount(code, top, size), np.bincount(code, bottom, size)
    means: np.ndarray = (tops + prior * top.sum() / bottom.sum()) / (bottoms + prior)
    return means


def _without_distance(rides: Rides, minutes: np.ndarray, _: np.ndarray) -> np.ndarray:
    zones, places = zone_geometry(), (rides.PULocationID, rides.DOLocationID)
    clock = (hours_of_day(rides.pickup_at), weekdays(rides.pickup_at))
    return np.column_stack([
        *places, *clock, *(zones.centre_km[place] for place in places),
        zones.straight_km[places], zones.east_km[places], zones.north_km[places], minutes,
    ])  # fmt: skip


def _with_distance(rides: Rides, minutes: np.ndarray, pace: np.ndarray) -> np.ndarray:
    miles = known_distance(rides.trip_distance)
    straight = zone_geometry().straight_km[rides.PULocationID, rides.DOLocationID]
    return np.column_stack([
        _without_distance(rides, minutes, pace), miles, miles / straight, pace,
        miles[:, None] * pace,
    ])  # fmt: skip


def _boost(rows: np.ndarray, minutes: np.ndarray, early: np.ndarray, threads: int) -> Any:
    import lightgbm

    learned = lightgbm.Dataset(rows[early], minutes[early], categorical_feature=[0, 1])
    later = lightgbm.Dataset(rows[~early], minutes[~early], reference=learned)
    return lightgbm.train(
        {**SETTINGS, "num_threads": threads}, learned, ROUNDS, valid_sets=[later],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )  # fmt: skip
