"""Small hand-made trips that plots are drawn from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def ridden() -> pd.DataFrame:
    """Sixty trips between six zones, over all hours and weekdays; one without a distance."""
    n = 60
    miles = np.linspace(0.5, 25, n).astype("float32")
    miles[3] = np.nan
    duration = np.linspace(2, 58, n).astype("float32")
    return pd.DataFrame(
        {
            "pickup_at": pd.date_range("2021-01-04", periods=n, freq="170min"),
            "PULocationID": np.resize([74, 75, 41, 132, 1, 265], n).astype("int16"),
            "DOLocationID": np.resize([75, 74, 42, 138, 7, 264, 13], n).astype("int16"),
            "trip_distance": miles,
            "duration": duration,
            "predicted": duration + 1,
            "error": np.ones(n),
        }
    )


@pytest.fixture
def no_distance(ridden) -> pd.DataFrame:
    """The same trips of a service that records no distance, as FHV."""
    return ridden.assign(trip_distance=np.float32(np.nan))
