"""Draws rows of a window that stand for all of them: trees learn little from more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np

from taxi_duration.data.engine import map_parts
from taxi_duration.data.window import Part, SomeTrips, Window, in_memory
from taxi_duration.domain.pickup_calendar import hours_of_day
from taxi_duration.domain.rides import Rides
from taxi_duration.model.linear import pair_code
from taxi_duration.model.lookups import HOURS, N_PAIRS
from taxi_duration.training.day_groups import STRAY_SHARE

# From the rarest pairs of zones to the most frequent ones, with equally many trips in each group;
# chosen: the trips of rare pairs, a tenth, are then not left to chance.
PAIR_GROUPS = 10
WHOLE = 2**32  # parts of a trip in which shares are counted: exact for 4 billion trips
MONTH_DAYS = 365.25 / 12

Counted = tuple[np.ndarray, np.ndarray]  # strata, sorted, and the trips in each, shape (k,)


@dataclass(frozen=True)
class Sample:
    """Some trips of a window, and how much each stands for.

    Args:
        window: the trips, in their order.
        months: of the window, datetime64[M], rising, shape (k,).
        factor: what a trip of each month weighs, 1 on average over the sample, shape (k,).
    """

    window: Window
    months: np.ndarray
    factor: np.ndarray

    def factor_of(self, pickup_at: np.ndarray) -> np.ndarray:
        """Return what multiplies a trip's own weight, shape (n,)."""
        month = pickup_at.astype("datetime64[M]")
        factor: np.ndarray = self.factor[np.searchsorted(self.months[1:], month, side="right")]
        return factor


def sample_rows(window: Window, most: int, seed: int) -> Window:
    """Return at most so many trips of a window, in memory and in order; a smaller one as it is.

    Each month, hour of the day and group of pairs (by how often they are ridden) keeps its share
    of the trips, and they are taken evenly from its beginning to its end. Every trip is as likely
    to be drawn, so that none needs another weight.

    Args:
        most: 1 or above.
        seed: another one draws other trips.
    """
    return draw_sample(window, most, seed).window


def draw_sample(
    window: Window,
    most: int,
    seed: int,
    half_life: float = np.inf,
    pair_trips: np.ndarray | None = None,
) -> Sample:
    """Return the same with fewer trips of months that count less.

    Their trips are less likely to be drawn, and stand for more: twice as many rows of which half
    count as good as nothing teach no more than half as many.

    Args:
        half_life: days before the newest month at which a trip counts half.
        pair_trips: of the window, shape (266, 266), where they are known: months are then read
            twice, not four times.
    """
    trips = len(window) if pair_trips is None else int(pair_trips.sum())
    if trips <= most:
        return Sample(window, np.zeros(1, dtype="datetime64[M]"), np.ones(1))
    if pair_trips is None:
        pair_trips = reduce(np.add, map_parts(_pair_trips, window.parts))
    groups = _pair_groups(pair_trips.ravel())
    counted = list(map_parts(partial(_stratum_trips, groups=groups), window.parts))
    strata, size = _added(counted)
    most = min(most, int(size.sum()))  # stray days may be counted with another block
    months, place = np.unique(_month_of(strata), return_inverse=True)
    shares = _month_shares(months, np.bincount(place, size), most, half_life)
    random = np.random.default_rng(seed)
    take = _take(size, shares[place], most, random)
    start = random.integers(size)
    by_part = _by_part(counted, strata, size, take, start)
    drawn = [Drawn(*one, groups) for one in zip(window.parts, by_part, strict=True)]
    parts = map_parts(in_memory, [part for part in drawn if len(part.share)])
    factor = most / size.sum() / np.maximum(shares, 1 / WHOLE)
    return Sample(Window(tuple(parts)), months.astype("datetime64[M]"), factor)


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
class Drawn(SomeTrips):
    """The drawn trips of a part."""

    part: Part
    share: Share
    groups: np.ndarray

    def picker(self) -> Callable[[Rides], np.ndarray]:
        """As `SomeTrips`."""
        seen = np.zeros(len(self.share), dtype="int64")

        def picks(rides: Rides) -> np.ndarray:
            nonlocal seen
            place = np.searchsorted(self.share.stratum, _strata(rides, self.groups))
            trips = np.bincount(place, minlength=len(seen))
            order = np.argsort(place, kind="stable")
            rank = np.empty(len(rides), dtype="int64")
            rank[order] = np.arange(len(rides)) - np.repeat(np.cumsum(trips) - trips, trips)
            drawn = self.share.draws(place, seen[place] + rank)
            seen = seen + trips
            return drawn

        return picks


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
    hour = hours_of_day(rides.pickup_at)
    month = rides.pickup_at.astype("datetime64[M]").astype("int64")
    group = groups[pair_code(rides.PULocationID, rides.DOLocationID)]
    strata: np.ndarray = (month * HOURS + hour) * PAIR_GROUPS + group
    return strata


