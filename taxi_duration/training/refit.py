"""Fits a judged model once more, now also on the month that judged it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from taxi_duration.data.window import Window
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.training.calibration import CALIBRATION_ROWS, both_intervals, calibration_rows
from taxi_duration.training.fit import fit_point, used_parameters
from taxi_duration.training.window_sums import window_sums


def refit_model(
    judged: DurationModel,
    window: Window,
    month: Window,
) -> DurationModel:
    """Return the same kind of model, fitted on a window that ends with the month that judged.

    Args:
        judged: fitted on earlier months alone.
        window: to fit on.
        month: the trips of the month that judged.
    """
    point = fit_point(judged.kind, window, judged.parameters.get("seed", 0))
    used = used_parameters(judged.kind, window)
    parameters = {**judged.parameters, **used, "rows_calibration": calibration_rows(month)}
    parameters.pop("rows_rehearsals", None)  # there were none
    pair_trips = window_sums(window).pair_trips()
    model = replace(judged, point=point, pair_trips=pair_trips, parameters=parameters)
    return with_shown_intervals(model, judged, month)


def with_shown_intervals(
    model: DurationModel, judged: DurationModel, window: Window
) -> DurationModel:
    """Return a model with the intervals that a judged one's errors on unseen rides show.

    The judged model answered a month ahead of what it knew, as the other one will: so the
    intervals are neither wider nor narrower than such answers are off.

    Args:
        window: rides that `judged` has not seen.
    """
    rides, actual = window.evenly(CALIBRATION_ROWS)
    asked = rides, rides.without_distance()
    minutes = np.array([judged.point.predict_minutes(each) for each in asked])
    support = judged.pair_trips[rides.PULocationID, rides.DOLocationID]
    used = judged.point.uses_distance(rides)
    given, without = both_intervals(rides, actual, minutes, support, used)
    return replace(model, with_distance=given, without_distance=without)
