"""Fits a model of any kind: point answers on the whole window, intervals by rehearsals in it."""

from __future__ import annotations

from typing import Any

from taxi_duration.data.window import Window
from taxi_duration.errors import SettingError
from taxi_duration.logs import log_step
from taxi_duration.model.atlas import atlas_sources
from taxi_duration.model.duration_model import DurationModel, PointModel
from taxi_duration.model.tree_model import TreeModel
from taxi_duration.training.calibration import calibrate_intervals, calibration_rows
from taxi_duration.training.kinds import find_kind
from taxi_duration.training.tree_models import TreeKind
from taxi_duration.training.window_sums import HALF_LIFE_DAYS, window_sums

MIN_TRIPS = 100  # fewer cannot fill a calibration group


def fit_model(kind: str, window: Window, seed: int = 0) -> DurationModel:
    """Fit one kind on a training window.

    The intervals are calibrated on every third of the window's days in turn, predicted by a
    rehearsal that was fitted on the other two: so the traffic's changes from week to week are
    in them. The model itself is then fitted on the whole window.

    Args:
        kind: one of `kinds.py`.
        window: past trips, n of them.
        seed: of everything random.
    Raises:
        SettingError: unknown kind, or too few trips to learn from.
    """
    fitted_as = find_kind(kind)
    if len(window) < MIN_TRIPS:
        raise SettingError(f"{len(window)} trips are too few to learn from; at least {MIN_TRIPS}")
    log_step(f"fit on {len(window):,} trips")
    point = fitted_as.fit(window, seed)
    intervals = calibrate_intervals(kind, window, seed)
    rows = {
        "rows_rehearsals": rehearsal_rows(kind, window),
        "rows_calibration": calibration_rows(window),
    }
    parameters = {**used_parameters(kind, window), **_known_beside(point), **rows, "seed": seed}
    return DurationModel(kind, point, *intervals, window_sums(window).pair_trips(), parameters)


def fit_point(
    kind: str, window: Window, seed: int = 0, rehearsal: bool = False, most: int | None = None
) -> PointModel:
    """Fit the point answers alone; arguments as `fit_model`.

    Args:
        rehearsal: a quicker fit where the kind has one, to calibrate intervals.
        most: trips that trees learn from, where they are to be fewer than usual.
    """
    return find_kind(kind).fit(window, seed, rehearsal, most=most)


def used_parameters(kind: str, window: Window) -> dict[str, Any]:
    """Return with what, and from how many trips, the parts of a model learn, for the card."""
    fitted_as, trips = find_kind(kind), len(window)
    if not isinstance(fitted_as, TreeKind):
        return {**fitted_as.parameters, "rows_tables": trips}
    rows = min(trips, fitted_as.most_rows() or trips)
    return {**fitted_as.used_parameters(rows), "rows_tables": trips, "rows_trees": rows}


def rehearsal_rows(kind: str, window: Window) -> int:
    """Return what each rehearsal learns from, at least: trees from these rows, others from all."""
    fitted_as, sums = find_kind(kind), window_sums(window)
    rest = min(int(sums.pair_trips(left_out=k).sum()) for k in sums.blocks)
    if not isinstance(fitted_as, TreeKind):
        return rest
    return min(rest, fitted_as.most_rows(rehearsal=True) or rest)


def _known_beside(point: PointModel) -> dict[str, Any]:
    """What trees were given beside the window's trips, for the card and for MLflow."""
    if not isinstance(point, TreeModel):
        return {}
    sources = atlas_sources()
    return {
        "half_life_days": HALF_LIFE_DAYS,
        "atlas": sources["sha256"][:12] if sources and point.tables.atlas else "none",
        "extra_features": ",".join(point.conditions) or "none",
    }