def _stratum_trips(part: Part, groups: np.ndarray) -> Counted:
    """Return the part's strata and its trips in each."""
    none = np.empty(0, dtype="int64")
    found = [np.unique(_strata(b.rides, groups), return_counts=True) for b in part.batches()]
    return _added([(none, none), *found])


def _month_of(strata: np.ndarray) -> np.ndarray:
    """Return the month of each stratum, months since 1970."""
    month: np.ndarray = strata // (HOURS * PAIR_GROUPS)
    return month


def _added(counted: Sequence[Counted]) -> Counted:
    """Return all strata of some parts, sorted, and the trips in each."""
    strata, place = np.unique(np.concatenate([each for each, _ in counted]), return_inverse=True)
    trips = np.bincount(place, np.concatenate([trips for _, trips in counted]), len(strata))
    return strata, trips.astype("int64")


def _month_shares(months: np.ndarray, trips: np.ndarray, most: int, half_life: float) -> np.ndarray:
    """Return the share of each month's trips that is drawn, `most` trips together.

    In proportion to how much a month counts; a month that has too few trips is drawn whole.
    """
    # A few trips are dated later than the newest month.
    newest = months[np.searchsorted(trips.cumsum(), (1 - STRAY_SHARE) * trips.sum())]
    counts = 0.5 ** ((newest - months).clip(0) * MONTH_DAYS / half_life)
    shares, left = np.zeros(len(months)), np.ones(len(months), dtype=bool)
    while True:
        rest = most - trips[~left].sum()
        shares[left] = counts[left] * rest / (trips * counts)[left].sum()
        if not (full := left & (shares >= 1)).any():
            return shares
        shares[full], left = 1.0, left & ~full


def _take(
    size: np.ndarray, share: np.ndarray, most: int, random: np.random.Generator
) -> np.ndarray:
    """Return how many trips of each stratum are drawn, `most` together.

    Whole numbers, whose sums over strata in a row are never off by one: what one stratum lacks,
    a later one makes up.
    """
    parts = size.astype("uint64") * (share * WHOLE).astype("uint64")
    spare = most * WHOLE - int(parts.sum())  # lost by rounding down
    until = (parts.cumsum() + np.uint64(random.integers(max(spare, 0), WHOLE))) // np.uint64(WHOLE)
    return np.diff(until, prepend=np.uint64(0)).astype("int64")


def _by_part(
    counted: Sequence[Counted], strata: np.ndarray, *columns: np.ndarray
) -> Iterator[Share]:
    """Yield what is drawn of each part.

    Args:
        columns: size, take and start of the strata.
    """
    seen = np.zeros(len(strata), dtype="int64")
    for stratum, trips in counted:
        where = np.searchsorted(strata, stratum)
        yield Share(stratum, seen[where], *(column[where] for column in columns))
        seen[where] += trips
