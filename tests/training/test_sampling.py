"""A sample stands for its window: every month, hour and kind of pair keeps its share of it."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from taxi_duration.data import window
from taxi_duration.data.window import MemoryPart, TripBatch, Window
from taxi_duration.domain.rides import Rides
from taxi_duration.training import sampling
from taxi_duration.training.sampling import MONTH_DAYS, draw_sample, sample_rows
from taxi_duration.training.window_sums import window_sums

TRIPS = 20_000


def some_trips(first: str, days: int, trips: int, seed: int) -> MemoryPart:
    """Trips of a busy evening and a quiet night, most of them on few pairs; minutes number them."""
    rng = np.random.default_rng(seed)
    hour = rng.choice([2, 9, 18, 19], trips, p=[0.02, 0.18, 0.4, 0.4])
    day = np.sort(rng.integers(0, days, trips))
    pickup = np.datetime64(first, "s") + day.astype("m8[D]") + hour.astype("m8[h]")
    zone = np.minimum(rng.geometric(0.05, (2, trips)), 263).astype("int16")
    miles = rng.gamma(2.0, 1.5, trips).astype("float32")
    return MemoryPart(Rides(*zone, pickup, miles), np.arange(trips, dtype="float32") + seed * 1e6)


@pytest.fixture
def months() -> Window:
    """January, a smaller February that ends in March, and an empty month."""
    empty = some_trips("2021-03-01", 31, 0, 3)
    return Window((some_trips("2021-01-01", 31, TRIPS, 0), some_trips("2021-02-01", 30, 5000, 1),
                   empty))  # fmt: skip


def rows(some: Window) -> np.ndarray:
    """Every column of every trip, shape (n, 5)."""
    return np.concatenate(
        [
            np.column_stack([*(getattr(b.rides, name).astype("float64")
                               for name in window.RIDE_COLUMNS), b.minutes])
            for b in some.batches()
        ]
    )  # fmt: skip


def strata(some: Window) -> Counter[tuple[object, ...]]:
    """Trips by month and hour."""
    found: Counter[tuple[object, ...]] = Counter()
    for rides, _ in some.batches():
        hours = rides.pickup_at.astype("M8[h]").astype(int) % 24
        found.update(zip(rides.pickup_at.astype("M8[M]").tolist(), hours.tolist(), strict=True))
    return found


@pytest.mark.parametrize("most", [25_000, 25_001, 10**9])
def test_a_window_that_fits_comes_back_untouched(months, most):
    assert sample_rows(months, most, seed=0) is months


@pytest.mark.parametrize("most", [1, 40, 9_999, 24_999])
def test_as_many_trips_as_asked_are_drawn_whole_once_and_in_order(months, most):
    every, drawn = rows(months), rows(sample_rows(months, most, seed=0))
    assert len(drawn) == most
    number = drawn[:, -1]  # no two trips have the same minutes
    assert (np.diff(number) > 0).all()
    np.testing.assert_array_equal(drawn, every[np.isin(every[:, -1], number)])


def test_every_month_and_hour_keeps_its_share(months):
    every, drawn = strata(months), strata(sample_rows(months, 2_500, seed=0))
    assert len(every) == 12 and min(every.values()) < 10  # the first of March, at night
    for stratum, trips in every.items():
        assert abs(drawn[stratum] - trips / 10) < 1, stratum


def test_rare_pairs_keep_their_share(months):
    def pairs(some: Window) -> Counter[tuple[float, float]]:
        return Counter(map(tuple, rows(some)[:, :2]))

    every, drawn = pairs(months), pairs(sample_rows(months, 2_500, seed=0))
    rare = {pair for pair, trips in every.items() if trips <= 2}
    trips = sum(every[pair] for pair in rare)
    assert trips > 1_000
    assert sum(drawn[pair] for pair in rare) == pytest.approx(trips / 10, rel=0.1)


def test_trips_are_drawn_from_all_days_alike(months):
    """Those of a stratum in steps, where chance alone would leave days out."""
    days = rows(sample_rows(months, 2_500, seed=0))[:, 2].astype("M8[s]").astype("M8[D]")
    trips = np.unique(days, return_counts=True)[1]
    assert len(trips) == 61
    evenness = trips[:31].std() / np.sqrt(trips[:31].mean())  # 1 is that of chance
    assert evenness < 0.6, trips


def test_months_that_lie_in_one_part_count_as_months():
    one = some_trips("2021-01-01", 31, 3000, 0)
    other = some_trips("2021-06-01", 30, 600, 1)
    mixed = np.random.default_rng(5).permutation(3600)
    columns = [np.concatenate([getattr(part.rides, name) for part in (one, other)])[mixed]
               for name in window.RIDE_COLUMNS]  # fmt: skip
    minutes = np.concatenate([one.minutes, other.minutes])[mixed]
    drawn = rows(sample_rows(Window.of(Rides(*columns), minutes), 360, seed=0))
    june = drawn[:, 2].astype("M8[s]") >= np.datetime64("2021-06-01")
    assert abs(june.sum() - 60) <= 4


def test_every_trip_is_as_likely_to_be_drawn(months):
    place = {number: i for i, number in enumerate(rows(months)[:, -1])}
    times = np.zeros(len(place))
    for seed in range(100):
        times[[place[n] for n in rows(sample_rows(months, 5_000, seed))[:, -1]]] += 1
    drawn = times[:TRIPS].mean(), times[TRIPS:].mean()
    assert drawn == pytest.approx((20, 20), rel=0.02)
    assert times.std() < 1.5 * np.sqrt(100 * 0.2 * 0.8)  # that of independent draws
    assert times.min() > 0


def test_a_seed_draws_the_same_trips_again_and_another_one_others(months):
    first, again, other = (rows(sample_rows(months, 12_500, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert len(np.intersect1d(first[:, -1], other[:, -1])) < 11_000


@pytest.mark.parametrize("batch", [1, 977, 5_000])
def test_the_same_trips_are_drawn_whatever_the_size_of_a_batch(months, monkeypatch, batch):
    few = Window(tuple(MemoryPart(p.rides.take(slice(0, 300)), p.minutes[:300])
                       for p in months.parts)) if batch == 1 else months  # fmt: skip
    expected = rows(sample_rows(few, 200, seed=3))
    monkeypatch.setattr(window, "BATCH_ROWS", batch)
    np.testing.assert_array_equal(rows(sample_rows(few, 200, seed=3)), expected)


def test_the_same_trips_are_drawn_where_parts_are_sent_to_other_processes(months, monkeypatch):
    expected = rows(sample_rows(months, 3_000, seed=3))
    sent = []

    def elsewhere(task, parts):
        for part in parts:
            there, part = pickle.loads(pickle.dumps((task, part)))
            sent.append(part)
            yield pickle.loads(pickle.dumps(there(part)))

    monkeypatch.setattr(sampling, "map_parts", elsewhere)
    np.testing.assert_array_equal(rows(sample_rows(months, 3_000, seed=3)), expected)
    assert len(sent) == 3 + 3 + 2  # the empty month has no trips to fetch


@dataclass(frozen=True)
class Read:
    """A part that notes each reading."""

    part: MemoryPart
    readings: list[str]
    key: str = "noted"

    def __len__(self) -> int:
        return len(self.part)

    def batches(self):
        self.readings.append("batches")
        for batch in self.part.batches():
            yield TripBatch(*batch)


def test_a_part_is_read_to_count_pairs_then_strata_and_then_to_draw(months):
    readings: list[str] = []
    sample_rows(Window(tuple(Read(part, readings) for part in months.parts[:1])), 500, seed=0)
    assert len(readings) == 3


# --- months that count less --------------------------------------------------------------------


@pytest.fixture
def year() -> Window:
    """A dozen months of unequal size, the last one the smallest, and a stray trip of 2029."""
    sizes = [6000 - 300 * k for k in range(11)] + [400]
    parts = [some_trips(f"2021-{k + 1:02}-01", 28, size, k) for k, size in enumerate(sizes)]
    return Window((*parts, some_trips("2029-08-01", 1, 1, 20)))


def by_month(some: Window) -> tuple[list[str], np.ndarray]:
    months, trips = np.unique(rows(some)[:, 2].astype("M8[s]").astype("M8[M]"), return_counts=True)
    return [str(month) for month in months], trips


def test_a_month_that_counts_half_is_drawn_from_half_as_densely(year):
    """Those of which their weight would ask more trips than there are, are drawn whole."""
    sample = draw_sample(year, 20_000, seed=0, half_life=2 * MONTH_DAYS)
    months, every = by_month(year)
    drawn = dict(zip(*by_month(sample.window), strict=True))
    share = np.array([drawn[month] for month in months]) / every
    assert sum(drawn.values()) == 20_000
    assert (share == 1).tolist() == [False] * 9 + [True] * 4, share
    for older, newer in zip(share[:7], share[2:9], strict=True):
        assert older == pytest.approx(newer / 2, rel=0.02)


def test_trips_stand_for_those_that_were_not_drawn(year):
    """So many of each month, counted by their factors, as if it were drawn like any other."""
    sample = draw_sample(year, 4_000, seed=0, half_life=2 * MONTH_DAYS)
    pickup_at = rows(sample.window)[:, 2].astype("M8[s]")
    factor = sample.factor_of(pickup_at)
    assert factor.mean() == pytest.approx(1, rel=0.03)
    months, every = by_month(year)
    for month, trips in zip(months[:12], every[:12], strict=True):
        held = pickup_at.astype("M8[M]") == np.datetime64(month)
        expected = trips * 4_000 / len(year)
        assert abs(factor[held].sum() - expected) < 1.01 * factor[held].max(), month


def test_without_a_half_life_every_trip_stands_for_as_many(year):
    sample = draw_sample(year, 4_000, seed=0)
    np.testing.assert_allclose(sample.factor_of(rows(sample.window)[:, 2].astype("M8[s]")), 1)
    np.testing.assert_array_equal(rows(sample.window), rows(sample_rows(year, 4_000, seed=0)))


def test_trips_of_a_window_that_fits_stand_for_themselves(year):
    sample = draw_sample(year, len(year), seed=0, half_life=45)
    assert sample.window is year
    np.testing.assert_array_equal(
        sample.factor_of(np.array(["2021-03-04", "2029-08-01"], "M8[s]")), 1
    )


def test_months_whose_pairs_are_known_are_read_twice(year):
    """Once to count and once to draw, and the same trips are drawn; none to see that they fit."""

    @dataclass(frozen=True)
    class Noted:
        part: MemoryPart
        key: str = ""

        def number(self) -> None:
            return None

        def batches(self) -> Iterator[TripBatch]:
            read.append(self)
            return self.part.batches()

    read: list[Noted] = []
    noted, known = Window(tuple(map(Noted, year.parts))), window_sums(year).pair_trips()
    sample = draw_sample(noted, 4_000, 0, 45, known)
    assert len(read) == 2 * len(year.parts)
    expected = draw_sample(year, 4_000, 0, 45)
    np.testing.assert_array_equal(rows(sample.window), rows(expected.window))
    read.clear()
    assert draw_sample(noted, len(year), 0, 45, known).window is noted
    assert not read


def test_pairs_counted_on_another_day_draw_no_more_than_there_is(year):
    known = window_sums(year).pair_trips()
    known[1, 1] += 10
    drawn = draw_sample(year, len(year) + 1, 0, 45, known).window
    np.testing.assert_array_equal(rows(drawn), rows(year))
