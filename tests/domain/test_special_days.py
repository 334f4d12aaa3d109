"""Days by rule, against calendars: federal holidays, feasts, school recess, weeks of the city."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from taxi_duration.domain.special_days import (
    FREE_DAYS,
    ONLY_ON_WEEKDAYS,
    day_kinds,
    easter_sunday,
    hebrew_new_year,
    is_federal_holiday,
    special_day,
    special_days,
)


@pytest.mark.parametrize(
    ("day", "name"),
    [
        ("2021-01-18", "Martin Luther King Day"),
        ("2022-02-21", "Presidents' Day"),
        ("2022-02-25", "winter school recess"),
        ("2021-05-31", "Memorial Day"),
        ("2021-05-28", "Friday before a long summer weekend"),
        ("2020-05-25", "Memorial Day"),  # May ends on a Sunday, June begins on a Monday
        ("2023-07-04", "Independence Day"),
        ("2023-07-03", "day before Independence Day"),
        ("2021-09-06", "Labor Day"),
        ("2021-10-11", "Columbus Day"),
        ("2021-11-02", "Election Day"),
        ("2022-11-08", "Election Day"),  # the Tuesday after the first Monday, not the first one
        ("2021-11-11", "Veterans Day"),
        ("2021-11-24", "day before Thanksgiving"),
        ("2023-11-23", "Thanksgiving"),
        ("2023-11-24", "day after Thanksgiving"),
        ("2021-12-24", "Christmas Eve"),  # also the day off for a Saturday's Christmas
        ("2022-12-26", "day off for a holiday"),
        ("2021-12-29", "days after Christmas"),
        ("2021-12-26", None),  # a Sunday as others
        ("2021-12-31", "New Year's Eve"),
        ("2023-01-02", "day off for a holiday"),
        ("2022-06-20", "day off for a holiday"),
        ("2020-06-19", None),  # a holiday since 2021
        ("2023-06-19", "Juneteenth"),
        ("2022-04-15", "Good Friday"),
        ("2022-04-18", "Easter Monday"),
        ("2022-04-22", "spring school recess"),
        ("2022-04-25", None),
        ("2023-04-11", "spring school recess"),
        ("2025-04-17", "spring school recess"),
        ("2021-09-07", "Rosh Hashanah"),
        ("2021-09-16", "Yom Kippur"),
        ("2021-07-20", "Eid"),
        ("2022-09-20", "week of the UN General Assembly"),
        ("2021-10-20", None),
    ],
)
def test_day_is_what_the_calendar_says(day, name):
    assert special_day(date.fromisoformat(day)) == name


@pytest.mark.parametrize(
    "day", ["2019-09-30", "2020-09-19", "2021-09-07", "2022-09-26", "2023-09-16", "2024-10-03"]
)
def test_rosh_hashanah_is_that_of_the_hebrew_calendar(day):
    new_year = date.fromisoformat(day)
    assert hebrew_new_year(new_year.year) == new_year


@pytest.mark.parametrize(
    "day", ["1961-04-02", "2008-03-23", "2019-04-21", "2021-04-04", "2024-03-31", "2038-04-25"]
)
def test_easter_is_that_of_the_gregorian_calendar(day):
    assert easter_sunday(date.fromisoformat(day).year) == date.fromisoformat(day)


@pytest.mark.parametrize(
    "day", ["2021-05-13", "2022-05-02", "2023-04-21", "2024-04-10", "2021-07-20", "2024-06-16"]
)
def test_eid_is_at_most_a_day_from_where_it_was_kept(day):
    kept = date.fromisoformat(day)
    near = [kept + timedelta(step) for step in (-1, 0, 1)]
    assert "Eid" in [special_day(day) for day in near] or kept.weekday() >= 4


def test_every_holiday_of_the_law_is_one_and_a_day_without_school_is_not():
    law = ["01-01", "01-18", "02-15", "05-31", "06-18", "07-05", "09-06", "10-11", "11-11", "11-25"]
    days = [date.fromisoformat(f"2021-{day}") for day in law]
    assert all(map(is_federal_holiday, days))
    assert not any(is_federal_holiday(day + timedelta(1)) for day in days if day.month == 11)


def test_every_year_has_its_days_and_only_its_own():
    for year in range(1990, 2060):
        days = special_days(year)
        assert {day.year for day in days} == {year}
        assert set(days.values()) <= day_kinds()
        assert list(days) == sorted(days)


def test_what_only_working_days_change_is_on_none_of_the_weekend():
    weekend = {
        name for year in range(1990, 2060)
        for day, name in special_days(year).items() if day.weekday() >= 5
    }  # fmt: skip
    assert not weekend & ONLY_ON_WEEKDAYS
    assert day_kinds() >= FREE_DAYS | ONLY_ON_WEEKDAYS
