"""The city of the compose tests is one that there could be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from slow_city import CALL, SlowCity

from taxi_duration.domain.rides import Rides
from taxi_duration.domain.truths import OFF_BY_FACTOR, OUTSIDE, SCORED, judge_calls


@pytest.fixture(scope="module")
def city() -> SlowCity:
    return SlowCity()


def test_what_riders_tell_owes_nothing_to_the_answer(city):
    ride_id = city.ride(3, minutes_ago=70)["ride_id"]
    told = [city.told({"ride_id": ride_id, "prediction_id": "a", "duration": minutes})
            for minutes in (2.0, 50.0)]  # fmt: skip
    assert told[0] == told[1]


def test_among_what_riders_tell_are_strays_and_fleets_that_count_in_seconds(city):
    asked = [city.ride(n, minutes_ago=70) for n in range(600)]
    answers = [{"ride_id": ride["ride_id"], "prediction_id": ride["ride_id"]} for ride in asked]
    calls = list(city.calls(answers))
    minutes = np.array([told["duration"] for call in calls for told in call])
    of_call = np.repeat(np.arange(len(calls)), CALL).astype(float)
    found = Counter(judge_calls(minutes, Rides.from_dicts(asked), of_call).tolist())
    assert found[OFF_BY_FACTOR] == 2 * CALL
    assert found[SCORED] > 400
    assert sum(found[code] for code in OUTSIDE) > 5
