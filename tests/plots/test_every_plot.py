"""What holds for every plot: titles, units, service and months, a key for every colour."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter

from taxi_duration.chain.exploration import by_day, by_hour, by_zone
from taxi_duration.data.trips import REASONS
from taxi_duration.domain.findings import Drift
from taxi_duration.domain.months import Month
from taxi_duration.evaluation.health import live_errors
from taxi_duration.loop.backtest import STRATEGIES, Backtest
from taxi_duration.plots import backtest, model, monitor, trips, zones
from taxi_duration.plots.look import new_figure

JANUARY = [Month(2021, 1)]
TENTHS = pd.DataFrame(
    {"predicted": [5.0, 20.0], "actual": [6.0, 19.0], "below": [0.1, 0.2],
     "inside": [0.8, 0.7], "above": [0.1, 0.1]}
)  # fmt: skip
LEADERBOARD = pd.DataFrame(
    {"rmse": [5.0, 8.5], "rmse_no_distance": [5.9, np.nan], "is_baseline": [False, True]},
    index=["XGB", "od_pair_mean"],
)
SEGMENT = {"mae": 3.0, "coverage": 0.8}
NO_EVENTS = pd.DataFrame({"day": pd.to_datetime([]), "what": "", "level": "", "why": ""})
LIVED = Backtest(
    pd.DataFrame({f"{name}_mae": [3.0] for name in STRATEGIES}, index=["2021-03"]),
    NO_EVENTS.astype({"what": "str"}), NO_EVENTS,
)  # fmt: skip


def answered(ridden: pd.DataFrame) -> pd.DataFrame:
    minutes = ridden["duration"].astype("float64")
    return ridden.assign(
        true_duration=minutes, p10=minutes - 3, p90=minutes + 3, model="green-duration:1",
        arm="champion", support=50,
    )  # fmt: skip


FIGURES = {
    trips.plot_accounting: lambda _: pd.DataFrame(
        {reason: [1, 0] for reason in REASONS}, index=["2021-01", "2021-02"]
    ),
    trips.plot_distributions: lambda ridden: ridden,
    trips.plot_duration_by_distance: lambda ridden: ridden,
    trips.plot_speed: lambda ridden: ridden,
    trips.plot_days: lambda ridden: by_day(ridden, JANUARY),
    trips.plot_hours: lambda ridden: by_hour(pd.concat([ridden] * 10), JANUARY),
    trips.plot_busiest_pairs: lambda ridden: ridden,
    trips.plot_nulls: lambda _: pd.DataFrame({"type": ["int64"], "2021-01": [0.5]}, index=["a"]),
    zones.plot_zones: by_zone,
    model.plot_residuals: lambda ridden: ridden,
    model.plot_predictions: lambda ridden: ridden,
    model.plot_leaderboard: lambda _: LEADERBOARD,
    model.plot_segments: lambda _: {"mae": 3.2, "segments": {"airport": SEGMENT, "x": SEGMENT}},
    model.plot_calibration: lambda _: TENTHS,
    model.plot_importance: lambda _: pd.DataFrame(
        {"distance given": [3.0], "no distance": [2.0]}, index=["route"]
    ),
    model.plot_boosting_curve: lambda _: pd.DataFrame(
        {"rows": [500, 1000, 2000], "rmse": [5.4, 5.2, 5.1]}
    ),
    model.plot_learning_curve: lambda _: pd.DataFrame(
        {"days": [4, 31], "rmse": [5.7, 5.0], "rmse_no_distance": [6.6, 5.9]}
    ),
    monitor.plot_errors: lambda ridden: live_errors(answered(ridden)),
    monitor.plot_days: answered,
    monitor.plot_drift: lambda _: [Drift("hour", "shift", 0.35, "hours", "ok", 0.45, 0.7)],
    backtest.plot_backtest: lambda _: LIVED,
}
by_plot = pytest.mark.parametrize("plot", FIGURES, ids=lambda plot: plot.__name__)


def panels_of(figure) -> list:
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


@by_plot
def test_plot_has_titles_and_named_axes(ridden, plot):
    panels = panels_of(plot(FIGURES[plot](ridden)))
    assert all(axes.get_title() for axes in panels)
    assert panels[-1].get_xlabel()  # panels above each other may share their lowest axis
    assert all(axes.get_xlabel() for axes in panels if not axes.get_shared_x_axes().joined(
        axes, panels[-1]))  # fmt: skip


@by_plot
def test_titles_need_not_make_way_for_ticks_above_the_axes(ridden, plot):
    """`look.py` gives titles a fixed place."""
    for axes in plot(FIGURES[plot](ridden)).axes:
        assert axes.xaxis.get_label_position() == "bottom"
        assert not any(tick.label2.get_visible() for tick in axes.xaxis.get_major_ticks())


@by_plot
def test_plot_names_service_and_months(ridden, plot):
    figure = plot(FIGURES[plot](ridden), about="green 2021-01")
    assert figure.get_suptitle() == "green 2021-01"


@by_plot
def test_colours_of_lines_and_bars_have_a_key(ridden, plot):
    figure = plot(FIGURES[plot](ridden))
    colors = {line.get_color() for axes in figure.axes for line in axes.lines
              if line.get_label()[:1] != "_"}  # fmt: skip
    legends = [axes.get_legend() for axes in figure.axes]
    assert not colors or any(legends)


@by_plot
def test_plot_leaves_its_table_alone(ridden, plot):
    table = FIGURES[plot](ridden)
    if isinstance(table, pd.DataFrame):
        before = table.copy()
        plot(table)
        pd.testing.assert_frame_equal(table, before)


def test_every_plot_is_tried_here():
    modules = (backtest, model, monitor, trips, zones)
    made = {
        function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name.startswith("plot_") and function.__module__ == module.__name__
    }
    assert made == set(FIGURES)


def test_figure_is_shown_as_a_picture_by_a_notebook_in_which_nobody_asked_for_pyplot():
    shown, _ = DisplayFormatter().format(new_figure(size=(2, 1))[0])
    assert shown["image/png"].startswith(b"\x89PNG")


@pytest.mark.slow
def test_figure_needs_no_window_of_the_kind_that_the_user_likes(tmp_path):
    code = (
        "import sys; from taxi_duration.plots.look import new_figure\n"
        "new_figure()[0].savefig(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "figure.png")], capture_output=True, text=True,
        env={**os.environ, "MPLBACKEND": "module://not_installed.backend"},
    )  # fmt: skip
    assert (done.returncode, (tmp_path / "figure.png").exists()) == (0, True), done.stderr
