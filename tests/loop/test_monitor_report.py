"""Notebook 05 and the page made of it."""

from __future__ import annotations

import pytest

from taxi_duration import environment
from taxi_duration.domain.findings import Drift
from taxi_duration.errors import NotFoundError, TagError
from taxi_duration.evaluation.health import live_errors
from taxi_duration.files import read_json
from taxi_duration.loop.monitor import log_frame
from taxi_duration.loop.monitor_report import run_monitor
from taxi_duration.monitor_plots import plot_days, plot_drift, plot_errors


def test_nothing_deployed_says_what_to_do(home):
    with pytest.raises(NotFoundError, match="make run"):
        run_monitor("", say=print)


@pytest.mark.slow
def test_unknown_month_stops_before_the_notebook_runs(moved_home):
    with pytest.raises(TagError, match="Febuary 2021"):
        run_monitor("Febuary 2021", say=print)
    assert not list(environment.runs_dir().glob("monitor-*"))


@pytest.mark.slow
def test_notebook_gives_a_page_for_people_and_a_verdict_for_machines(moved_home):
    said = []
    verdict = run_monitor("Mar 2021", say=said.append)
    assert verdict.verdict in ("ok", "watch", "alarm")
    assert verdict.source == "green 2021-03"  # nobody has asked the service anything yet
    (page,) = environment.runs_dir().glob("monitor-*/report.html")
    assert "5. Monitor the model in service" in page.read_text()
    assert (environment.live_dir() / "monitor.html").read_bytes() == page.read_bytes()
    assert read_json(environment.live_dir() / "monitor.json")["drift"]
    assert any(verdict.verdict.upper() in line for line in said)


def test_plots_of_no_rides_say_so():
    figures = [plot_errors(live_errors(log_frame([]))), plot_days(log_frame([])), plot_drift([])]
    words = [figure.axes[0].texts[0].get_text() for figure in figures]
    assert words == ["no ride has its true duration yet"] * 2 + ["too few rides to measure drift"]


def test_drift_is_drawn_as_a_share_of_its_alarm_bound():
    drift = Drift("hour", "shift", 0.35, "hours", "ok", 0.45, 0.7)
    bar = plot_drift([drift]).axes[0].patches[0]
    assert bar.get_width() == pytest.approx(0.5)
