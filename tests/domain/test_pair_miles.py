"""Which distances a ride between two zones can have."""

from importlib.resources import files

import numpy as np
import pytest

from taxi_duration.domain import pair_miles as module
from taxi_duration.domain.geometry import zone_geometry
from taxi_duration.domain.limits import MAX_TRIP_MILES, OUTSIDE_ZONE, UNKNOWN_ZONE
from taxi_duration.domain.pair_miles import (
    DETOUR_MILES,
    FILE,
    HUNDREDTHS,
    KM_OF_MILE,
    can_be,
    measure_pairs,
    pair_miles,
)

JFK, FORT_GREENE, ASTORIA, OLD_ASTORIA = 132, 97, 7, 179


def test_the_file_holds_what_the_outlines_say():
    some = [1, ASTORIA, OLD_ASTORIA, 56, 57, 103, JFK]
    at = np.ix_(some, some)
    with (files(module.__package__) / FILE).open("rb") as file, np.load(file) as stored:
        for name, measured in measure_pairs(some).items():
            np.testing.assert_array_equal(measured[at], stored[name][at])


def test_the_way_there_is_as_long_as_the_way_back():
    for miles in pair_miles():
        np.testing.assert_array_equal(miles, miles.T)


def test_a_ride_within_a_zone_or_to_the_next_may_be_as_short_as_it_likes():
    shortest, _ = pair_miles()
    assert not np.diag(shortest).any()
    assert shortest[ASTORIA, OLD_ASTORIA] < 0.05


def test_centres_lie_between_the_nearest_and_the_farthest_points():
    shortest, longest = pair_miles()
    x, y = zone_geometry().centre_km.T / KM_OF_MILE
    apart = np.hypot(x[:, None] - x, y[:, None] - y)
    known = ~np.isnan(apart)
    assert (shortest[known] <= apart[known] + 1 / HUNDREDTHS).all()
    farthest = np.minimum(longest - DETOUR_MILES, MAX_TRIP_MILES)
    assert (apart[known] <= farthest[known] + 1 / HUNDREDTHS).all()
    assert shortest[FORT_GREENE, JFK] == pytest.approx(6.6, abs=1.5)


@pytest.mark.parametrize("unknown", [UNKNOWN_ZONE, OUTSIDE_ZONE])
def test_zones_that_are_no_places_allow_every_distance(unknown):
    shortest, longest = pair_miles()
    assert not shortest[unknown].any() and not shortest[:, unknown].any()
    assert (longest[unknown] == MAX_TRIP_MILES).all() and (longest[:, unknown] == 100).all()


@pytest.mark.parametrize(
    ("miles", "possible"),
    [(1.99, False), (2.0, True), (35.0, True), (35.01, False), (float("nan"), False)],
)
def test_a_distance_is_held_against_both_ends(miles, possible):
    assert can_be(miles, 2.0, 35.0) is possible
    assert can_be(np.array([miles]), np.array([2.0]), np.array([35.0])).tolist() == [possible]


@pytest.mark.parametrize("miles", [0.0, -1.0])
def test_nothing_is_no_distance(miles):
    assert not can_be(miles, 0.0, 35.0)
