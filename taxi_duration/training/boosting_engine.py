"""Boosts where `ENGINE` says: in this process, or on a Dask cluster."""

from __future__ import annotations

from typing import Any

import numpy as np

from taxi_duration import environment
from taxi_duration.training.boosting import Batches, RowBatch, boost_here


def learn_booster(
    rows: np.ndarray,
    duration: np.ndarray,
    weight: np.ndarray | None,
    parameters: dict[str, Any],
    seed: int,
    threads: int,
) -> Any:
    """Return a booster fitted on rows that lie in memory; arguments as in `TreeKind`.

    Args:
        weight: None for all alike.
        parameters: XGBoost's, and `rounds`.
    """
    return boost(lambda: iter([RowBatch(rows, duration, weight)]), parameters, seed, threads)


def boost(
    batches: Batches, parameters: dict[str, Any], seed: int, threads: int, on_disk: bool = False
) -> Any:
    """Return a fitted XGBoost booster; arguments as `boost_here`.

    With `ENGINE=dask` workers of the cluster fit it, unless there is nothing to learn from.

    Raises:
        SettingError: XGBoost cannot compute where `DEVICE` says.
        ClusterError: as `boost_on_cluster`.
    """
    if environment.engine() == "dask":
        from taxi_duration.training.cluster_boosting import boost_on_cluster

        booster = boost_on_cluster(batches, parameters, seed, on_disk)
        if booster is not None:
            return booster
    return boost_here(batches, parameters, seed, threads, on_disk)
