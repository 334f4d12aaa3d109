"""Draws rows of a window that stand for all of them: trees learn little from more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np

from taxi_duration.data.engine import map_parts
from taxi_duration.data.window import RIDE_COLUMNS, MemoryPart, Part, TripBatch, Window
from taxi_duration.domain.rides import Rides
from taxi_duration.model.linear import pair_code
from taxi_duration.model.lookups import HOURS, N_PAIRS

# From the rarest pairs of zones to the most frequent ones, with equally many trips in each group;
# chosen: the trips of rare pairs, a tenth, are then not left to chance.
PAIR_GROUPS = 10


def sample_rows(window: Window, most: int, seed: int) -> Window:
    """Return at most so many trips of a window, in memory and in order; a smaller one as it is.

    Each month, hour of the day and group of pairs (by how often they are ridden) keeps its share
    of the trips, and they are taken evenly from its beginning to its end. Every trip is as likely
    to be drawn, so that none needs another weight.

    Args:
        most: 1 or above.
        seed: another one draws other trips.
    """
    if len(window) <= most:
        return window
    groups = _pair_groups(reduce(np.add, map_parts(_pair_trips, window.parts)))
    counted = list(map_parts(partial(_stratum_trips, groups=groups), window.parts))
    shares = _shares(counted, most, np.random.default_rng(seed))
    drawn = [Drawn(*one, groups) for one in zip(window.parts, shares, strict=True)]
    return Window(tuple(map_parts(_in_memory, [part for part in drawn if len(part.share)])))


@dataclass(frozen=True)
class Share:
    """Which trips of a part's strata are drawn, columns of shape (k,), sorted by `stratum`.

    Args:
        stratum: as `_strata` numbers them.
        before: how many trips of it the parts before hold.
        size, take: trips of it in the window, and how many of them are drawn.
        start: 0 to size - 1, where the steps begin.
    """

    stratum: np.ndarray
    before: np.ndarray
    size: np.ndarray
    take: np.ndarray
    start: np.ndarray

    def __len__(self) -> int:
        return len(self.stratum)

    def draws(self, place: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """True for trips that are drawn, shape (n,): `take` of `size`, in steps of equal length.

        Args:
            place: of their strata in `stratum`.
            rank: how many trips of the same stratum come before them in the part.
        """
        size, take = self.size[place], self.take[place]
        drawn: np.ndarray = ((self.before[place] + rank) * take + self.start[place]) % size < take
        return drawn


@dataclass(frozen=True)
class Drawn:
    """The drawn trips of a part."""

    part: Part
    share: Share
    groups: np.ndarray
    key = ""

    def __len__(self) -> int:
        return sum(len(batch.minutes) for batch in self.batches())

    def batches(self) -> Iterator[TripBatch]:
        """As `Part`."""
        seen = np.zeros(len(self.share), dtype="int64")
        for rides, minutes in self.part.batches():
            place = np.searchsorted(self.share.stratum, _strata(rides, self.groups))
            trips = np.bincount(place, minlength=len(seen))
            order = np.argsort(place, kind="stable")
            rank = np.empty(len(rides), dtype="int64")
            rank[order] = np.arange(len(rides)) - np.repeat(np.cumsum(trips) - trips, trips)
            drawn = self.share.draws(place, seen[place] + rank)
            seen += trips
            yield TripBatch(rides.take(drawn), minutes[drawn])


def _in_memory(part: Part) -> MemoryPart:
    batches = list(part.batches())
    columns = (np.concatenate([getattr(b.rides, name) for b in batches]) for name in RIDE_COLUMNS)
    return MemoryPart(Rides(*columns), np.concatenate([batch.minutes for batch in batches]))


def _pair_trips(part: Part) -> np.ndarray:
    """Return the part's trips by pair of zones."""
    trips = np.zeros(N_PAIRS, dtype="int64")
    for rides, _ in part.batches():
        trips += np.bincount(pair_code(rides.PULocationID, rides.DOLocationID), minlength=N_PAIRS)
    return trips


def _pair_groups(trips: np.ndarray) -> np.ndarray:
    """Return the group of each pair, 0 (rarest) to PAIR_GROUPS - 1, from the window's trips."""
    order = np.argsort(trips, kind="stable")
    groups = np.empty(len(trips), dtype="int64")
    until = np.cumsum(trips[order])
    groups[order] = (until - 1).clip(0) * PAIR_GROUPS // until[-1]
    return groups


def _strata(rides: Rides, groups: np.ndarray) -> np.ndarray:
    """Return the stratum of each ride: of its month, its hour and its pair's group."""
    hour = rides.pickup_at.astype("datetime64[h]").astype("int64") % HOURS
    month = rides.pickup_at.astype("datetime64[M]").astype("int64")
    group = groups[pair_code(rides.PULocationID, rides.DOLocationID)]
    strata: np.ndarray = (month * HOURS + hour) * PAIR_GROUPS + group
    return strata


def _stratum_trips(part: Part, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part's strata, sorted, and its trips in each."""
    found = [np.unique(_strata(b.rides, groups), return_counts=True) for b in part.batches()]
    if not found:
        return np.empty(0, dtype="int64"), np.empty(0, dtype="int64")
    strata, trips = (np.concatenate(column) for column in zip(*found, strict=True))
    unique, place = np.unique(strata, return_inverse=True)
    return unique, np.bincount(place, trips, len(unique)).astype("int64")


def _shares(
    counted: Sequence[tuple[np.ndarray, np.ndarray]], most: int, random: np.random.Generator
) -> Iterator[Share]:
    """Yield what is drawn of each part, `most` trips together.

    Args:
        counted: of each part, as `_stratum_trips` counts it.
    """
    strata, place = np.unique(np.concatenate([s for s, _ in counted]), return_inverse=True)
    trips = np.concatenate([trips for _, trips in counted])
    size = np.bincount(place, trips, len(strata)).astype("int64")
    # Whole numbers whose sums are never off by one: what a stratum lacks, a later one makes up.
    # They stay below 2**63 for 4 million of 2,000 billion trips.
    until = (np.cumsum(size) * most + random.integers(size.sum())) // size.sum()
    take = np.diff(until, prepend=0)
    start = random.integers(size)
    seen = np.zeros(len(strata), dtype="int64")
    for stratum, trips in counted:
        where = np.searchsorted(strata, stratum)
        yield Share(stratum, seen[where], size[where], take[where], start[where])
        seen[where] += trips
