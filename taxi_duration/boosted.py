"""Trees over the ride's features: one ensemble that knows the distance, one that does not.

XGBoost and scikit-learn are imported where they fit: serving walks packed trees without them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from taxi_duration.features import (
    DISTANCE_FEATURES,
    FEATURES,
    FeatureTables,
    fit_tables,
    known_distance,
    out_of_fold_features,
    transform,
)
from taxi_duration.rides import Rides
from taxi_duration.trees import TreeEnsemble, from_forest, from_xgboost

LEVEL_DAYS = 31  # the level is read from the last month of the window
LEVEL_AHEAD_DAYS = 15  # and asked for the middle of the month after
LEVEL_DAMPING = 0.5  # trends between months go on about half as far as a line says
LEVEL_LIMITS = (0.85, 1.15)
LIMITS_MIN = (1.0, 60.0)  # minutes; the course rule knows no others

FOREST_PARAMETERS: dict[str, Any] = {
    "n_estimators": 40,
    "min_samples_leaf": 20,
    "max_features": 0.4,
    "max_samples": 0.7,
}


@dataclass(frozen=True)
class TreeModel:
    """A fitted tree model.

    Args:
        tables: what features are looked up in.
        informed: trees over the features with the asked distance.
        blind: trees over the features without it, also for distances that cannot be true.
    """

    tables: FeatureTables
    informed: TreeEnsemble
    blind: TreeEnsemble

    def predict_minutes(self, rides: Rides) -> np.ndarray:
        """Return float32 minutes, shape (n,)."""
        rows = transform(rides, self.tables, with_distance=True)
        used = self.uses_distance(rides)
        minutes = np.empty(len(rides), dtype="float32")
        minutes[used] = self.informed.predict(rows[used])
        minutes[~used] = self.blind.predict(rows[~used, : len(FEATURES)])
        return np.clip(minutes, *LIMITS_MIN)

    @staticmethod
    def uses_distance(rides: Rides) -> np.ndarray:
        """True where the ride's own distance entered the answer, shape (n,)."""
        return ~np.isnan(known_distance(rides.trip_distance))


def fit_trees(
    kind: str, rides: Rides, duration: np.ndarray, seed: int = 0, threads: int = 2
) -> TreeModel:
    """Fit tables, both ensembles and the level.

    Args:
        kind: XGB or RF.
        rides: shape (n,).
        duration: minutes, 1 to 60, shape (n,).
    """
    fit = {"XGB": _fit_booster, "RF": _fit_forest}[kind]
    rows = out_of_fold_features(rides, duration)
    known = TreeModel.uses_distance(rides)
    blind_rows = np.ascontiguousarray(rows[:, : len(FEATURES)])
    expected = rows[:, DISTANCE_FEATURES.index("expected_minutes")]
    level = future_level(rides.pickup_at, duration, expected)
    return TreeModel(
        fit_tables(rides, duration),
        _scaled(fit(rows[known], duration[known], seed, threads), level),
        _scaled(fit(blind_rows, duration, seed, threads), level),
    )


@cache
def xgb_settings() -> dict[str, Any]:
    """Return `rounds` and `parameters` as tuned (see `tuning.py`) and stored with the package."""
    import json

    return json.loads((files(__package__) / "xgb_settings.json").read_text())


def parameters_of(kind: str) -> dict[str, Any]:
    """Return the settings that a fit of this kind uses."""
    if kind == "RF":
        return dict(FOREST_PARAMETERS)
    return {"rounds": xgb_settings()["rounds"], **xgb_settings()["parameters"]}


def future_level(pickup_at: np.ndarray, duration: np.ndarray, expected: np.ndarray) -> float:
    """Return how much longer trips will be next month than the window's tables say.

    Traffic drifts: over 14 pairs of months, half of the step that a line through the last
    month's days announces takes away most of the next month's bias, and costs little when
    nothing drifts.

    Args:
        pickup_at: shape (n,).
        duration: minutes, shape (n,).
        expected: minutes looked up out of fold, shape (n,).
    """
    day = pickup_at.astype("datetime64[D]").astype("int64")
    last = int(np.quantile(day, 0.99))  # a few trips are dated beyond the window
    recent = (day <= last) & (day > last - LEVEL_DAYS)
    weight = expected[recent].astype("float64")
    ratio = duration[recent] / weight
    x = day[recent] - last
    centre, level = np.average(x, weights=weight), np.average(ratio, weights=weight)
    spread = np.average((x - centre) ** 2, weights=weight)
    slope = np.average((x - centre) * ratio, weights=weight) / spread if spread else 0.0
    ahead = level + slope * (LEVEL_AHEAD_DAYS - centre) - 1.0
    return float(np.clip(1.0 + LEVEL_DAMPING * ahead, *LEVEL_LIMITS))


def _fit_booster(rows: np.ndarray, duration: np.ndarray, seed: int, threads: int) -> TreeEnsemble:
    # Threads that spin while they wait cost a busy machine two to three times the fit itself.
    # Read when the library is loaded, so before the import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import xgboost

    parameters = xgb_settings()["parameters"]
    data = xgboost.QuantileDMatrix(rows, duration, max_bin=parameters["max_bin"], nthread=threads)
    settings = {**parameters, "seed": seed, "nthread": threads}
    return from_xgboost(xgboost.train(settings, data, xgb_settings()["rounds"]))


def _fit_forest(rows: np.ndarray, duration: np.ndarray, seed: int, threads: int) -> TreeEnsemble:
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(**FOREST_PARAMETERS, random_state=seed, n_jobs=threads)
    return from_forest(forest.fit(rows, duration))


def _scaled(trees: TreeEnsemble, factor: float) -> TreeEnsemble:
    """Return trees whose every answer is multiplied by a factor."""
    nodes = trees.nodes.copy()
    nodes["value"] *= np.float32(factor)
    return replace(trees, nodes=nodes, base=trees.base * factor)
