"""Whether the rides with feedback stand for all rides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from taxi_duration.evaluation.selection import MIN_RIDES, judge_selection

BOUNDS = (0.05, 0.2)


def answered(n=4000, days=14, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "PULocationID": rng.choice([74, 75, 41, 7, 14, 37], n),
            "pickup_at": np.datetime64("2021-03-01T00:00:00")
            + rng.integers(0, days * 86_400, n).astype("m8[s]"),
            "duration": (minutes := rng.gamma(4, 4.0, n) + 2),
            "true_duration": minutes * rng.gamma(16, 1 / 16, n),
        }
    )


def levels(frame, told):
    """Level by what the rides differ in."""
    found = judge_selection(frame, told, *BOUNDS)
    assert {reason.kind for reason in found} <= {"selection"}
    return {reason.text.split(" by ")[1].split(" they")[0]: reason.level for reason in found}


def test_feedback_of_every_ride_is_not_selective():
    assert levels(answered(), np.ones(4000, dtype=bool)) == {}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_feedback_by_chance_is_not_selective(share):
    for seed in range(20):
        told = np.random.default_rng(seed).random(4000) < share
        assert levels(answered(seed=seed), told) == {}


def test_feedback_of_short_rides_only_is_named_with_minutes():
    frame = answered()
    told = (frame["duration"] < 12).to_numpy()
    assert levels(frame, told) == {"predicted minutes": "alarm"}
    (reason,) = judge_selection(frame, told, *BOUNDS)
    mean = frame["duration"].mean(), frame["duration"][told].mean()
    assert f"{mean[1]:.1f} min were predicted for them, {mean[0]:.1f} for all" in reason.text
    assert f"for {told.mean():.0%} of the rides" in reason.text


def test_feedback_of_one_borough_only_is_named():
    frame = answered()
    assert levels(frame, frame["PULocationID"].isin([74, 75, 41]).to_numpy()) == {
        "borough": "alarm"
    }


def test_feedback_of_the_day_shift_only_is_named():
    frame = answered()
    hour = frame["pickup_at"].dt.hour
    assert levels(frame, hour.between(9, 17).to_numpy()) == {"hour": "alarm"}


def test_rides_that_may_still_be_under_way_are_not_missed():
    """Feedback ends at 9 in the morning: nobody kept the evening's rides back."""
    frame = answered(days=3)
    told = (frame["pickup_at"] < "2021-03-03 09:00").to_numpy()
    assert levels(frame, told) == {}


@pytest.mark.parametrize(("factor", "found"), [(1.2, True), (1.05, False)])
def test_feedback_of_complainers_is_named_by_what_is_not_told(factor, found):
    """Rides of all kinds, and none that was answered well."""
    frame = answered()
    told = (frame["true_duration"] > factor * frame["duration"]).to_numpy()
    reasons = judge_selection(frame, told, *BOUNDS)
    assert [r.level for r in reasons] == ["watch"] * found
    assert all("answered badly" in r.text for r in reasons)


def test_answers_that_are_all_wrong_are_no_complaints_only():
    """Kilometres instead of miles: every answer is half as long again."""
    frame = answered()
    frame["duration"] *= 1.5
    assert judge_selection(frame, np.arange(4000) % 2 == 0, *BOUNDS) == []


@pytest.mark.parametrize(("rides", "found"), [(MIN_RIDES - 1, False), (MIN_RIDES + 40, True)])
def test_few_rides_with_feedback_say_nothing(rides, found):
    frame = answered()
    told = (frame["duration"] < 12).to_numpy(copy=True)
    told[np.flatnonzero(told)[rides:]] = False
    assert bool(judge_selection(frame, told, *BOUNDS)) == found
