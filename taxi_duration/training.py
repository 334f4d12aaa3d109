"""Fits a model of any kind: point answers on the whole window, intervals on its end."""

from __future__ import annotations

from typing import Any

import numpy as np

from taxi_duration.boosted import LIMITS_MIN, fit_trees, parameters_of
from taxi_duration.errors import SettingError
from taxi_duration.intervals import Intervals, fit_intervals
from taxi_duration.linear import fit_linear
from taxi_duration.models import DurationModel, PointModel, count_pairs, interval_groups
from taxi_duration.rides import Rides
from taxi_duration.settings import KINDS

CALIBRATION_SHARE = 0.25  # of the window's days, at its end
LINEAR_PARAMETERS: dict[str, dict[str, Any]] = {
    "LR": {},
    "LASSO": {"alpha": 0.001},
    "RIDGE": {"alpha": 1.0},
}
MIN_TRIPS = 100  # fewer cannot fill a calibration group


def fit_model(kind: str, rides: Rides, duration: np.ndarray, seed: int = 0) -> DurationModel:
    """Fit one kind on a training window.

    The last quarter of the window's days calibrates the intervals of a model fitted on the
    days before; the model itself is then fitted on the whole window.

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
    early = rides.pickup_at < calibration_start(rides.pickup_at)
    rehearsal = fit_point(kind, rides.take(early), duration[early], seed)
    point = fit_point(kind, rides, duration, seed)
    scale = len(rides) / early.sum()  # brings the rehearsal's counts to full size
    support = count_pairs(rides.take(early)) * scale
    informed, blind = _calibrate(rehearsal, rides.take(~early), duration[~early], support)
    parameters = {**fit_parameters(kind), "seed": seed}
    return DurationModel(kind, point, informed, blind, count_pairs(rides), parameters)


def fit_point(kind: str, rides: Rides, duration: np.ndarray, seed: int = 0) -> PointModel:
    """Fit the point answers alone; arguments as `fit_model`."""
    if kind not in LINEAR_PARAMETERS:
        return fit_trees(kind, rides, duration, seed)
    from sklearn.linear_model import Lasso, LinearRegression, Ridge

    estimators = {"LR": LinearRegression, "LASSO": Lasso, "RIDGE": Ridge}
    return fit_linear(estimators[kind](**LINEAR_PARAMETERS[kind]), rides, duration)


def fit_parameters(kind: str) -> dict[str, Any]:
    """Return the settings that a fit of this kind uses."""
    return dict(LINEAR_PARAMETERS[kind]) if kind in LINEAR_PARAMETERS else parameters_of(kind)


def calibration_start(pickup_at: np.ndarray) -> np.datetime64:
    """Return the midnight after which the last quarter of the trips' days lies."""
    days = np.unique(pickup_at.astype("datetime64[D]"))
    return days[int(len(days) * (1 - CALIBRATION_SHARE))]


def _calibrate(
    model: PointModel, rides: Rides, duration: np.ndarray, support: np.ndarray
) -> tuple[Intervals, Intervals]:
    """Return intervals with and without distance from trips after the model's window.

    Args:
        support: trips of each pair in the whole window, shape (266, 266).
    """
    group = interval_groups(rides, support[rides.PULocationID, rides.DOLocationID])
    used = model.uses_distance(rides)
    informed, blind = (
        np.clip(model.predict_minutes(asked), *LIMITS_MIN)
        for asked in (rides, rides.without_distance())
    )
    return (
        fit_intervals(informed[used], duration[used], group[used]),
        fit_intervals(blind, duration, group),
    )
