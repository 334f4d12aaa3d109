"""Levels of what a monitor finds."""

from __future__ import annotations

from typing import get_args

import pytest

from taxi_duration.domain.findings import (
    LEVEL_NUMBERS,
    LEVELS,
    Drift,
    Level,
    level_of,
    worst,
)


@pytest.mark.parametrize(
    ("value", "level"),
    [(0.19, "ok"), (0.2, "watch"), (0.49, "watch"), (0.5, "alarm"), (float("nan"), "unknown")],
)
def test_bound_itself_counts_as_passed(value, level):
    assert level_of(value, watch=0.2, alarm=0.5) == level


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([], "ok"), (["watch", "ok"], "watch"), (["watch", "alarm", "ok"], "alarm"),
        (["unknown", "ok"], "unknown"), (["unknown", "watch"], "watch"),
    ],
)  # fmt: skip
def test_worst_level_decides(levels, expected):
    assert worst(levels) == expected


def test_numbers_of_the_levels_rise_with_them():
    """An alarm rule such as `taxi_verdict > 0` means: not known to be well."""
    assert set(LEVELS) == set(get_args(Level)) == LEVEL_NUMBERS.keys()
    assert list(LEVEL_NUMBERS.values()) == sorted(LEVEL_NUMBERS.values())
    assert [LEVEL_NUMBERS[level] for level in ("ok", "watch", "alarm")] == [0, 1, 2]


def test_drift_says_how_much_of_it_may_be_chance():
    drift = Drift("hour", "shift", 0.8, "hours", "watch", 0.45, 0.7, 0.3)
    assert drift.text == (
        "hour shift 0.8 hours (watch from 0.45, alarm from 0.7), up to 0.3 of it by chance"
    )
