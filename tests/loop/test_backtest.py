"""Living through months again."""

from __future__ import annotations

import numpy as np
import pytest

from taxi_duration import environment
from taxi_duration.data.prepared import PreparedMonth
from taxi_duration.domain.months import Month, parse_months
from taxi_duration.domain.rides import Answers
from taxi_duration.errors import SettingError
from taxi_duration.loop import backtest
from taxi_duration.loop.backtest import (
    STRATEGIES,
    run_backtest,
    summarize,
)

MONTHS = parse_months("2021-01:2021-06")
CHANGE = Month(2021, 4)


class Slope:
    """A model that is fitted at once: a line over the distance, and its usual errors."""

    def __init__(self, kind, rides, duration) -> None:
        x = self._miles(rides)
        self.slope, self.start = np.polyfit(x, duration, 1)
        ratio = duration / (self.start + self.slope * x)
        self.quantiles = np.quantile(ratio, [0.1, 0.5, 0.9])

    @staticmethod
    def _miles(rides):
        return np.clip(np.nan_to_num(rides.trip_distance, nan=3.0), 0.1, 15.0)

    def answer(self, rides):
        minutes = self.start + self.slope * self._miles(rides)
        low, middle, high = (minutes * q for q in self.quantiles)
        known = ~np.isnan(rides.trip_distance)
        return Answers(minutes, low, middle, high, np.full(len(rides), 50), known)


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """Six sample months; from April on every trip takes a third less: the streets are empty."""
    patch = pytest.MonkeyPatch()
    patch.setenv("TAXI_HOME", str(tmp_path_factory.mktemp("backtest")))
    patch.setenv("DATA", "sample")
    patch.setenv("SAMPLE_ROWS", "1500")
    as_prepared = PreparedMonth.trips

    def trips(self):
        frame = as_prepared(self)
        pace = 0.65 if self.raw.month >= CHANGE else 1.0
        return frame.assign(duration=np.clip(frame["duration"] * pace, 1, 60).astype("float32"))

    patch.setattr(PreparedMonth, "trips", trips)
    home = environment.home()
    result = run_backtest("green", MONTHS, fit=Slope)
    yield result, home
    patch.undo()


def done(result, verb):
    return result.decisions[result.decisions["what"].str.startswith(verb)]


pytestmark = pytest.mark.slow


def test_every_month_after_validation_has_each_strategys_error(lived):
    result, _ = lived
    assert list(result.table.index) == ["2021-03", "2021-04", "2021-05", "2021-06"]
    assert (result.table[[f"{name}_mae" for name in STRATEGIES]] > 0).all(axis=None)


def test_all_start_with_the_same_model(lived):
    first = lived[0].table.iloc[0]
    assert first["monthly_mae"] == first["frozen_mae"] == pytest.approx(first["auto_mae"])


def test_alarm_fires_within_two_weeks_of_the_change_and_not_before(lived):
    alarms = lived[0].alarms
    first = alarms.loc[alarms["level"] == "alarm", "day"].iloc[0]
    assert np.datetime64("2021-04-01") <= first <= np.datetime64("2021-04-15")


def test_auto_promotes_a_model_of_the_new_world_only_after_the_change(lived):
    promoted = done(lived[0], "promote")["day"]
    assert len(promoted)
    assert (promoted > np.datetime64("2021-04-30")).all()


def test_auto_ends_nearer_than_the_frozen_model(lived):
    last = lived[0].table.iloc[-1]
    assert last["auto_mae"] < 0.95 * last["frozen_mae"]


def test_every_trip_of_a_month_is_answered_once(lived):
    result, _ = lived
    assert (result.table["rows"] > 1200).all()


def test_real_deployment_and_home_are_left_alone(lived):
    _, home = lived
    assert environment.home() == home
    assert not (home / "deployment").exists()


def test_summary_weighs_months_by_their_trips(lived):
    result, _ = lived
    table = result.table
    expected = (table["frozen_mae"] * table["rows"]).sum() / table["rows"].sum()
    assert summarize(result)["frozen"] == pytest.approx(expected)


def test_too_few_months_to_live_through_are_refused(home):
    with pytest.raises(SettingError, match="at least 4"):
        run_backtest("green", MONTHS[: backtest.MIN_MONTHS - 1])
