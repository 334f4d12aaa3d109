"""Cards as the chain writes them, and models that differ, for bundles that tests save."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import Any

from taxi_duration.model.duration_model import DurationModel


def make_card(kind: str, **changes: Any) -> dict[str, Any]:
    """A whole card of a version 1 of green taxis, with some fields changed."""
    scores = {"rmse": 5.0, "mae": 3.2, "coverage": 0.8}
    return {
        "name": "green-duration",
        "version": 1,
        "created": "2021-03-01T00:00:00+00:00",
        "model_kind": kind,
        "service": "green",
        "train_data": "2021-01",
        "val_data": "2021-02",
        "data_source": "sample",
        "months": {"train": [make_month("2021-01")], "validation": [make_month("2021-02")]},
        "metrics": {"with_distance": scores, "without_distance": {**scores, "mae": 4.0}},
        "parameters": {"seed": 0},
        "libraries": {"python": platform.python_version()},
        "git_commit": "unknown",
        "run_id": "20210301-000000-abcd",
        "model_sha256": "0" * 64,  # saving sets it
        **changes,
    }


def with_another_trip(model: DurationModel) -> DurationModel:
    """The model, one past trip richer: another digest."""
    trips = model.pair_trips.copy()
    trips[1, 1] += 1
    return replace(model, pair_trips=trips)


def make_month(month: str) -> dict[str, Any]:
    """What a card keeps of a source month."""
    return {
        "service": "green",
        "month": month,
        "file": f"green_tripdata_{month}.parquet",
        "url": None,
        "sha256": "0" * 64,
        "data_source": "sample",
        "rows_read": 1000,
        "rows_kept": 900,
        "reasons": {"too_short": 100},
    }
