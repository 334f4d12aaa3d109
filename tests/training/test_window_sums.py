"""Tables from sums are those that trips give one by one."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from taxi_duration.data import window as window_module
from taxi_duration.data.window import MemoryPart, Window
from taxi_duration.domain.geometry import zone_geometry
from taxi_duration.domain.pickup_calendar import read_clock
from taxi_duration.domain.rides import Rides
from taxi_duration.model.features import PAIR_TABLE
from taxi_duration.training import part_sums
from taxi_duration.training.day_groups import BLOCKS, FOLDS, DayCounts, DayGroups
from taxi_duration.training.feature_tables import fit_tables, fold_tables, window_tables
from taxi_duration.training.window_sums import HALF_LIFE_DAYS, window_sums

ZONES = np.array([4, 41, 74, 79, 130, 226, 264, 265])  # neighbours, far ones, unknown ones


def made_up(n: int, first: str = "2021-02-01", days: int = 28, seed: int = 0) -> Window:
    """Trips between a few zones, some dated years away, some without a distance or a true one."""
    rng = np.random.default_rng(seed)
    at = np.datetime64(first, "s") + np.sort(rng.integers(0, days * 86_400, n)).astype("m8[s]")
    at[: n // 100] = np.datetime64("2009-01-01T00:10:00")
    at[-(n // 300) :] = np.datetime64("2029-07-04T23:50:00")
    miles = np.round(rng.gamma(2, 2, n), 2).astype("float32")
    miles[rng.random(n) < 0.1] = np.nan
    miles[rng.random(n) < 0.03] = 0.0
    miles[7] = 207_826.0
    rides = Rides(
        rng.choice(ZONES, n).astype("int16"), rng.choice(ZONES, n).astype("int16"), at, miles
    )
    minutes = np.clip(4 + 3 * np.nan_to_num(miles) + rng.gamma(2, 2, n), 1, 60)
    return Window.of(rides, minutes.astype("float32"))


# --- the same, written down trip by trip -----------------------------------------------------


def plain_curve(x: list[float], y: list[float], bins: int):
    """Mean of y along x through quantile bins, never falling, as a function."""
    known = [(a, b) for a, b in zip(x, y, strict=True) if a == a]
    lost = [b for a, b in zip(x, y, strict=True) if a != a]
    edges = sorted(set(np.quantile([a for a, _ in known], np.linspace(0, 1, bins + 1)).tolist()))
    held: dict[int, list[tuple[float, float]]] = {}
    for a, b in known:
        at = sum(edge <= a for edge in edges) - 1
        held.setdefault(min(at, len(edges) - 2), []).append((a, b))
    knots = [np.mean([a for a, _ in held[k]]) for k in sorted(held)]
    heights = np.maximum.accumulate([np.mean([b for _, b in held[k]]) for k in sorted(held)])
    unknown = np.mean(lost) if lost else np.mean(y)
    return lambda a: np.where(np.isnan(a), unknown, np.interp(a, knots, heights))


def plain_ratios(pairs, actual, base, weight):
    """Wide, near and own ratio of every pair, from lists of trips."""
    zones, g = 266, zone_geometry()
    top, bottom = np.zeros((zones, zones)), np.zeros((zones, zones))
    for (p, d), a, b, w in zip(pairs, actual, base, weight, strict=True):
        top[p, d] += w * a
        bottom[p, d] += w * b
    one = np.mean(base)
    names = np.unique(g.borough)
    boroughs = np.empty((zones, zones))
    for a in names:
        for b in names:
            rows = np.ix_(g.borough == a, g.borough == b)
            boroughs[rows] = (top[rows].sum() + 20 * one * top.sum() / bottom.sum()) / (
                bottom[rows].sum() + 20 * one
            )
    steps, ratio = [], boroughs
    for near in (g.wide, g.near):
        up, down = near @ top @ near.T, near @ bottom @ near.T
        ratio = (up + 8 * one * ratio) / (down + 8 * one)
        steps.append(ratio)
    back = ((top + top.T) / 2 + 8 * one * ratio) / ((bottom + bottom.T) / 2 + 8 * one)
    return [*steps, (top + 8 * one * back) / (bottom + 8 * one)]


def plain_hours(zone, cell, actual, base, weight):
    """Ratio of the city and of every zone by cell of the week, from lists of trips."""
    g, sums = zone_geometry(), np.zeros((2, 266, 72))
    for z, c, a, b, w in zip(zone, cell, actual, base, weight, strict=True):
        row, hour = divmod(c, 24)
        for step, share in ((-1, 0.2), (0, 0.6), (1, 0.2)):
            sums[:, z, row * 24 + (hour + step) % 24] += share * w * np.array([a, b])
    (top, bottom), one = sums, np.mean(base)
    city = (top.sum(axis=0) + 10 * one) / (bottom.sum(axis=0) + 10 * one)
    ratio = np.tile(city, (266, 1))
    for near in (g.wide, g.near):
        ratio = (near @ top + 30 * one * ratio) / (near @ bottom + 30 * one)
    return city, (top + 30 * one * ratio) / (bottom + 30 * one)


def plain_lines(pairs, actual, expected, weight):
    """Start and slope of every pair's line, from lists of trips."""
    near, sums = zone_geometry().near, np.zeros((5, 266, 266))
    for (p, d), y, x, w in zip(pairs, actual, expected, weight, strict=True):
        sums[:, p, d] += w * np.array([1, x, y, x * x, x * y])
    n, sx, sy, sxx, sxy = (near @ each @ near.T for each in sums)
    mean, prior, one = sx / np.maximum(n, 1e-9), 20 * np.var(expected), 20 * np.mean(expected)
    slope = (sxy - mean * sy + prior) / (sxx - mean * sx + prior)
    start = mean * (sy + one) / (sx + one) - slope * mean
    return np.where(n > 0, start, 0), np.where(n > 0, slope, 1)


