"""Living through months again."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace

from taxi_duration import environment
from taxi_duration.data.prepared import PreparedMonth
from taxi_duration.domain.months import Month, parse_months
from taxi_duration.domain.rides import Answers
from taxi_duration.errors import SettingError
from taxi_duration.loop import backtest
from taxi_duration.loop.backtest import (
    STRATEGIES,
    Backtest,
    run_backtest,
    summarize,
    write_table,
)
from taxi_duration.loop.settings import auto_settings
from taxi_duration.loop.simulated_world import SimulatedWorld, start_of

MONTHS = parse_months("2021-01:2021-06")
CHANGE = Month(2021, 4)


class Slope:
    """A model that is fitted at once: a line over the distance, and its usual errors."""

    def __init__(self, kind, window) -> None:
        rides, duration = window.whole()
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


def same_intervals(model, judged, window):
    """A line has no intervals to measure anew."""
    return model


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
    result = run_backtest("green", MONTHS, fit=Slope, measure=same_intervals)
    yield result, home
    patch.undo()


def done(result, verb):
    return result.decisions[result.decisions["what"].str.startswith(verb)]


pytestmark = pytest.mark.long


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


def test_live_traffic_is_nearer_from_the_change_on_while_auto_has_not_learned_of_it(lived):
    table = lived[0].table
    gain = 1 - table["auto_traffic_mae"] / table["auto_mae"]
    assert gain["2021-03"] > -0.01
    assert gain["2021-04"] > 0.1


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


@pytest.mark.parametrize(("months", "delay"), [(3, 0), (5, 2)])
def test_too_few_months_to_live_through_are_refused(home, months, delay):
    with pytest.raises(SettingError, match="1 can be lived through, at least 2"):
        run_backtest("green", MONTHS[:months], delay_months=delay)


@pytest.mark.parametrize(("share", "delay"), [(0.0, 0), (1.1, 0), (1.0, -1)])
def test_share_and_delay_that_cannot_be_are_refused(home, share, delay):
    with pytest.raises(SettingError, match="share"):
        run_backtest("green", MONTHS, share=share, delay_months=delay)


# --- killed, and going on ----------------------------------------------------------------


class KilledError(Exception):
    """Stands for any death."""


class Mortal:
    """Fits lines, counts them, and dies before one of them."""

    def __init__(self, dies_at=None):
        self.fits, self.dies_at = 0, dies_at

    def __call__(self, *args):
        self.fits += 1
        if self.fits == self.dies_at:
            raise KilledError
        return Slope(*args)


def run_small(fit, say=lambda _: None, months=MONTHS[:4], **choices):
    return run_backtest("green", months, say, fit=fit, measure=same_intervals, **choices)


@pytest.fixture
def small(home, monkeypatch):
    monkeypatch.setenv("SAMPLE_ROWS", "500")
    return run_small


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A small backtest beside a real deployment: its result, number of fits and folder."""
    folder, fit = tmp_path_factory.mktemp("undisturbed"), Mortal()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("TAXI_HOME", folder / "home"), ("DEPLOYMENT_DIR", folder / "real"),
                            ("DATA", "sample"), ("SAMPLE_ROWS", "500")):  # fmt: skip
            patch.setenv(name, str(value))
        (folder / "real").mkdir()
        (folder / "real" / "deployment.json").write_text("{}")
        result = run_small(fit)
        assert environment.deployment_dir() == folder / "real"
    return result, fit.fits, folder


def assert_same(one: Backtest, other: Backtest) -> None:
    pd.testing.assert_frame_equal(one.table, other.table)
    pd.testing.assert_frame_equal(one.decisions, other.decisions)
    pd.testing.assert_frame_equal(one.alarms, other.alarms)


@pytest.mark.long
def test_killed_backtest_goes_on_and_ends_as_one_that_was_not(small, undisturbed):
    mortal, said = Mortal(dies_at=3), []
    with pytest.raises(KilledError):
        small(mortal)
    again = Mortal()
    resumed = small(again, said.append)
    assert any(line.startswith("going on after 2021-0") for line in said)
    whole, fits, _ = undisturbed
    assert_same(resumed, whole)
    assert mortal.fits - 1 + again.fits == fits  # none is fitted twice


