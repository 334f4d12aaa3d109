"""The split of rides, and the test that may be peeked at."""

from __future__ import annotations

import pytest

from taxi_duration.ab_test import arm_of

KEYS = [f"ride-{i}" for i in range(4000)]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_share_of_the_rides_goes_to_the_challenger(share):
    got = sum(arm_of(key, share, "a") == "challenger" for key in KEYS) / len(KEYS)
    assert got == pytest.approx(share, abs=4 * (share * (1 - share) / len(KEYS)) ** 0.5)


@pytest.mark.parametrize(("share", "arm"), [(0.0, "champion"), (1.0, "challenger")])
def test_share_of_nothing_or_all_sends_every_ride_to_one_arm(share, arm):
    assert {arm_of(key, share, "a") for key in KEYS} == {arm}


def test_ride_keeps_its_arm_in_every_process():
    assert [arm_of(key, 0.5, "a") for key in ("ride-1", "ride-2", "ride-3", "ride-4")] == [
        "challenger",
        "champion",
        "champion",
        "challenger",
    ]


def test_larger_share_takes_no_ride_away_from_the_challenger():
    before = {key for key in KEYS if arm_of(key, 0.1, "a") == "challenger"}
    after = {key for key in KEYS if arm_of(key, 0.3, "a") == "challenger"}
    assert before < after


def test_next_experiment_draws_other_rides():
    first = {key for key in KEYS if arm_of(key, 0.5, "a") == "challenger"}
    second = {key for key in KEYS if arm_of(key, 0.5, "b") == "challenger"}
    assert len(first & second) / len(first) == pytest.approx(0.5, abs=0.05)
