"""Rides with true durations as the world tells them: right, odd, and in wrong units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from taxi_duration.domain import truths
from taxi_duration.domain.geometry import zone_geometry
from taxi_duration.live.log_rows import PredictionRow

DAY = np.datetime64("2021-03-01T00:00:00")
CALL_RIDES = 25  # that one sender tells at once


def told_rides(days: int = 3, a_day: int = 200, pace: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Rides with usual durations, told in calls of CALL_RIDES; columns as `log_frame` has them.

    Args:
        pace: of the durations, against usual traffic.
    """
    rng = np.random.default_rng(seed)
    n = days * a_day
    start, end = rng.integers(1, 264, (2, n))
    km = zone_geometry().straight_km[start, end]
    usual = truths.START_MINUTES + truths.MINUTES_A_KM * km
    minutes = np.clip(pace * usual * rng.lognormal(0, 0.3, n), 1.0, 60.0)
    pickup = DAY + np.sort(rng.integers(0, 86_400, (days, a_day)), axis=1).ravel().astype("m8[s]")
    pickup += np.repeat(np.arange(days), a_day).astype("m8[D]")
    answer = minutes + rng.normal(0, 3, n)
    return pd.DataFrame(
        {
            "prediction_id": [f"ride-{i}" for i in range(n)],
            "PULocationID": start, "DOLocationID": end, "pickup_at": pickup,
            "trip_distance": np.where(rng.random(n) < 0.1, np.nan, km / 1.3),
            "duration": answer, "p10": answer - 4, "p50": answer, "p90": answer + 4,
            "support": 50, "used_distance": True,
            "model": np.where(rng.random(n) < 0.3, "green-duration:2", "green-duration:1"),
            "model_sha256": "a" * 64,
            "arm": np.where(rng.random(n) < 0.2, "challenger", "champion"),
            "true_duration": minutes,
            "received_at": 1e9 + np.arange(n) // CALL_RIDES * 60.0,
        }
    )  # fmt: skip


def with_outside(frame: pd.DataFrame, share: float = 0.05) -> pd.DataFrame:
    """The same rides, some with believable durations outside 1 to 60 minutes."""
    n = int(share * len(frame))
    at = np.linspace(0, len(frame) - 1, n).astype(int)
    odd = np.resize([0.0, 0.4, 0.99, 60.5, 95.0, 1439.0], n)
    # Right at the door: what takes no time leads nowhere.
    near = frame["PULocationID"].to_numpy(copy=True), frame["DOLocationID"].to_numpy(copy=True)
    near[1][at] = near[0][at]
    minutes = frame["true_duration"].to_numpy(copy=True)
    minutes[at] = odd
    return frame.assign(DOLocationID=near[1], true_duration=minutes)


def changed(frame: pd.DataFrame, rows: Any, factor: float) -> pd.DataFrame:
    """The same rides, the durations under a mask off by a factor."""
    true = frame["true_duration"]
    return frame.assign(true_duration=np.where(rows, true * factor, true))


def log_rows(frame: pd.DataFrame) -> list[PredictionRow]:
    """The rides as the service logs them."""
    rows = frame.drop(columns=["true_duration", "received_at"]).to_dict("records")
    return [
        PredictionRow(
            **{
                **row, "ride_id": None, "asked_at": 100.0 + i,
                "pickup_at": pd.Timestamp(row["pickup_at"]).isoformat(),
                "trip_distance": None if np.isnan(row["trip_distance"]) else row["trip_distance"],
                "latency_ms": 0.5,
            }
        )
        for i, row in enumerate(rows)
    ]  # fmt: skip


def feedback_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """What riders tell of the same rides."""
    told = frame[frame["true_duration"].notna()]
    told = told[["prediction_id", "true_duration", "received_at"]]
    return told.rename(columns={"true_duration": "duration"}).to_dict("records")