def plain_tables(rides: Rides, minutes: np.ndarray, weight: np.ndarray, by_miles=None):
    """The layers of the pair table by name, and hours by pickup and drop-off, trip by trip."""
    pairs = list(zip(rides.PULocationID.tolist(), rides.DOLocationID.tolist(), strict=True))
    cell = [read_clock(at)[1] for at in rides.pickup_at.tolist()]
    km, y, w = zone_geometry().straight_km, minutes.astype(float).tolist(), weight.tolist()
    straight = plain_curve([km[pair] for pair in pairs], y, 40)
    base = straight(km)
    ratios = plain_ratios(pairs, y, [base[pair] for pair in pairs], w)
    layers = dict(zip(("minutes_wide", "minutes_near", "minutes_pair"),
                      (base * ratio for ratio in ratios), strict=True))  # fmt: skip
    usual = [layers["minutes_pair"][pair] for pair in pairs]
    layers["root_pair"] = plain_ratios(pairs, np.sqrt(y), np.sqrt(usual), w)[2]
    hours = [plain_hours([p[end] for p in pairs], cell, y, usual, w)[1] for end in (0, 1)]
    known = [i for i, m in enumerate(rides.trip_distance.tolist()) if 0 < m <= 100]
    pairs, cell, y, w = ([each[i] for i in known] for each in (pairs, cell, y, w))
    miles = [rides.trip_distance[i].item() for i in known]
    base = plain_curve([km[pair] for pair in pairs], miles, 40)(km)
    ratios = plain_ratios(pairs, miles, [base[pair] for pair in pairs], w)
    layers["miles_near"], layers["miles_pair"] = base * ratios[1], base * ratios[2]
    usual = (by_miles or plain_curve(miles, y, 60))(np.array(miles)).tolist()
    _, near, layers["pace_pair"] = plain_ratios(pairs, y, usual, w)
    by_near = [u * near[pair] for u, pair in zip(usual, pairs, strict=True)]
    ends = [plain_hours([p[end] for p in pairs], cell, y, by_near, w) for end in (0, 1)]
    (city, pickup), (_, dropoff) = ends
    expected = [
        u * layers["pace_pair"][p, d] * pickup[p, c] * dropoff[d, c] / city[c]
        for u, (p, d), c in zip(usual, pairs, cell, strict=True)
    ]
    layers["line_start"], layers["line_slope"] = plain_lines(pairs, y, expected, w)
    return layers, [np.stack(both, axis=-1) for both in zip(hours, (pickup, dropoff), strict=True)]


