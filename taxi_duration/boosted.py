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

from taxi_duration import config
from taxi_duration.atlas import Atlas, atlas_for
from taxi_duration.conditions import load_conditions, values_of
from taxi_duration.features import (
    FEATURES,
    FeatureTables,
    fit_tables,
    known_distance,
    out_of_fold_features,
    transform,
)
from taxi_duration.rides import Rides
from taxi_duration.trees import TreeEnsemble, from_forest, from_xgboost

STRAY_SHARE = 0.01  # a few trips are dated years before or after their month
HALF_LIFE_DAYS = 45.0
MAX_AGE_DAYS = 3650
AHEAD_DAYS = 31  # a model is made for the month after its window
SEASON_DAMPING = 0.7  # share of the season's step that 12 pairs of months really made
SEASON_STEP_DAYS = 7  # between two heights of the season's curve; the first is 4 January
# Rehearsals only calibrate intervals: their error is 1 % larger in a quarter of the time.
REHEARSAL_ROUNDS = 1 / 3
REHEARSAL_PARAMETERS = {"max_depth": 8}
REHEARSAL_TREES = 10  # of a forest
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
        conditions: names of the hour's conditions, the last features of both.
    """

    tables: FeatureTables
    informed: TreeEnsemble
    blind: TreeEnsemble
    conditions: tuple[str, ...] = ()

    def predict_minutes(self, rides: Rides) -> np.ndarray:
        """Return float32 minutes, shape (n,)."""
        rows = transform(rides, self.tables, with_distance=True)
        informed, blind = _both_rows(rows, self.conditions, rides.pickup_at)
        used = self.uses_distance(rides)
        minutes = np.empty(len(rides), dtype="float32")
        minutes[used] = self.informed.predict(informed[used])
        minutes[~used] = self.blind.predict(blind[~used])
        return np.clip(minutes, *LIMITS_MIN)

    @staticmethod
    def uses_distance(rides: Rides) -> np.ndarray:
        """True where the ride's own distance entered the answer, shape (n,)."""
        return ~np.isnan(known_distance(rides.trip_distance))


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
    informed, blind = _both_rows(rows, names, rides.pickup_at)
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


def _both_rows(
    rows: np.ndarray, conditions: tuple[str, ...], pickup_at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the trees with and without distance see, from the features of both.

    Without conditions nothing is copied: both are views.
    """
    blind = rows[:, : len(FEATURES)]
    if not conditions:
        return rows, blind
    values = values_of(conditions, pickup_at)
    return np.hstack([rows, values]), np.hstack([blind, values])


def recency_weight(pickup_at: np.ndarray) -> np.ndarray:
    """Return how much each trip counts, 1 on average, shape (n,): half for HALF_LIFE_DAYS before.

    Args:
        pickup_at: the window's trips, shape (n,), n > 0.
    """
    age = (_last_day(pickup_at) - pickup_at.astype("datetime64[D]")).astype("int64")
    weight = 0.5 ** (np.clip(age, 0, MAX_AGE_DAYS) / HALF_LIFE_DAYS)
    return weight / weight.mean()


def window_atlas(pickup_at: np.ndarray) -> Atlas | None:
    """Return the atlas, None for a window that begins before it may be known, or unwanted.

    Args:
        pickup_at: the window's trips, shape (n,), n > 0.
    """
    days = np.sort(pickup_at.astype("datetime64[D]"))
    return atlas_for(days[int(STRAY_SHARE * len(days))]) if config.use_atlas() else None


def _last_day(pickup_at: np.ndarray) -> np.datetime64:
    days = np.sort(pickup_at.astype("datetime64[D]"))
    return days[int((1 - STRAY_SHARE) * (len(days) - 1))]


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


def season_step(pickup_at: np.ndarray) -> float:
    """Return how much longer the season makes trips in the month after a window.

    A window that ends before the season's own data does gets 1: it could not have known.
    (A line through the window's days, asked for the next month, was wrong as often as right
    over 12 pairs of months; the season takes a quarter of a per cent off the RMSE.)

    Args:
        pickup_at: the window's trips, shape (n,), n > 0.
    """
    days, last = pickup_at.astype("datetime64[D]"), _last_day(pickup_at)
    if last < np.datetime64(_season()["known_from"]):
        return 1.0
    ahead = season_level(last + np.arange(1, AHEAD_DAYS + 1)).mean()
    step = ahead / season_level(days).mean() - 1.0
    return float(1.0 + SEASON_DAMPING * step)


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
