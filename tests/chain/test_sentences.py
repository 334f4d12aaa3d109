"""Sentences name what was planted: the worst hour, the worst answers, what days bought."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from taxi_duration.chain.exploration import RideCounts
from taxi_duration.chain.sentences import (
    describe_boosting,
    describe_calibration,
    describe_curve,
    describe_longer_window,
    describe_pairs,
    describe_ranking,
    describe_reasons,
    describe_residuals,
    describe_trips,
    describe_worst,
)


@pytest.fixture
def errors() -> pd.DataFrame:
    """A month of trips in Manhattan, answered half a minute too long."""
    n = 24 * 60
    return pd.DataFrame(
        {
            "pickup_at": pd.date_range("2021-03-01", periods=n, freq="30min"),
            "PULocationID": np.resize(np.array([74, 41], dtype="int16"), n),
            "DOLocationID": np.int16(75),
            "trip_distance": np.resize(np.array([1.5, 4.0], dtype="float32"), n),
            "duration": np.float32(12),
            "error": 0.5,
        }
    )


def test_hour_that_is_off_as_a_whole_is_named_with_its_bias(errors):
    errors.loc[errors["pickup_at"].dt.hour == 5, "error"] = -3.0
    assert "hour 5:00 (-3.00 minutes)" in describe_residuals(errors)


def test_distance_and_borough_that_are_off_are_named(errors):
    errors.loc[:19, ["PULocationID", "trip_distance", "error"]] = [206, 25.0, 7.0]
    text = describe_residuals(errors)
    assert "distance 20+ miles (+7.00" in text and "Staten Island (+7.00" in text


def test_group_of_few_trips_is_not_called_the_worst(errors):
    errors.loc[:4, ["PULocationID", "error"]] = [206, -50.0]
    assert "Staten Island" not in describe_residuals(errors)


def test_errors_without_distances_name_hour_and_borough_alone(errors):
    text = describe_residuals(errors.assign(trip_distance=np.float32(np.nan)))
    assert "miles" not in text and "hour" in text and "Manhattan" in text


def test_worst_answers_are_held_against_all_trips(errors):
    errors.loc[:9, ["error", "trip_distance", "duration"]] = [-40.0, 0.0, 55.0]
    text = describe_worst(errors, trips=10)
    assert "Of the 10 worst answers" in text
    assert "no believable distance: 100% (of all trips 1%)" in text


def test_calibration_names_the_answers_furthest_from_the_truth():
    table = pd.DataFrame(
        {"predicted": [5.0, 12.0, 30.0], "actual": [5.1, 12.0, 36.0], "below": 0.1,
         "inside": [0.8, 0.65, 0.81], "above": 0.1}
    )  # fmt: skip
    text = describe_calibration(table)
    assert "answers of about 30 minutes, by -6.00" in text
    assert "65% to 81%" in text and "furthest from 80 % at about 12 minutes" in text


def test_days_that_bought_something_say_how_much():
    curve = pd.DataFrame({"days": [15, 31], "rmse": [5.5, 5.0], "rmse_no_distance": [6.0, 5.9]})
    text = describe_curve(curve)
    assert "From 15 to 31 days the RMSE changes by -0.500 minutes (-9.1%)" in text


@pytest.mark.parametrize(
    ("rmse", "without", "said"),
    [
        ((5.4, 5.2, 5.0), (6.4, 6.2, 6.15), "by about 4.0% with distance, 0.2% without, if"),
        ((5.4, 5.1, 5.0), (6.4, 6.2, 6.3), "by about 0.7% with distance, 0.0% without, if"),
        ((5.4, 5.0, 5.1), (6.4, 6.2, 6.0), "a longer TRAIN_DATA than 31 days would hardly help"),
    ],
)  # fmt: skip
def test_what_a_longer_window_buys_is_read_off_the_curve(rmse, without, said):
    curve = pd.DataFrame({"days": [7, 15, 31], "rmse": rmse, "rmse_no_distance": without})
    assert said in describe_longer_window(curve)


def boosted(*rmse: float) -> pd.DataFrame:
    return pd.DataFrame({"rows": [250 * 2**k for k in range(len(rmse))], "rmse": rmse})


@pytest.mark.parametrize(
    ("rmse", "said"),
    [
        ((5.4, 5.2, 5.1, 5.05), "by -0.200, -0.100, -0.050 minutes. At this pace the next one "
                                "would buy about 0.025 (0.5%)."),
        ((5.3, 5.2, 5.0), "the next one would buy about 0.200 (4.0%)."),  # never more than the last
        ((5.1, 5.2, 5.0), "by +0.100, -0.200 minutes. At this pace the next one would buy about "
                          "0.200 (4.0%)."),
        ((5.4, 5.2, 5.2), "by -0.200, -0.000 minutes. The last doubling bought nothing"),
        ((5.4, 5.2, 5.3), "The last doubling bought nothing: more rows would only cost time."),
    ],
)  # fmt: skip
def test_doublings_of_the_rows_say_what_the_next_one_buys(rmse, said):
    text = describe_boosting(boosted(*rmse))
    assert f"up to {250 * 2 ** (len(rmse) - 1):,}" in text
    assert said in text


def test_a_model_that_is_not_boosted_has_no_curve():
    assert "is not boosted" in describe_boosting(None)


def test_ranking_says_when_a_lookup_is_better():
    table = pd.DataFrame(
        {"rmse": [7.0, 8.0, 9.0], "is_baseline": [True, False, False]}, index=["pair", "LR", "RF"]
    )
    text = describe_ranking(table)
    assert "LR is first of 2" in text and "1.000 ahead of RF" in text
    assert "1.000 worse than the best lookup, pair" in text


def test_reason_that_moves_answers_most_is_named_for_both():
    reasons = pd.DataFrame({"distance given": [1.0, 3.0], "no distance": [2.0, 0.0]},
                           index=["route", "distance"])  # fmt: skip
    assert "distance given: distance; no distance: route" in describe_reasons(reasons)


def test_rare_pairs_are_counted():
    pair = np.zeros((266, 266), dtype="int64")
    pair[74, 41], pair[74, 42], pair[75, 41], pair[1, 1] = 300, 10, 9, 1
    text = describe_pairs(RideCounts(pd.Series(), np.zeros((7, 24)), pair))
    assert text.startswith("4 pairs; the first ") and " hold 100% of trips. " in text
    assert "2 pairs (50%) were seen fewer than 10 times" in text


def test_trips_without_a_distance_are_said_to_have_none(errors):
    assert "No trip carries a distance" in describe_trips(
        errors.assign(trip_distance=np.float32(np.nan))
    )
    errors.loc[:0, "trip_distance"] = 244_152.0
    assert "1 more than 100 miles, up to 244,152" in describe_trips(errors)
