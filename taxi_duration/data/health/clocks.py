"""Clocks that stand still: minutes and durations that chance does not repeat.

A fault is proven from the rows alone when so many rows of a vendor share so few minutes of the
hour that nine in ten of those rows must be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from taxi_duration.domain.limits import LONGEST_MINUTES, SHORTEST_MINUTES
from taxi_duration.domain.months import Month

MINUTE_US, HOUR_MINUTES = 60_000_000, 60
# Numbers of minutes that a faulty clock may show: one, or those that it rounds to.
SETS = (1, 2, 4, 6, 12)
PURITY = 0.9  # at least this share of the rows left out is wrong
CLEARLY_MORE = 0.1  # of a vendor's rows
CHANCE = 1e-6  # that a healthy vendor is called faulty; some thousand are looked at in all
# A drop-off has one certain minute after one certain pickup minute at most this often.
PAIR_SHARE = 1e-3
# Rides are ordered for these minutes: pickups alone that pile up there are no broken clock.
ORDERED = frozenset((0, 15, 30, 45))
FEW_REPEATS = 20


@dataclass(frozen=True)
class Clocks:
    """Both clocks of some rows, int64 microseconds, shape (n,); none is missing."""

    pickup: np.ndarray
    dropoff: np.ndarray

    @classmethod
    def of(cls, pickup: np.ndarray, dropoff: np.ndarray) -> Clocks:
        """Take the rows of datetime64[us] that have both."""
        known = ~(np.isnat(pickup) | np.isnat(dropoff))
        return cls(pickup[known].view("int64"), dropoff[known].view("int64"))

    def minutes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the minutes of the hour of both, 0-59."""
        return minute_of(self.pickup), minute_of(self.dropoff)


@dataclass(frozen=True)
class Fault:
    """A proven fault of a vendor's clocks.

    Args:
        pickup, dropoff: minutes of the hour at which that clock is not believed; None for any.
        seconds: the one duration that is not believed; None for any.
        text: found and expected.
    """

    pickup: frozenset[int] | None
    dropoff: frozenset[int] | None
    seconds: int | None
    text: str

    def rows(self, pickup: np.ndarray, dropoff: np.ndarray) -> np.ndarray:
        """Return which rows carry it, bool of shape (n,), of datetime64[us] clocks."""
        found = ~(np.isnat(pickup) | np.isnat(dropoff))
        for clock, minutes in ((pickup, self.pickup), (dropoff, self.dropoff)):
            if minutes is not None:
                found &= np.isin(minute_of(clock.view("int64")), sorted(minutes))
        if self.seconds is not None:
            found &= (dropoff - pickup) // np.timedelta64(1, "s") == self.seconds
        return found

    @property
    def column(self) -> str:
        """The column that shows it."""
        if self.seconds is not None:
            return "duration"
        clocks = (("pickup_at", self.pickup), ("dropoff_at", self.dropoff))
        return ", ".join(name for name, minutes in clocks if minutes is not None)


def minute_of(clock: np.ndarray) -> np.ndarray:
    """Return the minute of the hour of int64 microseconds."""
    return clock // MINUTE_US % HOUR_MINUTES


def find_fault(clocks: Clocks, month: Month | None) -> Fault | None:
    """Return what is proven to be wrong with a vendor's clocks, None when nothing is.

    Args:
        clocks: of one vendor's rows, or of a sample of them.
        month: a clock that writes the month for the minute is a known fault.
    """
    if not len(clocks.pickup):
        return None
    found = _find(clocks, month)
    # A copy of a row proves nothing, and to look for copies costs more than all the rest.
    return _find(_distinct(clocks), month) if found else None


def _find(clocks: Clocks, month: Month | None) -> Fault | None:
    return _month_for_minute(clocks, month) or _few_minutes(clocks) or _one_duration(clocks)


def _month_for_minute(clocks: Clocks, month: Month | None) -> Fault | None:
    """`%m` written for `%M`: so common a mistake that three rows prove it."""
    if month is None:
        return None
    pickup, dropoff = clocks.minutes()
    equal = np.bincount(pickup[pickup == dropoff], minlength=HOUR_MINUTES)
    both = int(equal[month.month])
    equal[month.month] = 0  # rides that take no time show one minute twice, whichever it is
    if not _proven(both, len(pickup), max(PAIR_SHARE, equal.max() / len(pickup)), 1):
        return None
    minutes = frozenset((month.month,))
    return Fault(minutes, minutes, None, (
        f"both clocks show minute {month.month}, the month's number, in {both:,} of "
        f"{len(pickup):,} rows; one row in {HOUR_MINUTES**2:,} is expected to"
    ))  # fmt: skip


