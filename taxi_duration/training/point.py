"""Fits the point answers of any kind of model."""

from __future__ import annotations

from taxi_duration.data.window import Window
from taxi_duration.model.duration_model import PointModel
from taxi_duration.training.kinds import find_kind


def fit_point(
    kind: str, window: Window, seed: int = 0, rehearsal: bool = False, most: int | None = None
) -> PointModel:
    """Fit the point answers alone; arguments as `fit_model`.

    Args:
        rehearsal: a quicker fit where the kind has one, to calibrate intervals.
        most: trips that trees learn from, where they are to be fewer than usual.
    """
    return find_kind(kind).fit(window, seed, rehearsal, most=most)
