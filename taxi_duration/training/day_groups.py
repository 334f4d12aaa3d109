"""Divides trips by day: into folds for out-of-fold tables, and into blocks for calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from taxi_duration.data.window import Part, SomeTrips, Window
from taxi_duration.domain.rides import Rides

BLOCKS = 3  # of days in a row: trips of one block share its level of traffic
FOLDS = 5  # by day: trips of one day share its weather and must not encode each other
STRAY_SHARE = 0.01  # of the trips, at either end: a few are dated years off their month


@dataclass(frozen=True)
class DayCounts:
    """How many trips began on each day: datetime64[D], rising, and int64, shape (d,) each."""

    days: np.ndarray
    trips: np.ndarray

    @classmethod
    def of(cls, pickup_at: np.ndarray) -> DayCounts:
        """Count pickups, datetime64 of shape (n,)."""
        day = pickup_at.astype("datetime64[D]")
        # Trips of a batch mostly follow each other: few runs of a day are to be sorted.
        starts = np.flatnonzero(np.append(True, day[1:] != day[:-1])) if len(day) else np.arange(0)
        return cls(day[starts], np.diff(np.append(starts, len(day)))).added()

    def added(self) -> DayCounts:
        """Return each day once."""
        days, place = np.unique(self.days, return_inverse=True)
        return DayCounts(days, np.bincount(place, self.trips, len(days)).astype("int64"))

    def __add__(self, other: DayCounts) -> DayCounts:
        days, trips = np.append(self.days, other.days), np.append(self.trips, other.trips)
        return DayCounts(days, trips).added()

    def __len__(self) -> int:
        """Return the number of trips."""
        return int(self.trips.sum())

    def day_of(self, place: int) -> np.datetime64:
        """Return the day of a trip by its place in time order."""
        found: np.datetime64 = self.days[np.searchsorted(self.trips.cumsum(), place, side="right")]
        return found

    @property
    def first(self) -> np.datetime64:
        """The day on which the trips begin, strays left aside."""
        return self.day_of(int(STRAY_SHARE * len(self)))

    @property
    def last(self) -> np.datetime64:
        """The day on which the trips end, strays left aside."""
        return self.day_of(int((1 - STRAY_SHARE) * (len(self) - 1)))


BY_ROW = -1  # of a day whose trips are divided one by one


@dataclass(frozen=True)
class DayGroups:
    """To which block and fold the trips of each day belong, int of shape (d,) each.

    Where a part has fewer days than blocks or folds, its trips are divided one by one instead,
    by what they are: wherever a trip is met again, it belongs to the same group.
    """

    days: np.ndarray
    block: np.ndarray
    fold: np.ndarray

    @classmethod
    def of(cls, counts: DayCounts) -> DayGroups:
        """Return the groups of one part: blocks are equally many days in a row."""
        number, place = len(counts.days), np.arange(len(counts.days))
        by_row = np.full(number, BY_ROW)
        block = place * BLOCKS // number if number >= BLOCKS else by_row
        fold = counts.days.astype("int64") % FOLDS if number >= FOLDS else by_row
        return cls(counts.days, block, fold)

    def places(self, pickup_at: np.ndarray) -> np.ndarray:
        """Return the place of each trip's day, int of shape (n,); of a day near it if unknown."""
        place = np.searchsorted(self.days, pickup_at.astype("datetime64[D]"))
        return np.minimum(place, len(self.days) - 1)

    def block_and_fold(self, rides: Rides, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the block and the fold of each trip, int of shape (n,) each.

        Args:
            place: as `places` gives it.
        """
        block, fold = self.block[place], self.fold[place]
        by_row = (block == BY_ROW) | (fold == BY_ROW)
        if by_row.any():
            number = _number(rides)
            block = np.where(block == BY_ROW, number // FOLDS % BLOCKS, block)
            fold = np.where(fold == BY_ROW, number % FOLDS, fold)
        return block, fold

    def mapped(self, block_of: np.ndarray) -> DayGroups:
        """Return the same with other blocks, int of shape (BLOCKS,)."""
        return replace(self, block=np.where(self.block == BY_ROW, BY_ROW, block_of[self.block]))


def _number(rides: Rides) -> np.ndarray:
    """Return a number that depends on all of a trip, int64 of shape (n,)."""
    miles = np.nan_to_num(rides.trip_distance.astype("float32"), nan=-1.0)
    bits = miles.view("uint32").astype("uint64")
    number = rides.pickup_at.astype("datetime64[s]").astype("int64").astype("uint64")
    for column in (rides.PULocationID.astype("uint64"), rides.DOLocationID.astype("uint64"), bits):
        number = (number ^ column) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing
        number ^= number >> np.uint64(32)
    return (number >> np.uint64(8)).astype("int64")


def other_blocks(window: Window, groups: DayGroups, left_out: int) -> Window:
    """Return the trips of a window that are not in one of its blocks."""
    return Window(tuple(_OtherBlocks(part, groups, left_out) for part in window.parts))


@dataclass(frozen=True)
class _OtherBlocks(SomeTrips):
    part: Part
    groups: DayGroups
    left_out: int

    def picker(self) -> Callable[[Rides], np.ndarray]:
        """As `SomeTrips`."""

        def picks(rides: Rides) -> np.ndarray:
            block, _ = self.groups.block_and_fold(rides, self.groups.places(rides.pickup_at))
            return block != self.left_out

        return picks
