"""What a clock says, holidays, days of a window, and every day of a calendar month."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taxi_duration.domain.months import parse_months
from taxi_duration.domain.pickup_calendar import (
    calendar_days,
    near_cell,
    near_cells,
    read_clock,
    read_clocks,
    window_days,
)
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


@pytest.mark.parametrize(
    ("pickup_at", "clock", "cell"),
    [
        ("2021-02-01T00:00:00", (600, 480, 0, 0), 0),  # a Monday
        # A Friday; seconds are cut off.
        ("2021-02-05T08:59:59", (61, 421, 4 * 24 + 8 + 59 / 60, 0), 8),
        ("2021-02-06T23:00:00", (660, 420, 5 * 24 + 23, 0), 24 + 23),  # a Saturday
        ("2021-02-07T01:30:00", (510, 570, 6 * 24 + 1.5, 0), 48 + 1),  # a Sunday
        # A Monday, Presidents' Day.
        ("2021-02-15T12:01:00", (121, 239, 6 * 24 + 12 + 1 / 60, 1), 48 + 12),
        ("2022-01-01T05:00:00", (300, 660, 6 * 24 + 5, 1), 48 + 5),  # a Saturday, New Year's Day
        ("2021-11-26T05:00:00", (300, 660, 6 * 24 + 5, 1), 48 + 5),  # the Friday after Thanksgiving
        ("2021-11-11T05:00:00", (300, 660, 3 * 24 + 5, 0), 5),  # Veterans Day: a working Thursday
    ],
)
def test_clock_says_minute_hour_of_week_and_holiday(pickup_at, clock, cell):
    assert read_clock(datetime.fromisoformat(pickup_at)) == (clock, cell)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)))
@example(datetime(2021, 3, 14, 2, 30))  # an hour that the clocks skip
@example(datetime(2021, 11, 7, 1, 59, 59))  # an hour that comes twice
@example(datetime(2020, 12, 31, 23, 59, 59, 999_999))
@example(datetime(2024, 2, 29, 0, 59))
def test_one_clock_is_read_as_many_are(pickup_at):
    several = np.array([pickup_at, datetime(2021, 7, 4)], dtype="datetime64[s]")
    clocks, cells = read_clocks(several)
    assert (tuple(column[0] for column in clocks), cells[0]) == read_clock(pickup_at)


def test_minutes_of_a_day_are_told_apart_and_move_in_a_circle():
    day = np.datetime64("2021-02-03T00:00:00") + np.arange(1441).astype("m8[m]")
    waves = np.column_stack(read_clocks(day)[0][:2])
    assert len(np.unique(waves[:-1], axis=0)) == 1440
    assert (np.abs(np.diff(waves, axis=0)) <= 1).all()
    assert waves[0].tolist() == waves[-1].tolist() == [600, 480]
    assert waves[[600, 960]].tolist() == [[0, 360], [360, 0]]


@pytest.mark.parametrize(
    ("pickup_at", "cell", "share"),
    [
        ("2021-02-05T08:00:59", 7, 0.5),  # a Friday; seconds are cut off
        ("2021-02-05T08:15:00", 7, 0.25),
        ("2021-02-05T08:30:00", 9, 0.0),
        ("2021-02-05T08:59:00", 9, 29 / 60),
        ("2021-02-05T23:45:00", 24, 0.25),  # into Saturday
        ("2021-02-06T00:15:00", 23, 0.25),  # out of Friday
        ("2021-02-14T23:45:00", 48, 0.25),  # a Sunday, into Presidents' Day
        ("2021-02-16T00:00:00", 48 + 23, 0.5),  # and out of it
    ],
)
def test_the_next_cell_counts_the_more_the_nearer_it_is(pickup_at, cell, share):
    assert near_cell(datetime.fromisoformat(pickup_at)) == (cell, pytest.approx(share))


@given(st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)))
@example(datetime(2021, 2, 15))
@example(datetime(2021, 2, 15, 23, 59, 59))
def test_the_next_cell_of_one_is_that_of_many(pickup_at):
    cells, shares = near_cells(np.array([pickup_at, datetime(2021, 7, 4)], "datetime64[s]"))
    assert (cells[0], shares[0]) == near_cell(pickup_at)


def test_no_clock_at_all_gives_empty_columns():
    clocks, cells = read_clocks(np.array([], dtype="datetime64[s]"))
    assert [column.shape for column in (*clocks, cells)] == [(0,)] * 5
