"""Rows for tests of the prediction log."""

from __future__ import annotations

from taxi_duration.live.log_rows import PredictionRow


def row(
    prediction_id: str, asked_at: float = 100.0, model: str = "green-duration:1", **other: object
) -> PredictionRow:
    """One answered ride."""
    return PredictionRow(
        **{
            "prediction_id": prediction_id,
            "ride_id": None,
            "asked_at": asked_at,
            "PULocationID": 10,
            "DOLocationID": 50,
            "pickup_at": "2021-02-01T08:30:00",
            "trip_distance": 4.5,
            "duration": 21.25,
            "p10": 12.0,
            "p50": 20.0,
            "p90": 33.0,
            "support": 7,
            "used_distance": True,
            "model": model,
            "model_sha256": "ab" * 32,
            "arm": "champion",
            "latency_ms": 0.4,
            **other,
        }
    )
