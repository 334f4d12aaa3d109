"""What notebook 05 draws of the monitor's findings."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from taxi_duration.domain.findings import Drift
from taxi_duration.evaluation.health import live_errors
from taxi_duration.loop.monitor import log_frame
from taxi_duration.plots.look import LEVEL_COLORS
from taxi_duration.plots.monitor import plot_days, plot_drift, plot_errors

DRIFT = Drift("hour", "shift", 0.35, "hours", "ok", 0.45, 0.7)


def test_plots_of_no_rides_say_so():
    figures = [plot_errors(live_errors(log_frame([]))), plot_days(log_frame([])), plot_drift([])]
    words = [figure.axes[0].texts[0].get_text() for figure in figures]
    assert words == ["no ride has its true duration yet"] * 2 + ["too few rides to measure drift"]


def test_drift_is_drawn_as_a_share_of_its_alarm_bound():
    bar = plot_drift([DRIFT]).axes[0].patches[0]
    assert bar.get_width() == pytest.approx(0.5)


def test_each_level_has_its_colour_in_the_key():
    from matplotlib.colors import to_hex

    legend = plot_drift([DRIFT, replace(DRIFT, level="alarm", value=1.0)]).axes[0].get_legend()
    keys = zip(legend.get_texts(), legend.legend_handles, strict=True)
    colors = {text.get_text(): handle for text, handle in keys}
    for level in ("ok", "alarm"):
        assert to_hex(colors[level].get_facecolor()) == LEVEL_COLORS[level]
