"""How right answers are: errors in minutes, overall and by segment, and interval coverage."""

from __future__ import annotations

import hashlib

import numpy as np

from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.domain.zones import AIRPORT_ZONES, OUTER_BOROUGHS, zone_table
from taxi_duration.model.intervals import RARE_TRIPS

NOMINAL_COVERAGE = 0.8


def error_metrics(actual: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return RMSE, MAE and bias (predicted - actual) in minutes.

    Args:
        actual, predicted: minutes, shape (n,), n > 0.
    """
    error = predicted.astype("float64") - actual
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "bias": float(np.mean(error)),
    }


def interval_metrics(actual: np.ndarray, answers: Answers) -> dict[str, float]:
    """Return the share of trips inside P10-P90 and the mean width in minutes."""
    inside = (actual >= answers.p10) & (actual <= answers.p90)
    width = answers.p90.astype("float64") - answers.p10
    return {"coverage": float(inside.mean()), "mean_width": float(width.mean())}


def segment_masks(rides: Rides, support: np.ndarray) -> dict[str, np.ndarray]:
    """Return one boolean mask of shape (n,) per segment; segments overlap.

    Args:
        rides: shape (n,).
        support: past trips of the same pair, shape (n,).
    """
    borough = zone_table().borough
    start, end = borough[rides.PULocationID], borough[rides.DOLocationID]
    airport = np.isin(rides.PULocationID, AIRPORT_ZONES) | np.isin(
        rides.DOLocationID, AIRPORT_ZONES
    )
    return {
        "airport": airport,
        "manhattan_internal": (start == "Manhattan") & (end == "Manhattan"),
        "outer_to_outer": np.isin(start, OUTER_BOROUGHS) & np.isin(end, OUTER_BOROUGHS),
        "rare_pair": support < RARE_TRIPS,
        "rush_hour": rush_hour(rides.pickup_at),
    }


def rush_hour(pickup_at: np.ndarray) -> np.ndarray:
    """True on working days from 7 to 10 and from 16 to 19, shape as the input."""
    hour = pickup_at.astype("datetime64[h]").astype("int64") % 24
    # 1970-01-01 was a Thursday: day 0 has weekday 3.
    weekday = (pickup_at.astype("datetime64[D]").astype("int64") + 3) % 7
    return (weekday < 5) & (((hour >= 7) & (hour < 10)) | ((hour >= 16) & (hour < 19)))


def evaluate(actual: np.ndarray, answers: Answers, rides: Rides) -> dict[str, object]:
    """Return all metrics of one set of answers: overall, and by segment with its row count."""
    overall = error_metrics(actual, answers.duration) | interval_metrics(actual, answers)
    segments = {}
    for name, mask in segment_masks(rides, answers.support).items():
        if mask.any():
            part = take_answers(answers, mask)
            segments[name] = {
                "rows": int(mask.sum()),
                **error_metrics(actual[mask], part.duration),
                **interval_metrics(actual[mask], part),
            }
    return {"rows": len(actual), **overall, "segments": segments}


def take_answers(answers: Answers, rows: np.ndarray) -> Answers:
    """Return the answers at these positions or under this mask."""
    return Answers(*(getattr(answers, field)[rows] for field in Answers.__dataclass_fields__))


def predictions_digest(answers: Answers) -> str:
    """SHA-256 of the predicted minutes (float32): equal for equal months and parameters."""
    return hashlib.sha256(np.ascontiguousarray(answers.duration, dtype="<f4").tobytes()).hexdigest()
