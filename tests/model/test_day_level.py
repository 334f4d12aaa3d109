"""The factor of a ride's day: a season without a jump, a kind by its name, one ride as many."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import pytest

from taxi_duration.model import state
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
    assert RISING.of(at).tolist() == [one.of(each) for each in at.tolist()]


def test_level_moves_around_midnight_without_a_step():
    at = np.datetime64("2021-11-24T23:00:00") + np.arange(121).astype("m8[m]")  # into Thanksgiving
    levels, one = RISING.of(at), RideLevel(RISING)
    assert levels.tolist() == [one.of(each) for each in at.tolist()]
    assert (levels[:31] == levels[0]).all() and (levels[90:] == levels[-1]).all()
    steps = np.diff(levels)[30:90]
    assert (steps < 0).all() and -steps.min() < 2 * (levels[0] - levels[-1]) / 60
    assert levels[60] == pytest.approx((levels[0] + levels[-1]) / 2, abs=1e-3)


def test_level_around_midnight_has_the_name_of_the_special_day():
    level = DayLevel(kinds={"Thanksgiving": 0.8, "Veterans Day": 1.5})
    after, later, before = (
        level.at(datetime.fromisoformat(at))
        for at in ("2021-11-12T00:15", "2021-11-12T00:30", "2021-11-24T23:45")
    )
    assert (after.name, after.kind) == ("Veterans Day", pytest.approx(1 + 0.5 / 4))
    assert (later.name, later.kind) == (None, 1.0)
    # Between two special days, a ride's own.
    assert (before.name, before.kind) == ("day before Thanksgiving", pytest.approx(1 - 0.2 / 4))


def test_nothing_known_is_one_on_every_day():
    at = np.datetime64("2021-01-01T00:00:00") + np.arange(366).astype("m8[D]")
    assert (DayLevel().of(at) == 1).all()


@pytest.mark.parametrize(
    ("season", "kinds", "message"),
    [
        (np.ones(51), {}, "shape"),
        (np.append(np.ones(51), np.nan), {}, "no number"),
        (np.append(np.ones(51), 9.0), {}, "not within"),
        (np.append(np.ones(51), 0.1), {}, "no number"),
        (np.ones(52), {"a new feast": 0.9}, "kinds of days"),
        (np.ones(52), {"Thanksgiving": 0.0}, "not within"),
        (np.ones(52), {"Thanksgiving": 1}, "not within"),
        (np.ones(52), {"Thanksgiving": float("nan")}, "not within"),
        (np.ones(52), [["Thanksgiving", 0.9]], "kinds of days"),
    ],
)
def test_saved_level_that_no_day_can_have_is_refused(season, kinds, message):
    value = {"season": ["float64", [len(season)], season.tobytes()], "kinds": kinds}
    with pytest.raises(ValueError, match=message):
        state._day_level(state._Part(value, "model.point.level", DayLevel))


def test_saved_level_is_read_as_it_was():
    saved = state._plain(RISING)
    again = state._day_level(state._Part(saved, "model.point.level", DayLevel))
    np.testing.assert_array_equal(again.season, RISING.season)
    assert again.kinds == RISING.kinds