def plain_weight(rides: Rides) -> np.ndarray:
    """Half for 45 days before the last day but strays, 1 on average."""
    day = rides.pickup_at.astype("datetime64[D]")
    last = np.sort(day)[int(0.99 * (len(day) - 1))]
    weight = 0.5 ** (np.clip((last - day).astype(int), 0, 3650) / HALF_LIFE_DAYS)
    return weight / weight.mean()


def assert_tables_are(tables, layers, hours, rtol=1e-6) -> None:
    for name, expected in layers.items():
        found = tables.pair[1:, 1:, PAIR_TABLE.index(name)]
        # A start is the difference of two numbers of minutes.
        least = rtol * 20 if name == "line_start" else 0
        np.testing.assert_allclose(found, expected[1:, 1:], rtol=rtol, atol=least, err_msg=name)
    for found, expected in zip((tables.pickup_hour, tables.dropoff_hour), hours, strict=True):
        np.testing.assert_allclose(found, expected, rtol=rtol)


@pytest.mark.parametrize("days", [28, 2])
def test_tables_are_those_of_trips_taken_one_by_one(days):
    window = made_up(900, days=days)
    rides, minutes = window.whole()
    assert_tables_are(window_tables(window), *plain_tables(rides, minutes, plain_weight(rides)))


@pytest.mark.parametrize("days", [28, 2])
def test_tables_of_a_fold_are_those_of_the_other_trips(days):
    """Counted to the size of the whole, and along the window's own curve of distances."""
    window = made_up(900, days=days)
    rides, minutes = window.whole()
    sums, weight = window_sums(window), plain_weight(rides)
    _, fold = sums.groups.block_and_fold(rides, sums.groups.places(rides.pickup_at))
    by_miles = plain_curve(
        *zip(*((m, y) for m, y in zip(rides.trip_distance.tolist(), minutes.tolist(), strict=True)
               if 0 < m <= 100), strict=True), 60,
    )  # fmt: skip
    tables = fold_tables(sums).tables
    assert set(tables) == set(range(FOLDS))
    for k, made in tables.items():
        rest = fold != k
        plain = plain_tables(rides.take(rest), minutes[rest], weight[rest], by_miles)
        assert_tables_are(made, *plain)
        assert made.trips.sum() == pytest.approx(len(rides), rel=1e-6)


@pytest.mark.parametrize("left_out", [None, 0, 1, 2])
def test_what_is_sent_to_a_worker_weighs_trips_alike_and_holds_no_sums(left_out):
    window = made_up(900)
    sums, at = window_sums(window), window.whole().rides.pickup_at
    sent = pickle.dumps(sums)
    assert len(sent) < 20_000 < sums._pairs.nbytes
    there = pickle.loads(sent).weight_of(at, left_out)
    np.testing.assert_array_equal(there, sums.weight_of(at, left_out))


def test_a_block_left_out_is_as_if_its_trips_were_not_there():
    window = made_up(900)
    rides, minutes = window.whole()
    sums = window_sums(window)
    block, _ = sums.groups.block_and_fold(rides, sums.groups.places(rides.pickup_at))
    rest = block != 1
    other = window_sums(Window.of(rides.take(rest), minutes[rest]))
    np.testing.assert_allclose(
        sums.weight_of(rides.pickup_at[rest], 1), other.weight_of(rides.pickup_at[rest])
    )
    for k, left in fold_tables(sums, left_out=1).sums.fold_sums(left_out=1):
        found = dict(other.fold_sums())[k]
        np.testing.assert_allclose(left.pair("minutes"), found.pair("minutes"))
    np.testing.assert_array_equal(sums.pair_trips(left_out=1), other.pair_trips())
    whole = fit_tables(sums.table_sums(1), sums.curve)
    hours = fit_tables(other.table_sums(), other.curve)
    np.testing.assert_allclose(whole.pickup_hour[..., 0], hours.pickup_hour[..., 0], rtol=1e-6)


