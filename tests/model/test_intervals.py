from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.domain.rides import Rides
from taxi_duration.model.intervals import (
    KIND_NAMES,
    RARE_TRIPS,
    SUPPORTS,
    RideIntervals,
    kind_table,
    ride_groups,
    scale_places,
)
from taxi_duration.training.calibration import fit_intervals

GROUPS = len(KIND_NAMES) * SUPPORTS


def draw(n: int, seed: int, groups: tuple[int, ...] = (5, 8, 11)):
    """Exchangeable trips: predicted and actual minutes, and group; spread grows with length."""
    rng = np.random.default_rng(seed)
    predicted = rng.gamma(4.0, 4.0, n) + 2
    actual = predicted * np.exp(rng.normal(0, 0.1 + predicted / 100, n))
    return predicted, actual, rng.choice(groups, n)


def share_inside(intervals, predicted, actual, group) -> float:
    low, _, high = intervals.quantiles(predicted, group).T
    return float(np.mean((actual >= low) & (np.minimum(actual, intervals.limit) <= high)))


def test_eighty_per_cent_of_exchangeable_trips_are_covered():
    intervals = fit_intervals(*draw(20_000, seed=1))
    assert share_inside(intervals, *draw(20_000, seed=2)) == pytest.approx(0.81, abs=0.015)


@pytest.mark.parametrize(("group", "outside"), [(8, 0.095), (1, 0.1)])
def test_each_side_leaves_out_its_own_share(group, outside):
    """Of trips not from the airport 9.5 % lie below P10 and as many above P90, half below P50."""
    intervals = fit_intervals(*draw(60_000, seed=1, groups=(group,)))
    predicted, actual, groups = draw(60_000, seed=2, groups=(group,))
    low, middle, high = intervals.quantiles(predicted, groups).T
    keep = high < intervals.limit  # what the limit cuts is no tail of ours
    for share, expected in (
        (np.mean(actual[keep] < low[keep]), outside),
        (np.mean(actual[keep] > high[keep]), outside),
        (np.mean(actual[keep] < middle[keep]), 0.5),
    ):
        assert share == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("n", [15, 60, 200])
def test_few_calibration_trips_still_cover_on_average(n):
    shares = [
        share_inside(fit_intervals(*draw(n, seed)), *draw(2000, seed + 500)) for seed in range(60)
    ]
    assert np.mean(shares) >= 0.79


def test_long_and_short_trips_are_both_covered():
    intervals = fit_intervals(*draw(20_000, seed=1))
    predicted, actual, group = draw(40_000, seed=2)
    for part in (predicted < 10, predicted > 25):
        inside = share_inside(intervals, predicted[part], actual[part], group[part])
        assert 0.77 <= inside <= 0.85


def test_each_group_has_its_own_width():
    predicted, actual, group = draw(20_000, seed=3, groups=(5, 8))
    actual = np.where(group == 8, predicted + 3 * (actual - predicted), actual)
    intervals = fit_intervals(predicted, np.maximum(actual, 0.1), group)
    calm, wild = (intervals.quantiles(np.array([15.0]), np.array([g]))[0] for g in (5, 8))
    assert wild[2] - wild[0] > 2 * (calm[2] - calm[0])


@pytest.mark.parametrize("kind", range(len(KIND_NAMES)))
def test_unseen_pairs_are_never_surer_than_rare_ones(kind):
    predicted, actual, group = draw(12_000, seed=4, groups=tuple(range(GROUPS)))
    unseen = group % SUPPORTS == 0
    actual = np.where(unseen, predicted + 0.2 * (actual - predicted), actual)  # luckily narrow
    intervals = fit_intervals(predicted, actual, group)
    knots = intervals.knots[kind * SUPPORTS]  # compared where both curves are known
    low, _, high = intervals.quantiles(knots, np.full(len(knots), kind * SUPPORTS)).T
    rare = intervals.quantiles(knots, np.full(len(knots), kind * SUPPORTS + 1))
    assert (low <= rare[:, 0] + 1e-6).all()
    assert (high >= rare[:, 2] - 1e-6).all()


def test_quantiles_are_in_order_and_below_the_longest_trip():
    intervals = fit_intervals(*draw(5000, seed=5))
    low, middle, high = intervals.quantiles(np.linspace(1, 60, 500), np.full(500, 5)).T
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert high.max() <= 60


@pytest.mark.parametrize("n", [0, 1, 5])
def test_hardly_any_calibration_trips_give_an_interval_all_the_same(n):
    intervals = fit_intervals(*draw(n, seed=6))
    quantiles = intervals.quantiles(np.array([10.0]), np.array([7]))
    assert np.isfinite(quantiles).all()


def test_one_ride_has_the_quantiles_of_the_frame():
    intervals = fit_intervals(*draw(8000, seed=7, groups=tuple(range(GROUPS))))
    alone = RideIntervals(intervals)
    predicted = np.random.default_rng(8).uniform(1, 60, 300)
    group = np.arange(300) % GROUPS
    rows = [alone.quantiles(p, g) for p, g in zip(predicted.tolist(), group.tolist(), strict=True)]
    np.testing.assert_allclose(rows, intervals.quantiles(predicted, group), rtol=1e-12)


# --- what hours, zones and distances that cannot be used add to the curves -------------------

WILD_ZONE, WILD_HOUR = 132, 17
FACTORS = {"hour": 1.6, "pickup": 1.5, "dropoff": 0.6, "unusable": 2.0}