def test_finished_backtest_is_read_back_and_changed_choices_begin_anew(small, undisturbed, home):
    first, _, folder = undisturbed
    shutil.copytree(folder / "home", home)
    again, half = Mortal(), Mortal()
    assert_same(first, small(again))
    assert again.fits == 0
    halved = small(half, share=0.5)
    assert half.fits > 0
    assert (halved.table["rows"] < 0.6 * first.table["rows"]).all()


def test_backtest_never_touches_the_folders_of_the_real_deployment(undisturbed):
    folder = undisturbed[-1]
    assert [path.name for path in (folder / "real").iterdir()] == ["deployment.json"]
    assert (folder / "real" / "deployment.json").read_text() == "{}"


# --- the calendar ------------------------------------------------------------------------


def test_riders_come_when_the_first_two_months_are_published(small, monkeypatch):
    def live_day(world, month, rows, today):
        return np.ones(rows.sum()), np.ones(rows.sum())

    monkeypatch.setattr(SimulatedWorld, "_live_day", live_day)
    table = small(Mortal(), months=MONTHS[:5], delay_months=1).table
    assert list(table.index) == ["2021-04", "2021-05"]


@pytest.mark.parametrize(
    ("delay", "window", "judge"),
    [(0, "2021-02:2021-04", "2021-05"), (2, "2021-01:2021-02", "2021-03")],
)
def test_monthly_knows_what_is_published_when_the_month_begins(delay, window, judge):
    settings = replace(auto_settings(), window_months=3)
    made = SimpleNamespace(delay_months=delay, settings=settings, make_version=lambda *a: a)
    months = [*MONTHS[:5], Month(2021, 6)]
    assert backtest._monthly(made, months, Month(2021, 6)) == (
        parse_months(window), parse_months(judge)[0],
    )  # fmt: skip


@pytest.mark.parametrize("delay", [0, 2])
def test_month_is_published_when_it_is_over_and_the_delay_has_passed(delay):
    world = SimulatedWorld("green", dict.fromkeys(MONTHS), {}, auto_settings(), None, None, delay)
    march = Month(2021, 3)
    world.time = start_of(march.shift(1 + delay))
    assert list(world.find_published(None, [march.shift(1), march])) == [march]
    world.time -= 1
    assert list(world.find_published(None, [march])) == []


def test_rides_outside_the_rule_are_asked_and_not_scored(lived):
    """Riders tell all durations; the table counts the course rule's, as every card does."""
    result, _ = lived
    month = backtest.prepare_months("green", [Month(2021, 3)])[0]
    assert len(month.every_ride()) > len(month.trips())
    scored = month.every_ride()["duration"].between(1, 60).sum()
    assert result.table.loc["2021-03", "rows"] == scored


# --- what is written ---------------------------------------------------------------------


def test_table_is_written_with_a_row_for_all_months(tmp_path):
    columns = {f"{name}_{error}": [i + 1.0, i + 3.0]
               for i, name in enumerate(STRATEGIES) for error in ("mae", "rmse")}  # fmt: skip
    columns |= {"level": ["ok", "watch"], "serves": [1, 2]}
    months = pd.Index(["2021-03", "2021-04"], name="month")
    table = pd.DataFrame({"rows": [300, 100], **columns}, index=months)
    result = Backtest(table, pd.DataFrame(), pd.DataFrame())
    for name in ("table.csv", "table.md"):
        write_table(result, tmp_path / name)
    kept = pd.read_csv(tmp_path / "table.csv", index_col="month")
    assert list(kept.index) == ["2021-03", "2021-04", "all"]
    assert kept.loc["all", ["rows", "frozen_mae", "monthly_mae"]].tolist() == [400, 1.5, 2.5]
    assert kept.loc["all", "frozen_rmse"] == pytest.approx(np.sqrt(3), abs=1e-3)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0].startswith("| month | rows | frozen_mae |")
    assert lines[-1].startswith("| all | 400 | 1.5 |")
