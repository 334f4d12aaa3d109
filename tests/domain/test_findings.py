"""Levels of what a monitor finds."""

from __future__ import annotations

import pytest

from taxi_duration.domain.findings import level_of, worst


@pytest.mark.parametrize(
    ("value", "level"),
    [(0.19, "ok"), (0.2, "watch"), (0.49, "watch"), (0.5, "alarm"), (float("nan"), "ok")],
)
def test_bound_itself_counts_as_passed(value, level):
    assert level_of(value, watch=0.2, alarm=0.5) == level


@pytest.mark.parametrize(
    ("levels", "expected"),
    [([], "ok"), (["watch", "ok"], "watch"), (["watch", "alarm", "ok"], "alarm")],
)
def test_worst_level_decides(levels, expected):
    assert worst(levels) == expected