def _few_minutes(clocks: Clocks) -> Fault | None:
    pickup, dropoff = (pile(minute) for minute in clocks.minutes())
    if dropoff is None and (pickup is None or pickup <= ORDERED):
        return None
    found = [name for name, m in (("pickup", pickup), ("drop-off", dropoff)) if m is not None]
    minutes = sorted((pickup or frozenset()) | (dropoff or frozenset()))
    return Fault(pickup, dropoff, None, (
        f"the {' and '.join(found)} clock shows minutes {_some(minutes)} of the hour alone or "
        "nearly so; every minute is expected in one row of 60"
    ))  # fmt: skip


def pile(minutes: np.ndarray) -> frozenset[int] | None:
    """Return the fewest minutes of the hour that are proven to be a pile, None when none are."""
    counts = np.bincount(minutes, minlength=HOUR_MINUTES)
    order = np.argsort(-counts, kind="stable")
    excess = {}
    for size in SETS:
        inside, usual = int(counts[order[:size]].sum()), size / HOUR_MINUTES
        if _proven(inside, len(minutes), usual, comb(HOUR_MINUTES, size)):
            excess[size] = (inside / len(minutes) - usual) / (1 - usual)
    if not excess:
        return None
    # A larger set always holds a few more by chance.
    enough = max(excess.values()) - CLEARLY_MORE
    size = next(size for size in SETS if excess.get(size, -1.0) >= enough)
    return frozenset(int(minute) for minute in order[:size] if counts[minute])


def _one_duration(clocks: Clocks) -> Fault | None:
    """One exact duration ten times as often as the next: nobody measured it."""
    seconds = accepted_seconds(clocks)
    if len(seconds) < FEW_REPEATS:
        return None
    (value, first), (_, second) = top_two(seconds)
    if first < FEW_REPEATS or second > (1 - PURITY) * first:
        return None
    return Fault(None, None, value, (
        f"{first:,} of {len(seconds):,} rides take exactly {value / 60:.4g} minutes; the next "
        f"duration is that of {second:,}"
    ))  # fmt: skip


def accepted_seconds(clocks: Clocks) -> np.ndarray:
    """Return the whole seconds of the rides that the course rule scores."""
    seconds = (clocks.dropoff - clocks.pickup) // 1_000_000
    return seconds[(seconds >= SHORTEST_MINUTES * 60) & (seconds <= LONGEST_MINUTES * 60)]


def top_two(seconds: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the two commonest values of 0 to a day, each with its count."""
    counts = np.bincount(seconds, minlength=2)
    second, first = np.argpartition(counts, -2)[-2:]
    return (int(first), int(counts[first])), (int(second), int(counts[second]))


def _distinct(clocks: Clocks) -> Clocks:
    """One row of those that were written twice: a copy proves nothing."""
    _, first = np.unique(clocks.pickup ^ (clocks.dropoff << 1), return_index=True)
    return Clocks(clocks.pickup[first], clocks.dropoff[first])


def _proven(found: int, rows: int, usual: float, ways: int) -> bool:
    """True when chance does not do it, and when nine in ten of the rows found are wrong.

    Args:
        found: of `rows`; `usual` is the share that is expected.
        ways: in which it could have been found.
    """
    share = found / rows if rows else 0.0
    if share <= usual:
        return False
    good = usual * (1 - share) / (1 - usual)  # healthy rows among those found
    return good <= (1 - PURITY) * share and is_rare(found, rows, usual, ways)


def is_rare(found: int, rows: int, usual: float, ways: int) -> bool:
    """True when chance gives such a share in fewer than one of 1 / CHANCE healthy vendors.

    By Chernoff's bound on a binomial tail, times the number of ways to find one.
    """
    share = min(max(found / rows, usual), 1.0)
    kl = share * np.log(share / usual)
    if share < 1:
        kl += (1 - share) * np.log((1 - share) / (1 - usual))
    return bool(np.log(float(ways)) - rows * kl < np.log(CHANCE))


def _some(minutes: list[int]) -> str:
    return ", ".join(map(str, minutes))
