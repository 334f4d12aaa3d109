from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.training.baselines import fit_baselines


def make_rides(rows: list[tuple[int, int, str]]) -> Rides:
    return Rides(
        np.array([row[0] for row in rows], dtype="int16"),
        np.array([row[1] for row in rows], dtype="int16"),
        np.array([row[2] for row in rows], dtype="datetime64[s]"),
        np.full(len(rows), np.nan, dtype="float32"),
    )


@pytest.fixture
def lookups():
    """Lookups of six trips: pair 1→2 at 8 and 9 o'clock, 2→1 at 8."""
    rows = [
        (1, 2, "2021-01-04T08:00"),
        (1, 2, "2021-01-05T08:59"),
        (1, 2, "2021-01-06T08:30"),
        (1, 2, "2021-01-04T09:00"),
        (2, 1, "2021-01-04T08:00"),
        (2, 1, "2021-01-04T08:15"),
    ]
    minutes = np.array([10, 12, 20, 6, 30, 36], dtype="float32")
    return fit_baselines(Window.of(make_rides(rows), minutes))


ASKED = make_rides(
    [
        (1, 2, "2021-02-01T08:10"),
        (1, 2, "2021-02-01T09:10"),
        (1, 2, "2021-02-01T23:10"),
        (2, 1, "2021-02-01T08:10"),
        (9, 9, "2021-02-01T08:10"),
    ]
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mean", [19, 19, 19, 19, 19]),
        ("od_pair_mean", [12, 12, 12, 33, 19]),  # the last pair is unseen: the mean of all
        ("od_pair_hour_median", [12, 6, 12, 33, 19]),  # 23 o'clock is unseen: the pair's mean
    ],
)
def test_lookup_gives_what_is_computed_by_hand(lookups, name, expected):
    assert lookups[name].predict_minutes(ASKED).tolist() == expected


def test_direction_of_a_pair_matters(lookups):
    there, back = lookups["od_pair_mean"].predict_minutes(ASKED.take(np.array([0, 3])))
    assert there != back


def test_answers_are_float32_and_the_lookup_is_left_as_it_was(lookups):
    first = lookups["od_pair_hour_median"].predict_minutes(ASKED)
    assert first.dtype == np.float32
    first[:] = 0
    assert lookups["od_pair_hour_median"].predict_minutes(ASKED).tolist() == [12, 6, 12, 33, 19]


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 60)),
        min_size=1,
        max_size=60,
    )
)
def test_median_is_numpys_in_every_cell(trips):
    rides = make_rides([(p, d, f"2021-01-04T{hour:02d}:30") for p, d, hour, _ in trips])
    minutes = np.array([trip[3] for trip in trips], dtype="float32")
    answers = fit_baselines(Window.of(rides, minutes))["od_pair_hour_median"].predict_minutes(rides)
    for answer, cell in zip(answers, trips, strict=True):
        same = [trip[3] for trip in trips if trip[:3] == cell[:3]]
        assert answer == np.median(same)
