"""Every plot is drawn from small frames, titled and with units on its axes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from taxi_duration import plots
from taxi_duration.trips import REASONS


@pytest.fixture
def trips() -> pd.DataFrame:
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


TENTHS = pd.DataFrame(
    {"predicted": [5.0, 20.0], "actual": [6.0, 19.0], "below": [0.1, 0.2],
     "inside": [0.8, 0.7], "above": [0.1, 0.1]}
)  # fmt: skip
LEADERBOARD = pd.DataFrame(
    {"rmse": [5.0, 8.5], "rmse_no_distance": [5.9, np.nan], "is_baseline": [False, True]},
    index=["XGB", "od_pair_mean"],
)
SEGMENT = {"mae": 3.0, "coverage": 0.8}
FIGURES = {
    "accounting": lambda trips: plots.plot_accounting(
        pd.DataFrame({reason: [1, 0] for reason in REASONS}, index=["2021-01", "2021-02"])
    ),
    "distributions": plots.plot_distributions,
    "hour_weekday": plots.plot_hour_weekday,
    "busiest_pairs": plots.plot_busiest_pairs,
    "residuals": plots.plot_residuals,
    "predictions": plots.plot_predictions,
    "leaderboard": lambda trips: plots.plot_leaderboard(LEADERBOARD),
    "segments": lambda trips: plots.plot_segments(
        {"mae": 3.2, "segments": {"airport": SEGMENT, "rush_hour": SEGMENT}}
    ),
    "calibration": lambda trips: plots.plot_calibration(TENTHS),
    "importance": lambda trips: plots.plot_importance(
        pd.DataFrame({"distance given": [3.0], "no distance": [2.0]}, index=["route"])
    ),
    "learning_curve": lambda trips: plots.plot_learning_curve(
        pd.DataFrame({"days": [4, 31], "rmse": [5.7, 5.0], "rmse_no_distance": [6.6, 5.9]})
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_plot_has_titles_and_named_axes(trips, name):
    figure = FIGURES[name](trips)
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert all(axes.get_title() for axes in panels)
    assert all(axes.get_xlabel() for axes in panels)


@pytest.mark.parametrize("name", ["distributions", "residuals", "predictions"])
def test_plot_leaves_its_frame_alone(trips, name):
    before = trips.copy()
    FIGURES[name](trips)
    pd.testing.assert_frame_equal(trips, before)


def test_every_plot_is_tried_here():
    made = {name.removeprefix("plot_") for name in dir(plots) if name.startswith("plot_")}
    assert made == set(FIGURES)
