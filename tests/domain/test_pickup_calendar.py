"""Days of a window, and every day of a calendar month."""

from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.domain.months import parse_months
from taxi_duration.domain.pickup_calendar import calendar_days, window_days
from taxi_duration.domain.rides import Rides
from taxi_duration.evaluation.drift import Sample

STRAY = ["2009-01-01T00:10", "2020-12-31T23:59", "2021-02-01T00:00", "2088-03-04T12:00"]


@pytest.fixture
def pickup_at() -> np.ndarray:
    """Two hundred trips on each of ten days of January 2021, and four stray dates."""
    days = np.arange("2021-01-04", "2021-01-14", dtype="datetime64[D]")
    return np.concatenate([np.repeat(days.astype("M8[s]"), 200), np.array(STRAY, "M8[s]")])


def test_stray_dates_outside_the_asked_months_are_no_days_of_the_window(pickup_at):
    days = window_days(pickup_at, parse_months("2021-01"))
    assert (str(days[0]), str(days[-1]), len(days)) == ("2021-01-04", "2021-01-13", 10)


def test_stray_dates_are_found_by_their_few_trips_when_the_months_are_not_known(pickup_at):
    assert len(window_days(pickup_at)) == 10


def test_window_across_a_years_end_counts_the_days_of_both_months():
    days = np.arange("2020-12-30", "2021-01-03", dtype="datetime64[D]")
    assert len(window_days(days, parse_months("2020-12:2021-01"))) == 4


def test_every_day_of_a_quiet_log_is_a_day():
    days = np.array(["2021-01-04"] * 3 + ["2021-01-05"], dtype="datetime64[D]")
    assert len(window_days(days)) == 2


def test_nothing_has_no_days():
    assert len(window_days(np.array([], dtype="datetime64[s]"))) == 0


def test_calendar_has_the_days_on_which_nobody_rode_too():
    days = calendar_days(parse_months("2020-02,2021-01"))
    assert len(days) == 29 + 31
    assert (str(days[0]), str(days[-1])) == ("2020-02-01", "2021-01-31")


def test_trips_of_a_usual_day_do_not_know_stray_dates(pickup_at):
    zones, miles = np.full(len(pickup_at), 74), np.ones(len(pickup_at), "float32")
    assert Sample(Rides(zones, zones, pickup_at, miles)).trips_a_day() == 200
