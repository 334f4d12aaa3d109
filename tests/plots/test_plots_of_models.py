"""What notebooks 02 and 03 draw of a model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from taxi_duration.plots.model import plot_leaderboard, plot_learning_curve, plot_residuals

LEADERBOARD = pd.DataFrame(
    {"rmse": [5.0, 8.5], "rmse_no_distance": [5.9, np.nan], "is_baseline": [False, True]},
    index=["XGB", "od_pair_mean"],
)


def test_best_model_stands_on_top_and_every_colour_has_a_name():
    axes = plot_leaderboard(LEADERBOARD).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["od_pair_mean", "XGB"]
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["model, distance given", "model, no distance", "lookup"]


def test_error_by_distance_says_so_when_there_is_no_distance(no_distance):
    panels = plot_residuals(no_distance).axes
    assert panels[1].texts[0].get_text() == "these trips carry no distance"
    assert not panels[0].texts and not panels[2].texts


def test_learning_curve_has_its_points_at_the_days():
    table = pd.DataFrame({"days": [3, 31], "rmse": [5.7, 5.0], "rmse_no_distance": [6.6, 5.9]})
    line = plot_learning_curve(table).axes[0].lines[0]
    assert list(zip(*line.get_data(), strict=True)) == [(3, 5.7), (31, 5.0)]
