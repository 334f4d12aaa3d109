"""Fits a model of any kind: point answers on the whole window, intervals by rehearsals in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from taxi_duration.atlas import atlas_sources
from taxi_duration.boosted import LIMITS_MIN, TreeModel, fit_trees, parameters_of
from taxi_duration.errors import SettingError
from taxi_duration.intervals import Intervals, fit_intervals
from taxi_duration.linear import fit_linear
from taxi_duration.models import DurationModel, PointModel, count_pairs, interval_groups
from taxi_duration.rides import Rides
from taxi_duration.settings import KINDS

CALIBRATION_BLOCKS = 3  # of days in a row: trips of one block share its level of traffic
LINEAR_PARAMETERS: dict[str, dict[str, Any]] = {
    "LR": {},
    "LASSO": {"alpha": 0.0003},  # 0.001 shrinks so many pairs away that the pair's mean beats it
    # At the default tolerance one distance of 244,152 miles stops the solver far too early.
    "RIDGE": {"alpha": 1.0, "tol": 1e-9},
}
MIN_TRIPS = 100  # fewer cannot fill a calibration group


def fit_model(kind: str, rides: Rides, duration: np.ndarray, seed: int = 0) -> DurationModel:
    """Fit one kind on a training window.

    The intervals are calibrated on every third of the window's days in turn, predicted by a
    rehearsal that was fitted on the other two: so the traffic's changes from week to week are
    in them. The model itself is then fitted on the whole window.

    Args:
        kind: LR, LASSO, RIDGE, RF or XGB.
        rides: shape (n,).
        duration: minutes, shape (n,).
        seed: of everything random.
    Raises:
        SettingError: unknown kind, or too few trips to learn from.
    """
    if kind not in KINDS:
        raise SettingError(f"model kind {kind!r} is not known; there are {', '.join(KINDS)}")
    if len(rides) < MIN_TRIPS:
        raise SettingError(f"{len(rides)} trips are too few to learn from; at least {MIN_TRIPS}")
    point = fit_point(kind, rides, duration, seed)
    informed, blind = _calibrate(kind, rides, duration, seed)
    parameters = {**fit_parameters(kind), **_known_beside(point), "seed": seed}
    return DurationModel(kind, point, informed, blind, count_pairs(rides), parameters)


def _known_beside(point: PointModel) -> dict[str, Any]:
    """What trees were given beside the window's trips, for the card and for MLflow."""
    if not isinstance(point, TreeModel):
        return {}
    atlas = "none" if point.tables.atlas is None else atlas_sources()["sha256"][:12]
    return {"atlas": atlas, "extra_features": ",".join(point.conditions) or "none"}


def fit_point(
    kind: str, rides: Rides, duration: np.ndarray, seed: int = 0, rehearsal: bool = False
) -> PointModel:
    """Fit the point answers alone; arguments as `fit_model`, `rehearsal` as `fit_trees`."""
    if kind not in LINEAR_PARAMETERS:
        return fit_trees(kind, rides, duration, seed, rehearsal=rehearsal)
    from sklearn.linear_model import Lasso, LinearRegression, Ridge

    estimators = {"LR": LinearRegression, "LASSO": Lasso, "RIDGE": Ridge}
    return fit_linear(estimators[kind](**LINEAR_PARAMETERS[kind]), rides, duration)


def fit_parameters(kind: str) -> dict[str, Any]:
    """Return the settings that a fit of this kind uses."""
    return dict(LINEAR_PARAMETERS[kind]) if kind in LINEAR_PARAMETERS else parameters_of(kind)


def calibration_blocks(pickup_at: np.ndarray) -> np.ndarray:
    """Return each trip's block, 0 to CALIBRATION_BLOCKS - 1: equally many days in a row.

    A window of fewer days is cut into equally many trips in a row.

    Args:
        pickup_at: shape (n,), n >= CALIBRATION_BLOCKS.
    """
    days, place = np.unique(pickup_at.astype("datetime64[D]"), return_inverse=True)
    if len(days) < CALIBRATION_BLOCKS:
        place = np.argsort(np.argsort(pickup_at, kind="stable"), kind="stable")
    return place * CALIBRATION_BLOCKS // (place.max() + 1)


def _calibrate(
    kind: str, rides: Rides, duration: np.ndarray, seed: int
) -> tuple[Intervals, Intervals]:
    """Return intervals with and without distance, from rehearsals that left out the block."""
    block = calibration_blocks(rides.pickup_at)
    minutes = np.empty((2, len(rides)))
    support = np.empty(len(rides))
    for k in range(CALIBRATION_BLOCKS):
        held, rest = block == k, block != k
        model = fit_point(kind, rides.take(rest), duration[rest], seed, rehearsal=True)
        asked = rides.take(held)
        minutes[0, held] = model.predict_minutes(asked)
        minutes[1, held] = model.predict_minutes(asked.without_distance())
        trips = count_pairs(rides.take(rest))[asked.PULocationID, asked.DOLocationID]
        support[held] = trips * (len(rides) / rest.sum())  # as many as the whole window has
    group = interval_groups(rides, support)
    informed, blind = np.clip(minutes, *LIMITS_MIN)
    used = model.uses_distance(rides)
    return (
        fit_intervals(informed[used], duration[used], group[used]),
        fit_intervals(blind, duration, group),
    )
