from __future__ import annotations

import numpy as np
import pytest

from taxi_duration.model.intervals import (
    KIND_NAMES,
    RARE_TRIPS,
    SUPPORTS,
    RideIntervals,
    kind_table,
    ride_groups,
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


@pytest.mark.parametrize(("group", "outside"), [(8, 0.095), (1, 0.11)])
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