def asked(n: int, seed: int) -> tuple[Rides, np.ndarray]:
    """Rides of January 2021 between 20 zones and at all hours; 1 of 10 without miles, 1 with 0."""
    rng = np.random.default_rng(seed)
    zones = rng.choice([WILD_ZONE, *range(20, 39)], (2, n)).astype("int16")
    pickup_at = np.datetime64("2021-01-04T00:00:00") + rng.integers(0, 28 * 86_400, n)
    miles = rng.choice([np.nan, 0.0, *[3.0] * 8], n).astype("float32")
    rides = Rides(*zones, pickup_at, miles)
    return rides, miles > 0


def planted(rides: Rides, used: np.ndarray) -> dict[str, np.ndarray]:
    """Where each of FACTORS makes truths spread."""
    hour = rides.pickup_at.astype("datetime64[h]").astype("int64") % 24
    weekday = (rides.pickup_at.astype("datetime64[D]").astype("int64") + 3) % 7 < 5
    return {
        "hour": (hour == WILD_HOUR) & weekday,
        "pickup": rides.PULocationID == WILD_ZONE,
        "dropoff": rides.DOLocationID == WILD_ZONE,
        "unusable": ~used & ~np.isnan(rides.trip_distance),
    }


def spread(n: int, seed: int, factors: dict[str, float]):
    """Rides whose truths spread by the factors: what `fit_intervals` takes, and `planted`."""
    rides, used = asked(n, seed)
    where = planted(rides, used)
    wide = np.prod([np.where(where[name], by, 1.0) for name, by in factors.items()], axis=0)
    rng = np.random.default_rng(seed + 100)
    predicted = rng.uniform(8, 25, n)
    actual = predicted * np.exp(rng.normal(0, 0.15, n) * wide)
    return predicted, actual, np.full(n, 8), scale_places(rides, used), where


def share_of(intervals, predicted, actual, group, places) -> np.ndarray:
    low, _, high = intervals.quantiles(predicted, group, intervals.scale(places)).T
    return (actual >= low) & (actual <= high)


@pytest.mark.parametrize("name", FACTORS)
def test_a_planted_spread_is_found_again_and_alone(name):
    intervals = fit_intervals(*spread(120_000, 1, {name: FACTORS[name]})[:-1])
    where = dict(zip(FACTORS, intervals.scales, strict=True))
    found = {
        "hour": where["hour"][WILD_HOUR] / np.delete(where["hour"][:24], WILD_HOUR).mean(),
        "pickup": where["pickup"][WILD_ZONE] / where["pickup"][20:39].mean(),
        "dropoff": where["dropoff"][WILD_ZONE] / where["dropoff"][20:39].mean(),
        "unusable": where["unusable"][1] / where["unusable"][0],
    }
    expected = {**dict.fromkeys(FACTORS, 1.0), name: FACTORS[name]}
    # Farthest trips are cut, and a place is drawn to 1: wide ones come out a little narrower.
    assert found == pytest.approx(expected, rel=0.12)


def test_each_place_holds_its_share_with_all_planted_at_once():
    intervals = fit_intervals(*spread(120_000, 1, FACTORS)[:-1])
    *asked_with, where = spread(60_000, 2, FACTORS)
    inside = share_of(intervals, *asked_with)
    assert inside.mean() == pytest.approx(0.81, abs=0.015)
    for name, rows in where.items():
        assert 0.77 <= inside[rows].mean() <= 0.85, name


def test_places_without_trips_scale_nothing_and_few_trips_little():
    *few, _ = spread(40, 3, FACTORS)
    intervals = fit_intervals(*few)
    for scale, place in zip(intervals.scales, few[3], strict=True):
        unseen = np.delete(scale, np.unique(place))
        assert (unseen == 1.0).all()
        assert np.abs(scale - 1).max() < 0.5


def test_one_ride_has_the_quantiles_and_the_scale_of_the_frame():
    intervals = fit_intervals(*spread(20_000, 1, FACTORS)[:-1])
    rides, used = asked(300, 4)
    alone, group, rows = RideIntervals(intervals), np.arange(300) % GROUPS, []
    predicted = np.random.default_rng(8).uniform(1, 60, 300)
    for i in range(300):
        unusable = not (used[i] or np.isnan(rides.trip_distance[i]))
        zones = int(rides.PULocationID[i]), int(rides.DOLocationID[i])
        scale = alone.scale(*zones, rides.pickup_at[i].item(), unusable)
        rows.append(alone.quantiles(float(predicted[i]), int(group[i]), scale))
    scale = intervals.scale(scale_places(rides, used))
    np.testing.assert_allclose(rows, intervals.quantiles(predicted, group, scale), rtol=1e-12)


def test_no_scale_leads_out_of_the_course_rule_or_out_of_order():
    intervals = fit_intervals(*draw(5000, seed=5))
    predicted, scale = np.linspace(1, 60, 500), np.geomspace(1e-3, 1e3, 500)
    quantiles = intervals.quantiles(predicted, np.full(500, 5), scale[::-1])
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert (quantiles.min(), quantiles.max()) == (1.0, 60.0)


@pytest.mark.parametrize(
    ("pickup", "dropoff", "kind"),
    [
        (132, 230, "airport"),
        (236, 237, "manhattan"),
        (7, 181, "outer"),
        (7, 236, "mixed"),
        (264, 7, "mixed"),
    ],
)
def test_kind_of_a_pair_follows_its_zones(pickup, dropoff, kind):
    assert KIND_NAMES[kind_table()[pickup, dropoff]] == kind


@pytest.mark.parametrize(
    ("trips", "group"), [(0, 0), (0.4, 1), (1, 1), (RARE_TRIPS - 1, 1), (RARE_TRIPS, 2), (9999, 2)]
)
def test_group_follows_the_past_trips_of_the_pair(trips, group):
    assert ride_groups(np.array([0]), np.array([trips]))[0] == group
