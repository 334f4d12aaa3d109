"""Rides and cards for the service's tests."""

from __future__ import annotations

from typing import Any

import cards
import numpy as np

from taxi_duration.domain.rides import Rides

RIDE = {
    "PULocationID": 74,
    "DOLocationID": 42,
    "trip_distance": 4.5,
    "pickup_datetime": "2021-02-15T08:30:00",
}


def make_card(version: int, kind: str) -> dict[str, Any]:
    """A card of this version."""
    return cards.make_card(kind, version=version)


def make_rides(n: int = 600) -> tuple[Rides, np.ndarray]:
    """Rides among nine pairs of zones and their minutes, which grow with the miles."""
    rng = np.random.default_rng(7)
    pickup = np.datetime64("2021-01-04T00:00:00") + rng.integers(0, 27 * 86400, n).astype("m8[s]")
    miles = rng.gamma(2.0, 1.5, n).astype("float32") + np.float32(0.2)
    minutes = np.clip(3 + 3.2 * miles + rng.gamma(2.0, 1.0, n), 1, 60).astype("float32")
    return (
        Rides(
            rng.choice([74, 75, 41], n).astype("int16"),
            rng.choice([42, 166, 138], n).astype("int16"),
            pickup,
            miles,
        ),
        minutes,
    )
