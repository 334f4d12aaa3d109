from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxi_duration.domain.rides import Answers, Rides
from taxi_duration.evaluation.metrics import (
    CRPS_WEIGHTS,
    answer_figures,
    error_metrics,
    evaluate,
    interval_metrics,
    pinball_loss,
    prediction_bytes,
    rush_hour,
    segment_masks,
    sum_answers,
    take_answers,
)
from taxi_duration.model.intervals import LEVELS

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
    assert (metrics["coverage"], metrics["mean_width"]) == (0.5, 12.5)


def test_losses_are_those_computed_by_hand():
    """One trip is 4 above P90, 10 above P50 and 15 above P10; one 2 below P10 and so on."""
    answers = make_answers([20, 20], p10=[15, 15], p90=[26, 26])
    metrics = interval_metrics(np.array([30.0, 13.0]), answers)
    low, middle, high = (0.1 * 15 + 0.9 * 2) / 2, (0.5 * 10 + 0.5 * 7) / 2, (0.9 * 4 + 0.1 * 13) / 2
    assert metrics == pytest.approx(
        {
            "coverage": 0.0,
            "mean_width": 11.0,
            "pinball": (low + middle + high) / 3,
            "pinball_p10": low,
            "pinball_p50": middle,
            "pinball_p90": high,
            "crps": 2 * (25 * low + 46 * middle + 25 * high) / 96,
        }
    )


@pytest.mark.parametrize("level", LEVELS)
def test_loss_is_least_at_the_quantile_of_its_level(level):
    actual = np.random.default_rng(1).gamma(4.0, 4.0, 5000)
    offered = np.linspace(1, 40, 400)
    losses = [pinball_loss(actual, np.full(5000, q), level).mean() for q in offered]
    assert offered[np.argmin(losses)] == pytest.approx(np.quantile(actual, level), abs=0.2)


@pytest.mark.parametrize("power", range(4))
def test_crps_of_losses_that_are_cubic_in_the_level_is_exact(power):
    losses = np.array(LEVELS) ** power
    assert losses @ CRPS_WEIGHTS == pytest.approx(2 / (power + 1))


def test_crps_of_the_true_quantiles_of_a_normal_distribution_is_its_own():
    actual = np.random.default_rng(2).normal(30, 4, 200_000)
    n, (low, middle, high) = len(actual), np.quantile(actual, LEVELS)
    answers = replace(
        make_answers(np.full(n, middle), np.full(n, low), np.full(n, high)),
        p50=np.full(n, middle),
    )
    assert interval_metrics(actual, answers)["crps"] == pytest.approx(4 / np.sqrt(np.pi), rel=0.01)


def test_sums_of_batches_have_the_figures_of_all_trips():
    rng = np.random.default_rng(3)
    rides = make_rides([(JFK, HARLEM), (HARLEM, MIDTOWN)] * 50)
    actual = rng.uniform(1, 60, 100)
    answers = make_answers(
        rng.uniform(1, 60, 100), rng.uniform(1, 20, 100), rng.uniform(20, 60, 100)
    )
    parts = [slice(0, 7), slice(7, 60), slice(60, None)]
    sums = [sum_answers(actual[at], take_answers(answers, at), rides.take(at)) for at in parts]
    whole = evaluate(actual, answers, rides)
    alone = {**error_metrics(actual, answers.duration), **interval_metrics(actual, answers)}
    added = answer_figures(sum(sums))
    assert {name: whole[name] for name in alone} == pytest.approx(alone)
    assert {name: added[name] for name in alone} == pytest.approx(alone)
    assert added["segments"].keys() == whole["segments"].keys()
    for name, figures in whole["segments"].items():
        assert added["segments"][name] == pytest.approx(figures)


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


def test_bytes_to_digest_are_the_little_endian_float32_minutes():
    assert prediction_bytes(make_answers([10.5, 20.25])) == struct.pack("<2f", 10.5, 20.25)


def test_bytes_to_digest_change_with_a_prediction_and_not_with_an_interval():
    answers = make_answers([10.0, 20.0])
    changed = answers.duration.copy()
    changed[1] = np.nextafter(changed[1], np.float32(99))
    assert prediction_bytes(replace(answers, duration=changed)) != prediction_bytes(answers)
    assert prediction_bytes(replace(answers, p90=changed + 5)) == prediction_bytes(answers)


def test_bytes_to_digest_do_not_hang_on_how_the_array_lies_in_memory():
    minutes = np.arange(10, dtype="float32")
    strided = replace(make_answers(minutes[::2]), duration=minutes[::2])
    assert prediction_bytes(strided) == prediction_bytes(make_answers(minutes[::2].copy()))
