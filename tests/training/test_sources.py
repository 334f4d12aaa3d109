"""Nothing that a model knows is from after its window: each learned file says from when it is."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

import taxi_duration
from taxi_duration.data.window import Window
from taxi_duration.domain.months import parse_month
from taxi_duration.files import MODEL_MAKING
from taxi_duration.model.atlas import atlas_for, atlas_sources
from taxi_duration.training import day_levels
from taxi_duration.training.day_levels import History, day_level, stored_history
from taxi_duration.training.fit import fit_point

# Learned from trips, and so dated: the tests below read from when.
LEARNED = {"model/atlas.npz", "model/atlas.json", "training/day_levels.csv"}
# Where zones lie, whatever the day; and settings: how to learn and to judge, not what was learned.
TIMELESS = {"domain/zones.csv", "domain/zone_shapes.json", "domain/pair_miles.npz"}
ENDS = [
    np.datetime64(f"{year}-{month:02d}-28") for year in (2020, 2021, 2022) for month in (2, 6, 11)
]
STARTS = [np.datetime64(f"{tag}-01") for tag in ("2020-03", "2020-12", "2021-01", "2022-06")]


def test_a_learned_file_that_nobody_dates_is_found():
    package = Path(taxi_duration.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for shelf in MODEL_MAKING
        for path in (package / shelf).rglob("*")
        if path.suffix in (".json", ".csv", ".npz") and not path.name.endswith("_settings.json")
    }
    assert found >= LEARNED
    assert found - LEARNED - TIMELESS == set()


@pytest.mark.parametrize("first", STARTS, ids=str)
def test_the_atlas_is_of_months_that_are_over_when_the_window_begins(first):
    months = [parse_month(entry["month"]) for entry in atlas_sources()["months"]]
    over = max(months).shift(1)  # the first month after them
    knows = atlas_for(first) is not None
    assert knows == (first >= np.datetime64(date(over.year, over.month, 1)))


def test_every_day_of_the_stored_history_is_real_and_of_a_month_at_hand():
    days = stored_history().days
    assert days.min() >= np.datetime64("2019-01-01")
    assert days.max() < np.datetime64("today")


@pytest.mark.parametrize("last", ENDS, ids=str)
def test_levels_of_days_know_nothing_after_the_window(last):
    known, spoiled = day_level(last), day_level(last, _spoiled_after(last))
    assert known.kinds == spoiled.kinds
    np.testing.assert_array_equal(known.season, spoiled.season)


def test_the_history_on_the_last_day_is_used_so_that_the_test_above_can_fail():
    last = np.datetime64("2021-11-28")
    earlier = day_level(last, _spoiled_after(last - 60))
    assert earlier.kinds != day_level(last).kinds


@pytest.mark.usefixtures("quick_trees")
def test_a_whole_model_is_the_same_whatever_comes_after_its_window(trips, monkeypatch):
    window = Window.from_frame(trips)
    known = fit_point("XGB", window)
    last = trips["pickup_at"].max().to_datetime64().astype("datetime64[D]")
    spoiled = _spoiled_after(last)
    monkeypatch.setattr(day_levels, "stored_history", lambda: spoiled)
    again = fit_point("XGB", Window.from_frame(trips))
    assert known.level.kinds == again.level.kinds
    np.testing.assert_array_equal(known.level.season, again.level.season)
    np.testing.assert_array_equal(known.with_distance.nodes, again.with_distance.nodes)
    np.testing.assert_array_equal(known.without_distance.nodes, again.without_distance.nodes)


def _spoiled_after(last: np.datetime64) -> History:
    """The stored history with days of half the length after one."""
    days, service, trips, level = stored_history()
    return History(days, service, trips, np.where(days > last, level / 2, level))
