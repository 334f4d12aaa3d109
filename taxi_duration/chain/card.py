"""The card of a model: what it is, what it learned from, how good it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from threadpoolctl import threadpool_info

from taxi_duration.chain.commit import git_commit
from taxi_duration.chain.run import Run
from taxi_duration.domain.limits import ZONE_RANGE
from taxi_duration.model.atlas import atlas_sources
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.model.extra_features import load_conditions
from taxi_duration.model.made_with import versions_here
from taxi_duration.model.tree_model import TreeModel

INPUT_SCHEMA = {
    "PULocationID": {"type": "integer", "required": True, "unit": f"TLC taxi zone, {ZONE_RANGE}"},
    "DOLocationID": {"type": "integer", "required": True, "unit": f"TLC taxi zone, {ZONE_RANGE}"},
    "trip_distance": {"type": "number", "required": False, "unit": "miles"},
    "pickup_datetime": {
        "type": "string",
        "required": False,
        "unit": "ISO date and time, New York local; now when missing",
    },
}


def make_card(
    run: Run, model: DurationModel, metrics: dict[str, Any], digest: str, fit_seconds: float
) -> dict[str, Any]:
    """Return a candidate's card as JSON types; name and version are added on registration."""
    settings = run.settings
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_kind": model.kind,
        "service": settings.service,
        "input_schema": INPUT_SCHEMA,
        "output": {"duration": "minutes", "interval": "minutes, P10-P50-P90", "support": "trips"},
        "train_data": settings.train_data,
        "val_data": settings.val_data,
        "data_source": run.data_source,
        "months": {
            "train": [month.lineage() for month in run.train_months],
            "validation": [month.lineage() for month in run.val_months],
        },
        "health": [health.as_dict() for health in run.health],
        **_beside_months(model),
        "metrics": metrics,
        "predictions_sha256": digest,
        "parameters": model.parameters,
        "fit_seconds": round(fit_seconds, 3),
        "libraries": {**versions_here(), **_arithmetic()},
        "git_commit": git_commit(),
        "run_id": run.run_id,
    }


def _beside_months(model: DurationModel) -> dict[str, Any]:
    """What trees know from elsewhere: the atlas with its months, the hours' conditions."""
    if not isinstance(model.point, TreeModel):
        return {}
    beside: dict[str, Any] = {}
    if model.point.tables.atlas is not None:
        beside["atlas"] = atlas_sources()
    if model.point.conditions:
        conditions = load_conditions()
        beside["extra_features"] = {
            "columns": list(model.point.conditions),
            "file": conditions.file if conditions else None,
            "sha256": conditions.sha256 if conditions else None,
        }
    return beside


def _arithmetic() -> dict[str, str]:
    """Version and processor of the loaded libraries that add up: by another one, in another order.

    How many threads fit a model is a constant of ours.
    """
    loaded: dict[str, set[str]] = {}
    for one in threadpool_info():
        said = (one["prefix"], one["version"], one.get("architecture"))
        loaded.setdefault(one["user_api"], set()).add(" ".join(filter(None, said)))
    return {kind: ", ".join(sorted(builds)) for kind, builds in loaded.items()}
