"""Notebook 05 and the page made of it."""

from __future__ import annotations

import time

import nbformat
import pytest

from taxi_duration import environment
from taxi_duration.errors import MonthNotPublishedError, NotFoundError, TagError
from taxi_duration.files import read_json
from taxi_duration.live.log_rows import PredictionRow
from taxi_duration.live.prediction_log import open_log
from taxi_duration.loop.monitor import (
    check_live,
    choose_verdict,
    look_at_months,
    serving_champion,
)
from taxi_duration.loop.monitor_report import run_monitor


def test_nothing_deployed_says_what_to_do(home):
    with pytest.raises(NotFoundError, match="make run"):
        run_monitor("", say=print)


@pytest.mark.slow
def test_unknown_month_stops_before_the_notebook_runs(moved_home):
    with pytest.raises(TagError, match="Febuary 2021"):
        run_monitor("Febuary 2021", say=print)
    assert not list(environment.runs_dir().glob("monitor-*"))


@pytest.mark.slow
def test_month_that_is_not_published_stops_before_the_notebook_runs(
    moved_home, monkeypatch, tmp_path
):
    (tmp_path / "source" / "trip-data").mkdir(parents=True)
    monkeypatch.setenv("TLC_URL", str(tmp_path / "source"))
    monkeypatch.setenv("DATA", "tlc")
    with pytest.raises(MonthNotPublishedError, match="green 2099-01"):
        run_monitor("2099-01", say=print)
    assert not list(environment.runs_dir().glob("monitor-*"))


@pytest.fixture
def asked_once(moved_home) -> None:
    """The log has one `curl`, whose true duration nobody has told."""
    champion = serving_champion()
    row = PredictionRow(
        "id", None, time.time(), 74, 75, "2021-03-01T09:00:00", 2.5, 10.0, 7.0, 10.0, 14.0, 50,
        True, champion.ref, champion.sha256, "champion",
    )  # fmt: skip
    log = open_log()
    log.add([row])
    log.close()


@pytest.mark.slow
def test_notebook_gives_a_page_for_people_and_a_verdict_for_machines(moved_home, asked_once):
    said = []
    verdict = run_monitor("Mar 2021", say=said.append)
    assert verdict.verdict in ("unknown", "watch", "alarm")  # of one ride nothing is known
    assert verdict.source == "green 2021-03"
    (page,) = environment.runs_dir().glob("monitor-*/report.html")
    assert "5. Monitor the model in service" in page.read_text()
    assert (environment.live_dir() / "monitor.html").read_bytes() == page.read_bytes()
    assert read_json(environment.live_dir() / "monitor.json")["drift"]
    assert any(verdict.verdict.upper() in line for line in said)
    assert_month_is_under_its_own_heading()


def assert_month_is_under_its_own_heading() -> None:
    (path,) = environment.runs_dir().glob("monitor-*/05_monitor.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    published = next(i for i, c in enumerate(cells) if c.source.startswith("## Published months"))
    drawn = [i for i, c in enumerate(cells) for output in c.get("outputs", [])
             if "image/png" in output.get("data", {})]  # fmt: skip
    assert len(drawn) == 2 and min(drawn) > published  # errors and drift of the month
    said = [o["data"]["text/markdown"] for c in cells for o in c.get("outputs", [])
            if "text/markdown" in o.get("data", {})]  # fmt: skip
    assert said[0].startswith("Rides: 1; with their true duration: 0.")


@pytest.mark.slow
def test_after_a_single_curl_the_validation_month_is_looked_at(asked_once):
    champion, log = serving_champion(), open_log()
    live = check_live(champion, log)
    log.close()
    months = look_at_months(champion, live, "")
    assert [month.source for month in months] == ["green 2021-02"]
    assert choose_verdict(live, months).source == "green 2021-02"
