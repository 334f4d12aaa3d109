"""Notebook 05 and the page made of it."""

from __future__ import annotations

import pytest

from taxi_duration import config
from taxi_duration.errors import NotFoundError, TagError
from taxi_duration.files import read_json
from taxi_duration.monitor_report import run_monitor


def test_nothing_deployed_says_what_to_do(home):
    with pytest.raises(NotFoundError, match="make run"):
        run_monitor("", say=print)


@pytest.mark.slow
def test_unknown_month_stops_before_the_notebook_runs(moved_home):
    with pytest.raises(TagError, match="Febuary 2021"):
        run_monitor("Febuary 2021", say=print)
    assert not list(config.runs_dir().glob("monitor-*"))


@pytest.mark.slow
def test_notebook_gives_a_page_for_people_and_a_verdict_for_machines(moved_home):
    said = []
    verdict = run_monitor("Mar 2021", say=said.append)
    assert verdict["verdict"] in ("ok", "watch", "alarm")
    assert verdict["source"] == "green 2021-03"  # nobody has asked the service anything yet
    (page,) = config.runs_dir().glob("monitor-*/report.html")
    assert "5. Monitor the model in service" in page.read_text()
    assert (config.live_dir() / "monitor.html").read_bytes() == page.read_bytes()
    assert read_json(config.live_dir() / "monitor.json")["drift"]
    assert any(verdict["verdict"].upper() in line for line in said)
