"""Planted levels of days are measured again, by tables of the months before them alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.training import measured_days
from taxi_duration.training.measured_days import SHUT, MeasuredDays, measure_days

HOME, WORK, SHOP = 74, 42, 75
STORM = np.datetime64("2021-03-16")
MONTHS = ("2021-01", "2021-02", "2021-03", "2021-04", "2021-05")
DRIFT = dict(zip(MONTHS, (1.0, 1.1, 1.2, 1.2, 0.9), strict=True))


def trips_of(month: str, seed: int, trips: int = 4000) -> tuple[Rides, np.ndarray]:
    """A month's trips between three zones, as quick as the month; on one day in a storm."""
    rng = np.random.default_rng(seed)
    first = np.datetime64(month)
    days = int((first + 1).astype("M8[D]").astype(int) - first.astype("M8[D]").astype(int))
    at = first.astype("M8[s]") + rng.integers(0, days * 86_400, trips).astype("m8[s]")
    zones = rng.choice([[HOME, WORK], [WORK, HOME], [HOME, SHOP]], trips).astype("int16")
    usual = np.where(zones[:, 1] == SHOP, 7.0, 14.0) * rng.uniform(0.9, 1.1, trips)
    minutes = usual * DRIFT[month] * np.where(at.astype("M8[D]") == STORM, 1.5, 1.0)
    rides = Rides(zones[:, 0], zones[:, 1], at, np.full(trips, np.nan, "float32"))
    return rides, minutes.astype("float32")


@pytest.fixture(scope="module")
def trips() -> list[tuple[Rides, np.ndarray]]:
    return [trips_of(month, seed) for seed, month in enumerate(MONTHS)]


@pytest.fixture(scope="module")
def measured(trips) -> MeasuredDays:
    return measure_days([Window.of(*each) for each in trips])


def of_month(measured: MeasuredDays, month: str) -> np.ndarray:
    days = measured.days
    return measured.level[(days.astype("M8[M]") == np.datetime64(month)) & (days != STORM)]


def test_each_day_stands_once_with_all_its_trips(measured, trips):
    rides = np.concatenate([each.pickup_at for each, _ in trips]).astype("M8[D]")
    days, counts = np.unique(rides, return_counts=True)
    assert measured.days.tolist() == days.tolist()
    assert measured.trips.tolist() == counts.tolist()


@pytest.mark.parametrize("month", MONTHS)
def test_a_planted_drift_of_months_is_found_again(measured, month):
    """Tables of three months hold all their levels; each month is linked to the one before."""
    assert of_month(measured, month).mean() == pytest.approx(DRIFT[month], rel=0.03)


def test_a_planted_storm_is_found_again_on_its_day_alone(measured):
    (storm,) = measured.level[measured.days == STORM]
    assert storm == pytest.approx(1.5 * DRIFT["2021-03"], rel=0.04)
    assert np.ptp(of_month(measured, "2021-03")) < 0.1


def test_no_day_is_measured_by_later_months(measured, trips):
    rides, minutes = trips[-1]
    other = [*trips[:-1], (rides, np.minimum(3 * minutes, 60.0))]
    again = measure_days([Window.of(*each) for each in other])
    before = measured.days < np.datetime64(MONTHS[-1])
    np.testing.assert_array_equal(again.level[before], measured.level[before])
    assert again.level[~before].min() > 2 * measured.level[~before].max()


def test_more_of_a_routes_trips_are_no_level(trips):
    """Days on which only the long route is taken take no longer than it does."""
    rides, minutes = trips[1]
    day = rides.pickup_at.astype("M8[D]")
    kept = (day < np.datetime64("2021-02-20")) | (rides.DOLocationID != SHOP)
    long_alone = measure_days([Window.of(*trips[0]), Window.of(rides.take(kept), minutes[kept])])
    assert of_month(long_alone, "2021-02")[-9:] == pytest.approx(1.1, rel=0.04)


def test_months_are_printed_as_the_table_has_them(trips, monkeypatch, capsys):
    """Without the days of the shutdown, and those of few trips."""
    rides, minutes = trips[0]
    shut = rides.pickup_at - np.datetime64("2021-01-05") + SHUT[0].astype("M8[s]")
    moved = Window.of(replace(rides, pickup_at=np.sort(shut)), minutes)
    asked = []
    monkeypatch.setattr(
        measured_days, "prepare_months", lambda *what: asked.append(what) or ["one"]
    )
    monkeypatch.setattr(Window, "learnable", lambda months: moved)
    monkeypatch.setattr(measured_days, "MIN_TRIPS", 120)
    measured_days.main(["green=2020-03:2020-04", "yellow=2019-01"])
    head, *lines = capsys.readouterr().out.splitlines()
    months = [(service, [str(month) for month in tags]) for service, tags in asked]
    assert months == [("green", ["2020-03", "2020-04"]), ("yellow", ["2019-01"])]
    assert head == "service,day,trips,level"
    of_day = measure_days([moved])
    open_days = (of_day.days < SHUT[0]) & (of_day.trips >= 120)
    assert 0 < open_days.sum() < (of_day.days < SHUT[0]).sum()
    expected = [f"{day},{trips},{level:.4f}" for day, trips, level in zip(*of_day, strict=True)]
    wanted = [line for line, kept in zip(expected, open_days, strict=True) if kept]
    assert lines == [f"{service},{line}" for service in ("green", "yellow") for line in wanted]
