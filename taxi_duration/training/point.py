"""Fits the point answers of any kind of model."""

from __future__ import annotations

from typing import Any

import numpy as np

from taxi_duration.domain.rides import Rides
from taxi_duration.model.duration_model import (
    PointModel,
)
from taxi_duration.training.linear_models import LINEAR_PARAMETERS, fit_linear
from taxi_duration.training.tree_models import fit_trees, parameters_of


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
