"""Trees over the ride's features: one ensemble that knows the distance, one that does not.

XGBoost and scikit-learn are imported where they fit: serving walks packed trees without them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from taxi_duration import environment
from taxi_duration.domain.rides import Rides
from taxi_duration.model.atlas import Atlas, atlas_for
from taxi_duration.model.extra_features import load_conditions
from taxi_duration.model.tree_model import TreeModel, with_conditions
from taxi_duration.model.trees import TreeEnsemble
from taxi_duration.training.feature_tables import fit_tables, out_of_fold_features
from taxi_duration.training.season import STRAY_SHARE, last_day, season_step
from taxi_duration.training.tree_packing import from_forest, from_xgboost

HALF_LIFE_DAYS = 45.0
MAX_AGE_DAYS = 3650
# Rehearsals only calibrate intervals: their error is 1 % larger in a quarter of the time.
REHEARSAL_ROUNDS = 1 / 3
REHEARSAL_PARAMETERS = {"max_depth": 8}
REHEARSAL_TREES = 10  # of a forest

FOREST_PARAMETERS: dict[str, Any] = {
    "n_estimators": 40,
    "min_samples_leaf": 20,
    "max_features": 0.4,
    "max_samples": 0.7,
}


def fit_trees(
    kind: str,
    rides: Rides,
    duration: np.ndarray,
    seed: int = 0,
    threads: int = 2,
    rehearsal: bool = False,
) -> TreeModel:
    """Fit tables, both ensembles and the level of the month after.

    Args:
        kind: XGB or RF.
        rides: shape (n,).
        duration: minutes, 1 to 60, shape (n,).
        rehearsal: a quicker fit, for trips of the window itself: to calibrate intervals.
    """
    fit = {"XGB": _fit_boosted, "RF": _fit_forest}[kind]
    weight, atlas = recency_weight(rides.pickup_at), window_atlas(rides.pickup_at)
    conditions = load_conditions()
    names = () if conditions is None else conditions.names
    rows = out_of_fold_features(rides, duration, weight, atlas)
    informed, blind = with_conditions(rows, names, rides.pickup_at)
    known = TreeModel.uses_distance(rides)
    level = 1.0 if rehearsal else season_step(rides.pickup_at)
    return TreeModel(
        fit_tables(rides, duration, weight, atlas),
        _scaled(
            fit(informed[known], duration[known], weight[known], seed, threads, rehearsal), level
        ),
        _scaled(
            fit(np.ascontiguousarray(blind), duration, weight, seed, threads, rehearsal), level
        ),
        names,
    )


def recency_weight(pickup_at: np.ndarray) -> np.ndarray:
    """Return how much each trip counts, 1 on average, shape (n,): half for HALF_LIFE_DAYS before.

    Args:
        pickup_at: the window's trips, shape (n,), n > 0.
    """
    age = (last_day(pickup_at) - pickup_at.astype("datetime64[D]")).astype("int64")
    weight = 0.5 ** (np.clip(age, 0, MAX_AGE_DAYS) / HALF_LIFE_DAYS)
    return weight / weight.mean()


def window_atlas(pickup_at: np.ndarray) -> Atlas | None:
    """Return the atlas, None for a window that begins before it may be known, or unwanted.

    Args:
        pickup_at: the window's trips, shape (n,), n > 0.
    """
    days = np.sort(pickup_at.astype("datetime64[D]"))
    return atlas_for(days[int(STRAY_SHARE * len(days))]) if environment.use_atlas() else None


@cache
def xgb_settings() -> dict[str, Any]:
    """Return `rounds` and `parameters` as tuned (see `tuning.py`) and stored with the package."""
    import json

    return json.loads((files(__package__) / "xgb_settings.json").read_text())


def parameters_of(kind: str) -> dict[str, Any]:
    """Return the settings that a fit of this kind uses."""
    own = (
        FOREST_PARAMETERS
        if kind == "RF"
        else {"rounds": xgb_settings()["rounds"], **xgb_settings()["parameters"]}
    )
    return {**own, "half_life_days": HALF_LIFE_DAYS}


def fit_booster(
    rows: np.ndarray,
    duration: np.ndarray,
    settings: dict[str, Any],
    seed: int = 0,
    threads: int = 2,
    weight: np.ndarray | None = None,
) -> TreeEnsemble:
    """Fit one booster.

    Args:
        rows: features, float32, shape (n, k).
        duration: minutes, shape (n,).
        weight: how much each row counts, shape (n,); None for all alike.
        settings: `rounds` and `parameters`.
    """
    # Threads that spin while they wait cost a busy machine two to three times the fit itself.
    # Read when the library is loaded, so before the import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import xgboost

    parameters = {**settings["parameters"], "seed": seed, "nthread": threads}
    bins = parameters["max_bin"]
    data = xgboost.QuantileDMatrix(rows, duration, weight=weight, max_bin=bins, nthread=threads)
    return from_xgboost(xgboost.train(parameters, data, settings["rounds"]))


def rehearsal_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings for a quicker booster that learns about as much."""
    faster = min(settings["parameters"]["eta"] / REHEARSAL_ROUNDS, 1.0)
    return {
        "rounds": max(round(settings["rounds"] * REHEARSAL_ROUNDS), 1),
        "parameters": {**settings["parameters"], **REHEARSAL_PARAMETERS, "eta": faster},
    }


def _fit_boosted(
    rows: np.ndarray,
    duration: np.ndarray,
    weight: np.ndarray,
    seed: int,
    threads: int,
    rehearsal: bool,
) -> TreeEnsemble:
    settings = rehearsal_settings(xgb_settings()) if rehearsal else xgb_settings()
    return fit_booster(rows, duration, settings, seed, threads, weight)


def _fit_forest(
    rows: np.ndarray,
    duration: np.ndarray,
    weight: np.ndarray,
    seed: int,
    threads: int,
    rehearsal: bool,
) -> TreeEnsemble:
    from sklearn.ensemble import RandomForestRegressor

    parameters = FOREST_PARAMETERS | ({"n_estimators": REHEARSAL_TREES} if rehearsal else {})
    forest = RandomForestRegressor(**parameters, random_state=seed, n_jobs=threads)
    return from_forest(forest.fit(rows, duration, weight))


def _scaled(trees: TreeEnsemble, factor: float) -> TreeEnsemble:
    """Return trees whose every answer is multiplied by a factor."""
    nodes = trees.nodes.copy()
    nodes["value"] *= np.float32(factor)
    return replace(trees, nodes=nodes, base=trees.base * factor)
