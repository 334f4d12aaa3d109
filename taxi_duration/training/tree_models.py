"""Trees over the ride's features: one ensemble that knows the distance, one that does not.

XGBoost and scikit-learn are imported where they fit: serving walks packed trees without them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from taxi_duration.data.window import Window
from taxi_duration.logs import tell_step
from taxi_duration.model.atlas import Atlas, atlas_for
from taxi_duration.model.extra_features import load_conditions
from taxi_duration.model.tree_model import TreeModel, with_conditions
from taxi_duration.model.trees import TreeEnsemble
from taxi_duration.training.feature_tables import fit_tables, out_of_fold_features
from taxi_duration.training.season import STRAY_SHARE, last_day, season_step

HALF_LIFE_DAYS = 45.0
MAX_AGE_DAYS = 3650
# Rehearsals only calibrate intervals: their error is 1 % larger in a quarter of the time.
REHEARSAL_ROUNDS = 1 / 3  # of a booster's
REHEARSAL_DEPTH = 8
THREADS = 2
TELL_SECONDS = 5.0  # from one line of progress to the next: seldom enough for a log


@dataclass(frozen=True)
class TreeKind:
    """Trees over the ride's features.

    Args:
        learn: fits a library's object on rows (n, k), minutes (n,) and weights (n,), with
            parameters, a seed and as many threads.
        pack: turns that object into our nodes.
        parameters: given to `learn`.
        quicker: those that differ in a rehearsal.
    """

    learn: Callable[[np.ndarray, np.ndarray, np.ndarray, dict[str, Any], int, int], Any]
    pack: Callable[[Any], TreeEnsemble]
    parameters: Mapping[str, Any]
    quicker: Mapping[str, Any]
    threads = THREADS  # that a fit keeps busy

    def fit(self, window: Window, seed: int = 0, rehearsal: bool = False) -> TreeModel:
        """Fit tables, both ensembles and the level of the month after.

        Args:
            window: past trips of 1 to 60 minutes.
            rehearsal: a quicker fit, for trips of the window itself: to calibrate intervals.
        """
        rides, duration = window.whole()
        weight, atlas = recency_weight(rides.pickup_at), window_atlas(rides.pickup_at)
        conditions = load_conditions()
        names = () if conditions is None else conditions.names
        rows = out_of_fold_features(rides, duration, weight, atlas)
        whole, first = with_conditions(rows, names, rides.pickup_at)
        known = TreeModel.uses_distance(rides)
        parameters = {**self.parameters, **(self.quicker if rehearsal else {})}
        level = 1.0 if rehearsal else season_step(rides.pickup_at)

        def trees(rows: np.ndarray, used: slice | np.ndarray) -> TreeEnsemble:
            rows = np.ascontiguousarray(rows[used])
            fitted = self.learn(rows, duration[used], weight[used], parameters, seed, THREADS)
            return _scaled(self.pack(fitted), level)

        tables = fit_tables(rides, duration, weight, atlas)
        return TreeModel(tables, trees(whole, known), trees(first, slice(None)), names)


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
    return atlas_for(days[int(STRAY_SHARE * len(days))])


@cache
def xgb_settings() -> dict[str, Any]:
    """Return `rounds` and `parameters` as tuned (see `tuning.py`) and stored with the package."""
    import json

    return json.loads((files(__package__) / "xgb_settings.json").read_text())


def xgb_parameters() -> dict[str, Any]:
    """Return the same side by side, as `learn_booster` takes them."""
    return flat_settings(xgb_settings())


def flat_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return `rounds` and `parameters` side by side."""
    return {"rounds": settings["rounds"], **settings["parameters"]}


def quicker_boosting(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what a booster changes to learn about as much in a quarter of the time."""
    return {
        "rounds": max(round(parameters["rounds"] * REHEARSAL_ROUNDS), 1),
        "eta": min(parameters["eta"] / REHEARSAL_ROUNDS, 1.0),
        "max_depth": REHEARSAL_DEPTH,
    }


def learn_booster(
    rows: np.ndarray,
    duration: np.ndarray,
    weight: np.ndarray | None,
    parameters: dict[str, Any],
    seed: int,
    threads: int,
) -> Any:
    """Return a fitted XGBoost booster; arguments as in `TreeKind`.

    Args:
        weight: None for all alike.
        parameters: XGBoost's, and `rounds`.
    """
    # Threads that spin while they wait cost a busy machine two to three times the fit itself.
    # Read when the library is loaded, so before the import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import xgboost

    own = {"seed": seed, "nthread": threads}
    given = {name: value for name, value in parameters.items() if name != "rounds"}
    bins = parameters["max_bin"]
    data = xgboost.QuantileDMatrix(rows, duration, weight=weight, max_bin=bins, nthread=threads)
    rounds = parameters["rounds"]
    return xgboost.train({**given, **own}, data, rounds, callbacks=[_tell_rounds(rounds)])


def _tell_rounds(rounds: int) -> Any:
    """Return what tells now and then how many trees a booster has."""
    from xgboost.callback import TrainingCallback

    class TellRounds(TrainingCallback):  # type: ignore[misc, unused-ignore]
        told = time.monotonic()

        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if time.monotonic() - self.told >= TELL_SECONDS:
                self.told = time.monotonic()
                tell_step(f"{epoch + 1} of {rounds} trees")
            return False  # go on

    return TellRounds()


def learn_forest(
    rows: np.ndarray,
    duration: np.ndarray,
    weight: np.ndarray,
    parameters: dict[str, Any],
    seed: int,
    threads: int,
) -> Any:
    """Return a fitted scikit-learn forest; arguments as in `TreeKind`."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(**parameters, random_state=seed, n_jobs=threads)
    return forest.fit(rows, duration, weight)


def _scaled(trees: TreeEnsemble, factor: float) -> TreeEnsemble:
    """Return trees whose every answer is multiplied by a factor."""
    nodes = trees.nodes.copy()
    nodes["value"] *= np.float32(factor)
    return replace(trees, nodes=nodes, base=trees.base * factor)
