"""How right answers are: errors in minutes, overall and by segment; coverage, width and losses of
the quantiles.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from taxi_duration.domain.pickup_calendar import hours_of_day, weekdays
from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.domain.special_days import SATURDAY
from taxi_duration.domain.zones import zone_groups
from taxi_duration.model.intervals import LEVELS, RARE_TRIPS

NOMINAL_COVERAGE = 0.8
ERROR_SUMS = ("rows", "squared", "absolute", "signed")  # of errors in minutes
PINBALLS = ("pinball_p10", "pinball_p50", "pinball_p90")
ANSWER_SUMS = (*ERROR_SUMS, "inside", "width", *PINBALLS)
# CRPS is twice the integral of the pinball loss over all levels. These weights of the three levels
# integrate every polynomial up to degree 3 exactly (interpolatory quadrature on 0 to 1; at level 0
# and 1 no loss is known). For true quantiles of a normal or a Laplace distribution they are off by
# 0.1 to 0.2 %; the plain mean of the three losses would be off by 9 to 11 %.
CRPS_WEIGHTS = (50 / 96, 92 / 96, 50 / 96)
SEGMENTS = ("airport", "manhattan_internal", "outer_to_outer", "rare_pair", "rush_hour")


def error_metrics(actual: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return RMSE, MAE and bias (predicted - actual) in minutes.

    Args:
        actual, predicted: minutes, shape (n,), n > 0.
    """
    return error_figures(sum_errors(actual, predicted))


def sum_errors(actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return ERROR_SUMS of some trips: float64 of shape (4,), to be added to those of others."""
    error = predicted.astype("float64") - actual
    return np.array([len(error), *(column.sum() for column in _errors(error))])


def error_figures(sums: np.ndarray) -> dict[str, float]:
    """Return `error_metrics` from the sums over all trips, n > 0."""
    rows, squared, absolute, signed = sums[: len(ERROR_SUMS)].tolist()
    return {"rmse": math.sqrt(squared / rows), "mae": absolute / rows, "bias": signed / rows}


def interval_metrics(actual: np.ndarray, answers: Answers) -> dict[str, float]:
    """Return `coverage` (the share of trips inside P10-P90), `mean_width`, and losses, in minutes.

    `pinball_p10`, `pinball_p50`, `pinball_p90` are the quantiles' losses, `pinball` is their mean,
    `crps` the continuous ranked probability score by CRPS_WEIGHTS: the smaller, the better.
    """
    return _interval_figures(np.mean(_intervals(actual, answers), axis=1).tolist())


def _errors(error: np.ndarray) -> tuple[np.ndarray, ...]:
    return error**2, np.abs(error), error


def _intervals(actual: np.ndarray, answers: Answers) -> tuple[np.ndarray, ...]:
    """Which trips lie inside P10-P90, how wide that is, PINBALLS: float64 of shape (n,) each."""
    inside = (actual >= answers.p10) & (actual <= answers.p90)
    width = answers.p90.astype("float64") - answers.p10
    quantiles = zip(LEVELS, (answers.p10, answers.p50, answers.p90), strict=True)
    losses = (pinball_loss(actual, quantile, level) for level, quantile in quantiles)
    return inside.astype("float64"), width, *losses


def pinball_loss(actual: np.ndarray, quantile: np.ndarray, level: float) -> np.ndarray:
    """Return the loss of a quantile of this level for each trip, minutes, float64 of shape (n,).

    On average it is least for the true quantile.
    """
    above = actual.astype("float64") - quantile
    return np.maximum(level * above, (level - 1) * above)


def _interval_figures(means: list[float]) -> dict[str, float]:
    """Name the means of `_intervals`, and what follows from them."""
    inside, width, *losses = means
    crps = sum(weight * loss for weight, loss in zip(CRPS_WEIGHTS, losses, strict=True))
    named = dict(zip(PINBALLS, losses, strict=True))
    mean = sum(losses) / len(losses)
    return {"coverage": inside, "mean_width": width, "pinball": mean, **named, "crps": crps}


def segment_masks(rides: Rides, support: np.ndarray) -> dict[str, np.ndarray]:
    """Return one boolean mask of shape (n,) per segment; segments overlap.

    Args:
        rides: shape (n,).
        support: past trips of the same pair, shape (n,).
    """
    airport, manhattan, outer = zone_groups()
    start, end = rides.PULocationID, rides.DOLocationID
    masks = (
        airport[start] | airport[end],
        manhattan[start] & manhattan[end],
        outer[start] & outer[end],
        support < RARE_TRIPS,
        rush_hour(rides.pickup_at),
    )
    return dict(zip(SEGMENTS, masks, strict=True))


def rush_hour(pickup_at: np.ndarray) -> np.ndarray:
    """True on working days from 7 to 10 and from 16 to 19, shape as the input."""
    hour = hours_of_day(pickup_at)
    rush = ((hour >= 7) & (hour < 10)) | ((hour >= 16) & (hour < 19))
    return rush & (weekdays(pickup_at) < SATURDAY)


def evaluate(actual: np.ndarray, answers: Answers, rides: Rides) -> dict[str, Any]:
    """Return all metrics of one set of answers: overall, and by segment with its row count."""
    return answer_figures(sum_answers(actual, answers, rides))


def sum_answers(actual: np.ndarray, answers: Answers, rides: Rides) -> np.ndarray:
    """Return ANSWER_SUMS of all trips and of each of SEGMENTS, float64 of shape (6, 9).

    Those of batches of trips add up to those of all trips.
    """
    error = answers.duration.astype("float64") - actual
    columns = *_errors(error), *_intervals(actual, answers)
    masks = segment_masks(rides, answers.support).values()
    sums = [[len(error), *(column.sum() for column in columns)]]
    sums += [[mask.sum(), *(column[mask].sum() for column in columns)] for mask in masks]
    return np.array(sums, dtype="float64")


def answer_figures(sums: np.ndarray) -> dict[str, Any]:
    """Return `evaluate` from the sums over all trips; a segment without a trip is left out."""
    overall, *segments = ({"rows": int(row[0]), **_figures(row)} for row in sums if row[0])
    names = [name for name, row in zip(SEGMENTS, sums[1:], strict=True) if row[0]]
    return {**overall, "segments": dict(zip(names, segments, strict=True))}


def _figures(sums: np.ndarray) -> dict[str, float]:
    means = (sums[len(ERROR_SUMS) :] / sums[0]).tolist()
    return {**error_figures(sums), **_interval_figures(means)}


def take_answers(answers: Answers, rows: np.ndarray) -> Answers:
    """Return the answers at these positions or under this mask."""
    return Answers(*(getattr(answers, field)[rows] for field in Answers.__dataclass_fields__))


def prediction_bytes(answers: Answers) -> bytes:
    """Return the predicted minutes as little-endian float32, to be digested."""
    return np.ascontiguousarray(answers.duration, dtype="<f4").tobytes()
