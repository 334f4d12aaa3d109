"""How right answers are: errors in minutes, overall and by segment, and interval coverage."""

from __future__ import annotations

import hashlib
import math
from functools import cache
from typing import Any

import numpy as np

from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.domain.zones import AIRPORT_ZONES, OUTER_BOROUGHS, zone_table
from taxi_duration.model.intervals import RARE_TRIPS

NOMINAL_COVERAGE = 0.8
ERROR_SUMS = ("rows", "squared", "absolute", "signed")  # of errors in minutes
ANSWER_SUMS = (*ERROR_SUMS, "inside", "width")
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
    """Return the share of trips inside P10-P90 and the mean width in minutes."""
    inside, width = _intervals(actual, answers)
    return {"coverage": float(inside.mean()), "mean_width": float(width.mean())}


def _errors(error: np.ndarray) -> tuple[np.ndarray, ...]:
    return error**2, np.abs(error), error


def _intervals(actual: np.ndarray, answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Which trips lie inside P10-P90, and how wide that is, float64 of shape (n,) each."""
    inside = (actual >= answers.p10) & (actual <= answers.p90)
    return inside.astype("float64"), answers.p90.astype("float64") - answers.p10


def segment_masks(rides: Rides, support: np.ndarray) -> dict[str, np.ndarray]:
    """Return one boolean mask of shape (n,) per segment; segments overlap.

    Args:
        rides: shape (n,).
        support: past trips of the same pair, shape (n,).
    """
    airport, manhattan, outer = _zone_groups()
    start, end = rides.PULocationID, rides.DOLocationID
    masks = (
        airport[start] | airport[end],
        manhattan[start] & manhattan[end],
        outer[start] & outer[end],
        support < RARE_TRIPS,
        rush_hour(rides.pickup_at),
    )
    return dict(zip(SEGMENTS, masks, strict=True))


@cache
def _zone_groups() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which zones are airports, in Manhattan, in the other boroughs: bool of shape (266,) each."""
    borough = zone_table().borough
    airport = np.isin(np.arange(len(borough)), AIRPORT_ZONES)
    return airport, borough == "Manhattan", np.isin(borough, OUTER_BOROUGHS)


def rush_hour(pickup_at: np.ndarray) -> np.ndarray:
    """True on working days from 7 to 10 and from 16 to 19, shape as the input."""
    hour = pickup_at.astype("datetime64[h]").astype("int64") % 24
    # 1970-01-01 was a Thursday: day 0 has weekday 3.
    weekday = (pickup_at.astype("datetime64[D]").astype("int64") + 3) % 7
    return (weekday < 5) & (((hour >= 7) & (hour < 10)) | ((hour >= 16) & (hour < 19)))


def evaluate(actual: np.ndarray, answers: Answers, rides: Rides) -> dict[str, Any]:
    """Return all metrics of one set of answers: overall, and by segment with its row count."""
    return answer_figures(sum_answers(actual, answers, rides))


def sum_answers(actual: np.ndarray, answers: Answers, rides: Rides) -> np.ndarray:
    """Return ANSWER_SUMS of all trips and of each of SEGMENTS, float64 of shape (6, 6).

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
    inside, width = (sums[len(ERROR_SUMS) :] / sums[0]).tolist()
    return {**error_figures(sums), "coverage": inside, "mean_width": width}


def take_answers(answers: Answers, rows: np.ndarray) -> Answers:
    """Return the answers at these positions or under this mask."""
    return Answers(*(getattr(answers, field)[rows] for field in Answers.__dataclass_fields__))


def predictions_digest(answers: Answers) -> str:
    """SHA-256 of the predicted minutes (float32): equal for equal months and parameters."""
    return hashlib.sha256(prediction_bytes(answers)).hexdigest()


def prediction_bytes(answers: Answers) -> bytes:
    """Return what `predictions_digest` is made of; batches of one month follow each other."""
    return np.ascontiguousarray(answers.duration, dtype="<f4").tobytes()
