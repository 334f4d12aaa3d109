"""Trees over the ride's features: one ensemble that knows the distance, one that does not.

scikit-learn is imported where it fits: serving walks packed trees without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taxi_duration.data.window import Window
from taxi_duration.model.atlas import Atlas, atlas_for
from taxi_duration.model.extra_features import load_conditions
from taxi_duration.model.tree_model import TreeModel, with_conditions
from taxi_duration.model.trees import TreeEnsemble
from taxi_duration.training.feature_tables import fit_tables, out_of_fold_features
from taxi_duration.training.season import STRAY_SHARE, last_day, season_step

HALF_LIFE_DAYS = 45.0
MAX_AGE_DAYS = 3650
THREADS = 2


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
