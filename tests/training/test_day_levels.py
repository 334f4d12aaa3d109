"""Levels of days found again in planted histories, and never known before their time."""

from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.domain.special_days import special_day
from taxi_duration.model.day_level import SEASON_KNOTS, DayLevel
from taxi_duration.training.day_levels import History, day_level, stored_history

TRUE = {"Thanksgiving": 0.75, "Good Friday": 0.9, "days after Christmas": 0.85, "Yom Kippur": 1.2}


def planted(years: int = 3, seed: int = 0, service: str = "green") -> History:
    """Days with a season of 5 %, four kinds, weekdays, a drift of 1 % a week and noise."""
    days = np.datetime64("2018-01-01") + np.arange(365 * years)
    rng, number = np.random.default_rng(seed), len(days)
    season = 0.05 * np.cos(2 * np.pi * ((days - days[0]).astype("int64") - 300) / 365.25)
    drift = np.repeat(rng.normal(0, 0.01, number // 7 + 1).cumsum(), 7)[:number]
    kind = np.log([TRUE.get(special_day(day) or "", 1.0) for day in days.tolist()])
    weekday = 0.03 * ((days.astype("int64") + 3) % 7 < 5)
    noise = rng.normal(0, 0.03, number)
    trips = np.full(number, 3000.0)
    return History(
        days, np.full(number, service), trips, np.exp(season + drift + kind + weekday + noise)
    )


def test_planted_kinds_of_days_are_found_again_and_no_others():
    found = day_level(np.datetime64("2021-01-01"), planted()).kinds
    for name, true in TRUE.items():
        assert found[name] == pytest.approx(true, abs=0.07), name
    others = [factor for name, factor in found.items() if name not in TRUE]
    assert np.abs(np.log(others)).max() < 0.05


def test_planted_season_is_found_again():
    found = day_level(np.datetime64("2021-01-01"), planted()).season
    true = 1 + 0.05 * np.cos(2 * np.pi * (SEASON_KNOTS - 300) / 365.25)
    assert found.mean() == pytest.approx(1)
    assert np.corrcoef(found, true)[0, 1] > 0.8
    assert 0.5 < np.ptp(found) / np.ptp(true) < 1.2  # shrunk, since drift can look like it


def test_a_year_shows_no_season_and_one_day_little_of_a_kind():
    for last, is_shown in (("2019-01-28", False), ("2019-03-28", True)):
        assert (np.ptp(day_level(np.datetime64(last), planted()).season) > 0) == is_shown
    strong = planted(years=1)
    once, thrice = (
        day_level(np.datetime64("2021-01-01"), history).kinds["Thanksgiving"]
        for history in (strong, planted())
    )
    assert TRUE["Thanksgiving"] < thrice < once < 1


def test_services_tell_their_days_together():
    both = History(*map(np.append, planted(years=1), planted(years=1, seed=1, service="yellow")))
    alone, together = (
        day_level(np.datetime64("2021-01-01"), history).kinds["Thanksgiving"]
        for history in (planted(years=1), both)
    )
    assert together < alone


def test_day_of_few_trips_tells_less():
    history = planted(years=1)
    few = history._replace(trips=np.full(len(history.days), 60.0))
    many, little = (
        day_level(np.datetime64("2021-01-01"), each).kinds["Thanksgiving"]
        for each in (history, few)
    )
    assert many < little < 1


def test_one_blizzard_and_a_lockdown_are_no_season():
    history = planted()
    level = history.level.copy()
    level[500] *= 2
    level[600:] *= 0.7
    calm, rough = (
        day_level(np.datetime64("2021-01-01"), history._replace(level=each)).season
        for each in (history.level, level)
    )
    np.testing.assert_allclose(rough, calm, atol=0.012)


def test_nothing_after_the_windows_end_is_known():
    history = planted()
    for last in ("2018-02-10", "2018-11-21", "2019-04-19", "2020-12-31"):
        end = np.datetime64(last)
        later = history.days > end
        changed = history._replace(level=np.where(later, 5.0, history.level))
        known, again = (day_level(end, each) for each in (history, changed))
        np.testing.assert_array_equal(known.season, again.season)
        assert known.kinds == again.kinds


def test_window_before_all_history_knows_no_day():
    assert day_level(np.datetime64("2018-12-31")).kinds == {}
    assert (day_level(np.datetime64("2018-12-31")).season == DayLevel().season).all()


def test_stored_history_has_the_days_of_two_services_and_none_of_the_lockdown():
    history = stored_history()
    assert set(history.service) == {"green", "yellow"}
    assert history.days.min() == np.datetime64("2019-01-01")
    first, last = np.array(["2020-03-08", "2020-06-14"], "datetime64[D]")
    assert not ((history.days >= first) & (history.days <= last)).any()
    keys = [*zip(history.service, history.days, strict=True)]
    assert len(set(keys)) == len(keys)


def test_real_history_shows_what_new_york_does():
    found = day_level(np.datetime64("2022-06-30"))
    assert found.kinds["day after Thanksgiving"] < 1
    assert found.kinds["days after Christmas"] < 0.97
    assert found.kinds["Good Friday"] < 0.96
    january, autumn = found.season[0], found.season[40:48].mean()
    assert january < 1 < autumn
