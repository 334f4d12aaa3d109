"""Trees over the ride's features: one ensemble that knows the distance, one that does not.

scikit-learn is imported where it fits: serving walks packed trees without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taxi_duration.data.window import Window
from taxi_duration.model.extra_features import load_conditions
from taxi_duration.model.tree_model import TreeModel, with_conditions
from taxi_duration.model.trees import TreeEnsemble
from taxi_duration.training.feature_tables import fit_tables, fold_tables, window_atlas
from taxi_duration.training.season import season_step
from taxi_duration.training.window_sums import window_sums

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

    def fit(
        self,
        window: Window,
        seed: int = 0,
        rehearsal: bool = False,
        left_out: int | None = None,
    ) -> TreeModel:
        """Fit tables, both ensembles and the level of the month after.

        Args:
            window: past trips of 1 to 60 minutes.
            rehearsal: a quicker fit, for trips of the window itself: to calibrate intervals.
            left_out: a block of days that is not learned from.
        """
        sums, atlas = window_sums(window), window_atlas(window)
        conditions = load_conditions()
        names = () if conditions is None else conditions.names
        batches = list(fold_tables(sums, left_out, atlas).batches(window))
        rows, duration, weight = (
            np.concatenate([getattr(batch, name) for batch in batches])
            for name in ("rows", "minutes", "weight")
        )
        pickup_at = np.concatenate([batch.rides.pickup_at for batch in batches])
        known = np.concatenate([TreeModel.uses_distance(batch.rides) for batch in batches])
        del batches
        whole, first = with_conditions(rows, names, pickup_at)
        parameters = {**self.parameters, **(self.quicker if rehearsal else {})}
        level = 1.0 if rehearsal else season_step(sums.days)

        def trees(rows: np.ndarray, used: slice | np.ndarray) -> TreeEnsemble:
            rows = np.ascontiguousarray(rows[used])
            fitted = self.learn(rows, duration[used], weight[used], parameters, seed, THREADS)
            return _scaled(self.pack(fitted), level)

        tables = fit_tables(sums.table_sums(left_out), sums.curve, atlas)
        return TreeModel(tables, trees(whole, known), trees(first, slice(None)), names)


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
