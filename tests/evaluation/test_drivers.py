"""What drives an error or a drift, in minutes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from taxi_duration.domain.findings import Drift
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.zones import zone_table
from taxi_duration.evaluation.drift import Sample
from taxi_duration.evaluation.drivers import describe_drift, find_drivers

USUAL = 3.0  # minutes; the error of every ride


def answered(n=3000, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "PULocationID": rng.choice([74, 75, 41, 132, 7], n),
            "DOLocationID": rng.choice([166, 42, 236, 161, 14], n),
            "pickup_at": np.datetime64("2021-03-01T00:00:00")
            + rng.integers(0, 7 * 86_400, n).astype("m8[s]"),
            "trip_distance": rng.gamma(4, 1.0, n) + 0.5,
            "duration": 15.0,
            "support": 50,
            "true_duration": 15 + rng.choice([-1, 1], n) * rng.gamma(4, USUAL / 4, n),
        }
    )


def drivers(frame):
    return [d.name for d in find_drivers(frame, np.full(len(frame), USUAL))]


def spoiled(frame, rows, minutes=6.0):
    return frame.assign(
        true_duration=frame["true_duration"].where(~rows, frame["true_duration"] + minutes)
    )


def test_an_even_error_has_no_driver():
    frame = answered()
    assert drivers(frame) == []
    assert drivers(spoiled(frame, frame["duration"] > 0)) == []


def test_segment_and_zone_are_named_with_share_and_minutes():
    frame = answered()
    rows = frame["PULocationID"] == 132
    segment, feature = find_drivers(spoiled(frame, rows), np.full(len(frame), USUAL))
    assert segment.name == "airport"
    assert feature.name == "pickup zone 132 JFK Airport"
    assert feature.share == pytest.approx(rows.mean())
    assert feature.excess == pytest.approx(3.4, abs=0.4)  # |e + 6| - 3 on average
    assert feature.text == f"pickup zone 132 JFK Airport ({rows.mean():.0%} of the rides) " + (
        f"{feature.excess:+.1f} min"
    )


def test_hours_are_named():
    frame = answered()
    assert "hours 15 to 18" in drivers(spoiled(frame, frame["pickup_at"].dt.hour // 3 == 5))


def test_rides_without_a_distance_are_named():
    frame = answered()
    rows = pd.Series(np.arange(len(frame)) % 5 == 0)
    frame["trip_distance"] = frame["trip_distance"].mask(rows)
    assert drivers(spoiled(frame, rows)) == ["no distance"]


def test_long_distances_for_their_zones_are_named():
    """A client that sends kilometres."""
    frame = answered().assign(PULocationID=74, DOLocationID=166)
    found = drivers(spoiled(frame, frame["trip_distance"] > frame["trip_distance"].quantile(0.75)))
    assert found == ["trip_distance long for the zones (top 25%)"]


def sample(frame):
    return Sample(Rides.from_frame(frame), frame["duration"].to_numpy())


def test_zone_that_vanished_is_named_with_the_minutes_that_answers_moved():
    before, now = answered(), answered(seed=1).assign(duration=17.0)
    now["PULocationID"] = now["PULocationID"].replace(41, 104)
    words = describe_drift(
        Drift("pickup_zone", "psi", 0.5, "", "alarm", 0.1, 0.2), sample(before), sample(now)
    )
    share = (before["PULocationID"] == 41).mean(), (now["PULocationID"] == 104).mean()
    named = {
        f"zone 41 Central Harlem went from {share[0]:.1%} to 0.0%",
        f"zone 104 {zone_table().name[104]} went from 0.0% to {share[1]:.1%}",
    }
    zone, _, moved = words.partition(", answers")
    assert zone in named
    assert moved == " are 2.0 min longer"


@pytest.mark.parametrize(
    ("feature", "words"),
    [("trip_distance", "its middle went from 3 to 4.83"),
     ("detour", "its middle went from {0:.3g} to {1:.3g}")],
)  # fmt: skip
def test_numbers_are_described_by_their_middle(feature, words):
    before = answered().assign(trip_distance=3.0, PULocationID=74, DOLocationID=166)
    now = before.assign(trip_distance=3.0 * 1.609344, duration=14.0)
    found = describe_drift(
        Drift(feature, "psi", 0.5, "", "alarm", 0.1, 0.2), sample(before), sample(now)
    )
    from taxi_duration.domain.geometry import zone_geometry

    straight = zone_geometry().straight_km[74, 166]
    shown = words.format(3.0 / straight, 3.0 * 1.609344 / straight)
    assert found == f"{shown}, answers are 1.0 min shorter"


def test_nothing_is_said_of_what_is_not_there():
    before = answered()
    current = sample(before)._replace(predicted=None)
    assert describe_drift(Drift("volume", "ratio", 3, "", "alarm", 1, 2), current, current) == ""