def test_parts_and_batches_add_up_to_the_whole(monkeypatch):
    whole = made_up(1500, days=20)
    rides, minutes = whole.whole()
    cut = int(np.searchsorted(rides.pickup_at, np.datetime64("2021-02-11")))
    halves = slice(0, cut), slice(cut, None)
    parts = Window(tuple(MemoryPart(rides.take(rows), minutes[rows]) for rows in halves))
    monkeypatch.setattr(window_module, "BATCH_ROWS", 97)
    monkeypatch.setattr(part_sums, "PENDING", 200)
    one, two = window_tables(whole), window_tables(parts)
    np.testing.assert_allclose(two.pair, one.pair, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(
        np.concatenate([b.minutes for b in fold_tables(window_sums(parts)).batches(parts)]), minutes
    )
    assert window_sums(parts).blocks == [0, 1, 2]


def test_a_part_without_trips_changes_nothing():
    """Such as a month of which every row has a proven fault."""
    window = made_up(600)
    (part,) = window.parts
    empty = MemoryPart(part.rides.take(slice(0)), part.minutes[:0])
    for parts in ((empty, part), (part, empty)):
        found = window_tables(Window(parts))
        np.testing.assert_array_equal(found.pair, window_tables(window).pair)


def test_many_sums_by_cell_are_kept_in_half_the_space(monkeypatch):
    exact = window_tables(made_up(900))
    monkeypatch.setattr(part_sums, "EXACT_SUMS", 0)
    found = window_tables(made_up(900))
    assert not np.array_equal(found.pair, exact.pair)
    np.testing.assert_allclose(found.pair, exact.pair, rtol=1e-4, atol=1e-4)


def test_a_trip_met_in_a_sample_belongs_to_the_same_group():
    for days in (28, 2):
        window = made_up(500, days=days)
        rides, _ = window.whole()
        groups = window_sums(window).groups
        some = rides.take(np.random.default_rng(0).permutation(500)[:200])
        every = groups.block_and_fold(rides, groups.places(rides.pickup_at))
        found = groups.block_and_fold(some, groups.places(some.pickup_at))
        order = np.random.default_rng(0).permutation(500)[:200]
        for all_of_them, picked in zip(every, found, strict=True):
            np.testing.assert_array_equal(all_of_them[order], picked)


# --- blocks and folds of days ----------------------------------------------------------------


def test_blocks_are_days_in_a_row():
    days = np.datetime64("2021-01-01") + np.arange(31)
    groups = DayGroups.of(DayCounts(days, np.full(31, 4)))
    assert sorted(set(groups.block)) == list(range(BLOCKS))
    assert (np.diff(groups.block) >= 0).all()
    assert np.bincount(groups.block).tolist() == [11, 10, 10]
    assert (groups.fold == days.astype("int64") % FOLDS).all()


@pytest.mark.parametrize("days", [1, 2])
def test_fewer_days_than_blocks_are_divided_trip_by_trip(days):
    window = made_up(900, days=days)
    rides = replace(window.whole().rides, pickup_at=np.full(900, np.datetime64("2021-02-01", "s")))
    window = Window.of(rides, window.whole().minutes)
    sums = window_sums(window)
    block, fold = sums.groups.block_and_fold(rides, sums.groups.places(rides.pickup_at))
    assert np.bincount(block).min() > 200 and np.bincount(fold).min() > 100


def test_trips_that_are_all_alike_can_be_learned_from():
    rides = made_up(200).whole().rides.take(np.zeros(200, dtype=int))
    window = Window.of(rides, np.full(200, 10, "float32"))
    sums = window_sums(window)
    assert sums.blocks == [None]
    rows = np.concatenate([batch.rows for batch in fold_tables(sums).batches(window)])
    assert len(rows) == 200


def test_blocks_of_a_window_are_thirds_of_its_days():
    parts = [made_up(400, f"2021-{month:02d}-01", seed=month).parts[0] for month in (1, 2, 3, 4)]
    window = Window(tuple(parts))
    days = window_sums(window).groups
    inside = (days.days > np.datetime64("2020")) & (days.days < np.datetime64("2022"))
    assert (np.diff(days.block[inside]) >= 0).all()
    assert np.bincount(days.block[inside]).min() > 30
