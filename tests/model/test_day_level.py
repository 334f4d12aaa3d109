"""The factor of a ride's day: a season without a jump, a kind by its name, one ride as many."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from taxi_duration.model.day_level import SEASON_KNOTS, SEASON_WEEKS, DayLevel, RideLevel

RISING = DayLevel(np.linspace(0.9, 1.1, SEASON_WEEKS), {"Thanksgiving": 0.8, "Labor Day": 1.5})


def test_season_is_its_heights_on_their_days_and_a_line_between_them():
    first = RISING.parts(date(2021, 1, 4))
    assert (first.season, first.kind, first.name) == (0.9, 1.0, None)
    halfway = RISING.parts(date(2022, 6, 1))
    assert halfway.season == pytest.approx(np.interp(151, SEASON_KNOTS, RISING.season))
    # From 27 December's 1.1 down to 4 January's 0.9.
    assert 0.9 < RISING.parts(date(2022, 1, 2)).season < RISING.parts(date(2021, 12, 29)).season


def test_kind_of_day_multiplies_the_season():
    parts = RISING.parts(date(2021, 11, 25))
    assert (parts.kind, parts.name) == (0.8, "Thanksgiving")
    assert parts.level == np.float32(parts.season * 0.8)


def test_kind_without_a_factor_changes_nothing():
    parts = RISING.parts(date(2021, 12, 25))
    assert (parts.kind, parts.name) == (1.0, "Christmas Day")


def test_days_of_many_rides_are_those_of_each():
    at = np.datetime64("2020-02-01T13:00:00") + np.arange(0, 800 * 24, 7).astype("m8[h]")
    one = RideLevel(RISING)
    assert RISING.of(at).dtype == np.float32
    assert RISING.of(at).tolist() == [one.of(each.date()) for each in at.tolist()]


def test_nothing_known_is_one_on_every_day():
    at = np.datetime64("2021-01-01T00:00:00") + np.arange(366).astype("m8[D]")
    assert (DayLevel().of(at) == 1).all()
