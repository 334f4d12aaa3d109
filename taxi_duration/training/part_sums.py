"""What the trips of one part add up to: all that tables and linear models are made of.

Trips are summed by group (a block and a fold of days, see `day_groups.py`), so that a fold or a
block can be left out later. The first pass needs nothing but the trips; the second needs the
usual minutes of each distance, a curve of the whole window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import NamedTuple

import numpy as np

from taxi_duration.data.window import Part
from taxi_duration.domain.geometry import ZONES
from taxi_duration.domain.limits import MAX_TRIP_MILES
from taxi_duration.domain.pickup_calendar import CELLS, hours_of_day, read_clocks
from taxi_duration.model.curves import Curve
from taxi_duration.model.features import known_distance
from taxi_duration.training import day_groups
from taxi_duration.training.day_groups import BLOCKS, DayCounts, DayGroups
from taxi_duration.training.keyed_sums import KeyedSums, order_of, sum_runs

MAX_AGE_DAYS = 3650
PAIRS = ZONES * ZONES
# By pair: trips, those with any distance, and those with one that can be true (`known`); then the
# same weighted by age. Distances are miles as recorded, or as known.
PLAIN = (
    "trips", "minutes", "minutes2", "given", "given_miles", "given_miles2", "given_minutes",
    "given_product", "known", "known_miles",
)  # fmt: skip
WEIGHTED = ("weight", "weight_minutes", "weight_root", "weight_known", "weight_known_minutes",
            "weight_known_miles")  # fmt: skip
PAIR_SUMS = (*PLAIN, *WEIGHTED)
# By pair and cell of the week, all weighted.
CELL_SUMS = ("weight", "minutes")
# By pair and cell, of trips with a known distance; `usual` are the usual minutes of it. The last
# two are not weighted.
USUAL_SUMS = ("minutes", "usual", "usual2", "usual_minutes", "plain_usual", "plain_usual2")
USUAL_WEIGHTED = 4
# TLC writes hundredths of a mile, ride-hailing thousandths: a bin holds one distance only.
BINS_PER_MILE = 1000
MILES_BINS = int(MAX_TRIP_MILES * BINS_PER_MILE) + 1
# A year of ride-hailing has tens of millions of sums by cell: a part with more than so many
# keeps them in float32.
EXACT_SUMS = 5_000_000
PENDING = 4_000_000  # sums of batches that wait to be added up: about 100 MB


@dataclass(frozen=True)
class PartSums:
    """Sums of the first pass; those of several parts add up.

    Args:
        pairs, cells: by group, PAIR_SUMS by pair and CELL_SUMS by pair * CELLS + cell.
        miles: trips, miles and minutes by known distance, shape (MILES_BINS, 3).
    """

    pairs: tuple[KeyedSums, ...]
    cells: tuple[KeyedSums, ...]
    miles: np.ndarray

    def __add__(self, other: PartSums) -> PartSums:
        return PartSums(
            add_groups(self.pairs, other.pairs),
            add_groups(self.cells, other.cells),
            self.miles + other.miles,
        )

    def placed(self, block_of: np.ndarray, weight: float) -> PartSums:
        """Return the sums with other blocks, int of shape (BLOCKS,), and trips that weigh less."""
        pairs = np.repeat([1.0, weight], [len(PLAIN), len(WEIGHTED)])
        cells = np.repeat(weight, len(CELL_SUMS))
        return PartSums(
            in_blocks(self.pairs, block_of, pairs), in_blocks(self.cells, block_of, cells),
            self.miles,
        )  # fmt: skip


def add_groups(some: tuple[KeyedSums, ...], other: tuple[KeyedSums, ...]) -> tuple[KeyedSums, ...]:
    """Add sums up group by group."""
    return tuple(KeyedSums.joined(both) for both in zip(some, other, strict=True))


def in_blocks(
    some: tuple[KeyedSums, ...], block_of: np.ndarray, factors: np.ndarray
) -> tuple[KeyedSums, ...]:
    """Return sums by group, times factors by column, with blocks joined as `block_of` says."""
    folds = len(some) // BLOCKS
    put: list[list[KeyedSums]] = [[] for _ in some]
    for group, sums in enumerate(some):
        put[block_of[group // folds] * folds + group % folds].append(sums.scaled(factors))
    empty = KeyedSums(some[0].keys[:0], some[0].values[:0])
    return tuple(KeyedSums.joined(each or [empty]) for each in put)


class _Sorted(NamedTuple):
    """Trips in the order of their keys, columns of shape (n,): key is of group, pair and cell."""

    key: np.ndarray
    weight: np.ndarray
    minutes: np.ndarray
    miles: np.ndarray


def recency(days: np.ndarray, last: np.datetime64, half_life: float) -> np.ndarray:
    """Return the weight of trips of some days, 1 on the last one and after it, shape (d,)."""
    age = np.clip((last - days).astype("int64"), 0, MAX_AGE_DAYS)
    weight: np.ndarray = 0.5 ** (age / half_life)
    return weight


def count_days(part: Part) -> DayCounts:
    """Return how many trips of a part began on each day."""
    none = DayCounts(np.empty(0, "datetime64[D]"), np.empty(0, "int64"))
    return reduce(add, (DayCounts.of(batch.rides.pickup_at) for batch in part.batches()), none)


def first_pass(part: Part, days: DayCounts, half_life: float) -> PartSums:
    """Return the first sums of one part.

    Args:
        days: of the part.
        half_life: days before the part's last one at which a trip counts half.
    """
    pairs, cells, miles = _Waiting(), _Waiting(), np.zeros((3, MILES_BINS))
    for trips in _sorted_trips(part, days, half_life, known_only=False):
        known = ~np.isnan(known_distance(trips.miles))
        distance, minutes = trips.miles[known], trips.minutes[known]
        which = np.rint(distance * BINS_PER_MILE).astype("int64")
        for row, values in enumerate((None, distance, minutes)):
            miles[row] += np.bincount(which, values, MILES_BINS)
        cells.take(sum_runs(trips.key, (trips.weight, trips.weight * trips.minutes)))
        pairs.take(sum_runs(trips.key // CELLS, _pair_columns(trips, known)))
    return PartSums(
        pairs.groups(PAIRS, len(PAIR_SUMS)),
        cells.groups(PAIRS * CELLS, len(CELL_SUMS)),
        miles.T,
    )


def second_pass(
    part: Part, days: DayCounts, half_life: float, curve: Curve
) -> tuple[KeyedSums, ...]:
    """Return USUAL_SUMS of one part by group, as `first_pass`.

    Args:
        curve: the usual minutes of a distance, in the whole window.
    """
    waiting = _Waiting()
    for trips in _sorted_trips(part, days, half_life, known_only=True):
        usual = curve.at(trips.miles)
        minutes, weighted = trips.weight * trips.minutes, trips.weight * usual
        columns = minutes, weighted, weighted * usual, usual * minutes, usual, usual * usual
        waiting.take(sum_runs(trips.key, columns))
    return waiting.groups(PAIRS * CELLS, len(USUAL_SUMS))


def _sorted_trips(
    part: Part, days: DayCounts, half_life: float, known_only: bool
) -> Iterator[_Sorted]:
    """Yield the batches of a part in the order of groups, pairs and cells."""
    if not len(days):
        return
    groups = DayGroups.of(days)
    midnight_cell = read_clocks(days.days.astype("datetime64[s]"))[1]
    weight = recency(days.days, days.last, half_life)
    for rides, minutes in part.batches():
        if known_only:
            known = ~np.isnan(known_distance(rides.trip_distance))
            rides, minutes = rides.take(known), minutes[known]
        place = groups.places(rides.pickup_at)
        block, fold = groups.block_and_fold(rides, place)
        hour = hours_of_day(rides.pickup_at)
        pair = rides.PULocationID.astype("int64") * ZONES + rides.DOLocationID
        group = block * day_groups.FOLDS + fold
        key, order = order_of((group * PAIRS + pair) * CELLS + midnight_cell[place] + hour)
        yield _Sorted(
            key, weight[place][order], minutes[order].astype("float64"),
            rides.trip_distance[order].astype("float64"),
        )  # fmt: skip


def _pair_columns(trips: _Sorted, known: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the columns of PAIR_SUMS."""
    _, weight, minutes, miles = trips
    given = (~np.isnan(miles)).astype("float64")
    miles, given_minutes, believed = np.nan_to_num(miles, nan=0.0), minutes * given, known * weight
    return (
        np.ones(len(miles)), minutes, minutes * minutes, given, miles, miles * miles,
        given_minutes, given_minutes * miles, known, known * miles,
        weight, weight * minutes, weight * np.sqrt(minutes), believed, believed * minutes,
        believed * miles,
    )  # fmt: skip


class _Waiting:
    """Sums of batches, added up now and then: never much larger than their sum."""

    def __init__(self) -> None:
        self._some: list[KeyedSums] = []
        self._kept = 0

    def take(self, sums: KeyedSums) -> None:
        self._some.append(sums)
        if sum(len(each.keys) for each in self._some) > 2 * self._kept + PENDING:
            self._some = [KeyedSums.joined(self._some)]
            self._kept = len(self._some[0].keys)

    def groups(self, size: int, columns: int) -> tuple[KeyedSums, ...]:
        """Return the sums by group.

        Args:
            size: keys are group * size + what is below it.
        """
        none = KeyedSums(np.empty(0, "int32"), np.empty((0, columns)))
        keys, values = vars(KeyedSums.joined(self._some or [none])).values()
        dtype = "float64" if len(keys) <= EXACT_SUMS else "float32"
        number = BLOCKS * day_groups.FOLDS
        ends = np.searchsorted(keys, size * np.arange(number + 1))
        return tuple(
            KeyedSums(keys[a:b] - group * size, values[a:b].astype(dtype))
            for group, (a, b) in enumerate(pairwise(ends.tolist()))
        )
