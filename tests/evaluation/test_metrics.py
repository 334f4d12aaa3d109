from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.evaluation.metrics import (
    error_metrics,
    evaluate,
    interval_metrics,
    predictions_digest,
    rush_hour,
    segment_masks,
    take_answers,
)

JFK, LAGUARDIA, NEWARK = 132, 138, 1
HARLEM, MIDTOWN = 74, 161  # Manhattan
ASTORIA, BAY_RIDGE, STATEN = 7, 14, 6  # Queens, Brooklyn, Staten Island
UNKNOWN = 264


def make_answers(duration, p10=None, p90=None) -> Answers:
    duration = np.array(duration, dtype="float32")
    p10 = duration if p10 is None else np.array(p10, dtype="float32")
    p90 = duration if p90 is None else np.array(p90, dtype="float32")
    n = len(duration)
    return Answers(duration, p10, duration, p90, np.full(n, 50, "int32"), np.ones(n, bool))


def make_rides(pairs: list[tuple[int, int]], at: str = "2021-01-04T12:00") -> Rides:
    pickup, dropoff = np.array(pairs, dtype="int16").T
    n = len(pairs)
    return Rides(pickup, dropoff, np.full(n, at, "datetime64[s]"), np.ones(n, "float32"))


def test_errors_are_those_computed_by_hand():
    metrics = error_metrics(np.array([10.0, 20.0, 30.0]), np.array([13.0, 16.0, 30.0]))
    assert metrics["rmse"] == pytest.approx(np.sqrt((9 + 16 + 0) / 3))
    assert metrics["mae"] == pytest.approx((3 + 4 + 0) / 3)
    assert metrics["bias"] == pytest.approx((3 - 4 + 0) / 3)


def test_errors_of_float32_minutes_are_summed_in_float64():
    actual = np.zeros(100_000, dtype="float32")
    metrics = error_metrics(actual, np.full(100_000, 0.1, dtype="float32"))
    assert metrics["mae"] == pytest.approx(np.float32(0.1), rel=1e-12)


@given(st.lists(st.tuples(st.floats(1, 60), st.floats(1, 60)), min_size=1))
def test_bias_is_within_mae_and_mae_within_rmse(pairs):
    metrics = error_metrics(*np.array(pairs).T)
    assert abs(metrics["bias"]) <= metrics["mae"] + 1e-9
    assert metrics["mae"] <= metrics["rmse"] + 1e-9


def test_coverage_counts_both_ends_as_inside_and_width_is_the_mean():
    answers = make_answers([10, 10, 10, 10], p10=[5, 5, 5, 5], p90=[15, 15, 15, 25])
    metrics = interval_metrics(np.array([5.0, 15.0, 4.9, 25.1]), answers)
    assert metrics == {"coverage": 0.5, "mean_width": 12.5}


@pytest.mark.parametrize(
    ("segment", "inside", "outside"),
    [
        ("airport", (JFK, HARLEM), (HARLEM, ASTORIA)),
        ("airport", (HARLEM, LAGUARDIA), (UNKNOWN, HARLEM)),
        ("airport", (NEWARK, NEWARK), (STATEN, STATEN)),
        ("manhattan_internal", (HARLEM, MIDTOWN), (HARLEM, ASTORIA)),
        ("manhattan_internal", (MIDTOWN, MIDTOWN), (UNKNOWN, UNKNOWN)),
        ("outer_to_outer", (ASTORIA, BAY_RIDGE), (ASTORIA, HARLEM)),
        ("outer_to_outer", (STATEN, JFK), (NEWARK, ASTORIA)),
    ],
)
def test_segment_holds_the_one_pair_and_not_the_other(segment, inside, outside):
    masks = segment_masks(make_rides([inside, outside]), np.array([50, 50]))
    assert masks[segment].tolist() == [True, False]


def test_pair_is_rare_below_ten_past_trips():
    masks = segment_masks(make_rides([(HARLEM, MIDTOWN)] * 3), np.array([0, 9, 10]))
    assert masks["rare_pair"].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2021-01-04T06:59:59", False),  # a Monday
        ("2021-01-04T07:00:00", True),
        ("2021-01-04T09:59:59", True),
        ("2021-01-04T10:00:00", False),
        ("2021-01-08T16:00:00", True),  # a Friday
        ("2021-01-08T19:00:00", False),
        ("2021-01-09T08:00:00", False),  # a Saturday
        ("2021-01-10T17:00:00", False),
    ],
)
def test_rush_hour_is_on_working_mornings_and_evenings(at, expected):
    assert rush_hour(np.array([at], dtype="datetime64[s]")).tolist() == [expected]


def test_evaluation_scores_each_segment_on_its_own_rows():
    rides = make_rides([(JFK, HARLEM), (HARLEM, MIDTOWN), (HARLEM, MIDTOWN)])
    metrics = evaluate(np.array([30.0, 10.0, 10.0]), make_answers([40, 10, 12]), rides)
    assert metrics["rows"] == 3
    assert metrics["mae"] == 4.0
    assert metrics["segments"]["airport"]["rows"] == 1
    assert metrics["segments"]["airport"]["mae"] == 10.0
    assert metrics["segments"]["manhattan_internal"]["mae"] == 1.0
    assert "rush_hour" not in metrics["segments"]  # no such row, no invented score


def test_answers_are_taken_by_mask():
    taken = take_answers(make_answers([1, 2, 3]), np.array([True, False, True]))
    assert taken.duration.tolist() == [1.0, 3.0]
    assert len(taken.support) == 2


def test_digest_is_that_of_the_little_endian_float32_minutes():
    expected = hashlib.sha256(struct.pack("<2f", 10.5, 20.25)).hexdigest()
    assert predictions_digest(make_answers([10.5, 20.25])) == expected


def test_digest_changes_with_a_prediction_and_not_with_an_interval():
    answers = make_answers([10.0, 20.0])
    changed = answers.duration.copy()
    changed[1] = np.nextafter(changed[1], np.float32(99))
    assert predictions_digest(replace(answers, duration=changed)) != predictions_digest(answers)
    assert predictions_digest(replace(answers, p90=changed + 5)) == predictions_digest(answers)


def test_digest_does_not_hang_on_how_the_array_lies_in_memory():
    minutes = np.arange(10, dtype="float32")
    strided = replace(make_answers(minutes[::2]), duration=minutes[::2])
    assert predictions_digest(strided) == predictions_digest(make_answers(minutes[::2].copy()))
