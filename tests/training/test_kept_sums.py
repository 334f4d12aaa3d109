"""Sums of a month are kept, and made anew when they are not what they should be."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from taxi_duration import environment
from taxi_duration.data.prepared import prepare_months
from taxi_duration.data.window import Window
from taxi_duration.domain.months import parse_months
from taxi_duration.training import day_groups, kept_sums
from taxi_duration.training.feature_tables import window_tables
from taxi_duration.training.window_sums import WindowSums


@pytest.fixture
def months(home, monkeypatch):
    monkeypatch.setenv("SAMPLE_ROWS", "600")
    return prepare_months("green", parse_months("2021-01:2021-03"))


@pytest.fixture
def passes(monkeypatch) -> list[str]:
    """Which passes went over which month's trips."""
    done: list[str] = []
    for name in ("count_days", "first_pass", "second_pass"):
        made = getattr(kept_sums, name)

        def noted(part, *given, name=name, made=made):
            done.append(f"{name} {part.key[6:13]}")
            return made(part, *given)

        monkeypatch.setattr(kept_sums, name, noted)
    return done


def tables(months, **given):
    return window_tables(Window.learnable(months), **given).pair


def kept(pattern: str) -> list:
    return sorted((environment.data_dir() / "prepared").glob(pattern))


def test_sums_are_made_once(months, passes):
    first = tables(months[:1])
    assert passes == ["count_days 2021-01", "first_pass 2021-01", "second_pass 2021-01"]
    passes.clear()
    np.testing.assert_array_equal(tables(months[:1]), first)
    assert passes == []


def test_a_new_month_costs_its_own_first_pass(months, passes):
    tables(months[:2])
    passes.clear()
    tables(months)
    seconds = [f"second_pass 2021-{month:02d}" for month in (1, 2, 3)]
    assert passes == ["count_days 2021-03", "first_pass 2021-03", *seconds]


def test_a_killed_pass_goes_on_with_the_month_that_was_not_finished(months, passes, monkeypatch):
    make = kept_sums.second_pass

    def killed(part, *given):
        if "2021-02" in part.key:
            raise KeyboardInterrupt
        return make(part, *given)

    monkeypatch.setattr(kept_sums, "second_pass", killed)
    with pytest.raises(KeyboardInterrupt):
        tables(months)
    passes.clear()
    monkeypatch.setattr(kept_sums, "second_pass", make)
    tables(months)
    assert passes == ["second_pass 2021-02", "second_pass 2021-03"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def another_s(path):
    other = next(p for p in kept(f"*{path.name.split('.')[1].split('-')[0]}-*") if p != path)
    shutil.copy(other, path)


def no_archive(path):
    path.write_text("not an archive")


def pickled(path):
    with path.open("wb") as file:
        np.savez(file, np.array([{"a": 1}], dtype=object))


@pytest.mark.parametrize("spoil", [cut, flipped, another_s, no_archive, pickled])
@pytest.mark.parametrize("name", ["days", "first", "second"])
def test_a_file_that_is_damaged_or_another_s_is_made_anew(months, passes, spoil, name, caplog):
    expected = tables(months[:2])
    spoil(kept(f"*2021-01*.{name}-*.npz")[0])
    passes.clear()
    np.testing.assert_array_equal(tables(months[:2]), expected)
    made = {"days": "count_days"}.get(name, f"{name}_pass")
    assert passes == [f"{made} 2021-01"]
    assert "making them again" in caplog.text


def test_other_code_settings_or_folds_make_other_sums(months, passes, monkeypatch):
    tables(months[:1])
    for change in (
        lambda: monkeypatch.setattr(kept_sums, "_code", lambda: "other"),
        lambda: monkeypatch.setattr(day_groups, "FOLDS", 3),
    ):
        change()
        passes.clear()
        tables(months[:1])
        assert {line.split()[0] for line in passes} >= {"first_pass", "second_pass"}
    passes.clear()
    tables(months[:1], half_life=7.0)
    assert {line.split()[0] for line in passes} == {"first_pass", "second_pass"}


def test_of_each_pass_the_newest_sums_alone_are_kept(months):
    for window in (months[:1], months[:2], months):
        tables(window)
    assert len(kept("*2021-01*.npz")) == 3


def test_trips_in_memory_are_not_kept(months, passes):
    rides, minutes = Window.learnable(months[:1]).whole()
    WindowSums(Window.of(rides, minutes).parts, 45.0).table_sums()
    assert kept("*.npz") == []
