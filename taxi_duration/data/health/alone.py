"""What a month's columns say by themselves, without any other month."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

import numpy as np

from taxi_duration.data.health.clocks import HOUR_MINUTES, is_rare
from taxi_duration.data.health.finding import ALL, MonthFinding, judged
from taxi_duration.data.health.profile import FEW, WEEK_HOURS, Group, Profile
from taxi_duration.domain.geometry import KM_OF_MILE
from taxi_duration.domain.months import Month
from taxi_duration.domain.rides import NEW_YORK

# Miles driven over miles between the zones' centres, of rides of over a mile: the city's streets
# decide it, so that 50 months of two services differ by 5 % (docs/data_health.md).
USUAL_DETOUR = 1.28
UNITS = {
    "km": KM_OF_MILE, "metres": 1000 * KM_OF_MILE, "yards": 1760.0, "feet": 5280.0,
    "tenths of a mile": 10.0, "hundredths of a mile": 100.0,
    "km read as miles twice": KM_OF_MILE**2,
}  # fmt: skip
NIGHT_HOURS, NIGHT_START = 4, 2  # the city's quietest hours begin at 2, give or take
AWAKE = 2.0  # so many times the rides of the quietest hours are no night
# Trips expected in a gap, at least: chance never leaves out so many.
GAP_TRIPS = 30.0
DAY = 24
NONE: Mapping[str, int] = {}


def find_alone(
    profile: Profile,
    service: str,
    month: Month,
    reasons: Mapping[str, int] = NONE,
    known: frozenset[str] = frozenset(),
) -> Iterator[MonthFinding]:
    """Yield what one month says by itself.

    Args:
        profile: of the month.
        service: whose month it is by its file's name.
        reasons: counts of its accounting.
        known: vendors whose clock fault is proven and reported already.
    """
    yield from _owner(profile, service)
    rows = profile.groups[ALL].rows
    for code, reason, what in (
        ("outside_month", "outside_month", "pickups are dated outside the month; a few are"),
        ("duplicates", "duplicate", "rows are copies of another; a few in a thousand are"),
    ):
        share = reasons.get(reason, 0) / rows if rows else 0.0
        text = f"{share:.1%} of {what} expected to be"
        yield from judged(code, share, "all columns", ALL, reasons.get(reason, 0), share, text)
    yield from _gaps(profile, month)
    for name, group in profile.groups.items():
        if group.seen >= FEW:
            yield from _clocks(name, group, name in known or (name == ALL and bool(known)))
            yield from _distances(name, group)
            yield from _night(name, group)


def _owner(profile: Profile, service: str) -> Iterator[MonthFinding]:
    """Yield the finding that the columns are named as those of another service are."""
    if profile.whose not in (None, service):
        rows = profile.groups[ALL].rows
        text = (
            f"the columns are named as {profile.whose} alone names them, the file as {service}'s: "
            "it may be another service's month"
        )
        yield from judged("other_service", 1.0, "pickup_at", ALL, rows, 1.0, text)


def _share(
    code: str, share: float, column: str, name: str, group: Group, text: str
) -> Iterator[MonthFinding]:
    yield from judged(code, share, column, name, round(share * group.rows), share, text)


def _clocks(name: str, group: Group, known: bool) -> Iterator[MonthFinding]:
    shares = group.shares
    if not known:
        for column, counts in group.minutes.items():
            minute, most, total = int(np.argmax(counts)), max(counts), sum(counts)
            if total and is_rare(most, total, 1 / HOUR_MINUTES, HOUR_MINUTES):
                share = most / total
                text = f"minute {minute} of the hour in {share:.1%} of rows; 1 in 60 is expected"
                yield from _share("minute_pile_up", share, column, name, group, text)
        top, following = shares["top_duration"], shares["next_duration"]
        text = f"one exact duration in {top:.1%} of rows, the next in {following:.1%}; no such gap"
        yield from _share(
            "repeated_duration", top - 2 * following, "duration", name, group, f"{text} is expected"
        )
        negative = shares["negative"]
        text = f"{negative:.1%} of drop-offs are before their pickups; hardly any is expected"
        yield from _share("swapped_clocks", negative, "dropoff_at", name, group, text)
        left_out = 1 - shares["accepted"]
        text = f"{left_out:.1%} of rides are outside 1 to 60 minutes; 2 to 8 % are usual"
        yield from _share("left_out", left_out, "duration", name, group, text)
    seconds = shares["top_second"]
    text = f"one second holds {seconds:.1%} of the times that are not whole minutes; 1 in 59"
    if (1 - shares["full_minute"]) * group.seen >= FEW:
        yield from _share("second_pile_up", seconds, "pickup_at", name, group, f"{text} is usual")


def _distances(name: str, group: Group) -> Iterator[MonthFinding]:
    for code, share, text in (
        ("zero_distance", group.shares.get("zero_distance", 0.0), "have a distance of 0"),
        ("far_distance", group.shares.get("far", 0.0), "are over 100 miles long"),
    ):
        what = f"{share:.1%} of rides {text}"
        yield from _share(code, share, "trip_distance", name, group, what)
    detour = group.medians.get("detour")
    if detour:
        factor = detour / USUAL_DETOUR
        unit = min(UNITS, key=lambda unit: abs(np.log(factor / UNITS[unit])))
        guess = f", as in {unit}" if abs(np.log(factor / UNITS[unit])) < np.log(1.1) else ""
        text = (
            f"distances are {detour:.3g} times the straight line between their zones{guess}; "
            f"{USUAL_DETOUR} is expected"
        )
        value = float(abs(np.log(factor)))
        yield from judged("distance_unit", value, "trip_distance", name, group.rows, 1.0, text)
    for code, fit, what in (
        ("zones_distance", group.medians.get("fit"), "distances"),
        ("zones_duration", group.medians.get("pace_fit"), "durations"),
    ):
        if fit is not None:
            text = (
                f"{what} hardly grow with the way between the zones (correlation {fit:.2f}): the "
                "zones' numbers may be others'"
            )
            yield from judged(
                code, 1 - fit, "PULocationID, DOLocationID", name, group.rows, 1.0, text
            )


def _night(name: str, group: Group) -> Iterator[MonthFinding]:
    """The city sleeps from 2 to 6: times in another zone sleep at other hours."""
    hours = np.array(group.week).reshape(7, DAY).sum(axis=0)
    if hours.sum() < 5 * FEW:
        return
    quiet = [int(np.roll(hours, -start)[:NIGHT_HOURS].sum()) for start in range(DAY)]
    start = int(np.argmin(quiet))
    off = min((start - NIGHT_START) % DAY, (NIGHT_START - start) % DAY)
    if quiet[NIGHT_START] < AWAKE * quiet[start]:
        off = 0  # there is hardly a night, as in the first weeks of the lockdown
    text = (
        f"the quietest {NIGHT_HOURS} hours begin at {start}:00, expected {NIGHT_START}:00: the "
        "times may be of another zone"
    )
    yield from judged("night_shifted", float(off), "pickup_at", name, group.rows, 1.0, text)


def _gaps(profile: Profile, month: Month) -> Iterator[MonthFinding]:
    """Hours without any pickup in which many were expected, by the same hours of other weeks."""
    hours = np.array(profile.hours)
    if not hours.sum():
        return
    start = datetime(month.year, month.month, 1)
    usual_hours = usual_trips(hours)
    for first, after in empty_runs(hours):
        usual = float(usual_hours[first:after].sum()) * _level(hours, usual_hours, first, after)
        if after - first == 1 and _is_skipped(start + timedelta(hours=first)):
            continue  # in March one hour is not there
        if usual >= GAP_TRIPS:
            begin, end = (start + timedelta(hours=hour) for hour in (first, after))
            share = (after - first) / len(hours)
            text = (
                f"no pickup from {begin:%m-%d %H:00} to {end:%m-%d %H:00}; {usual:,.0f} are "
                "expected there among the rows looked at"
            )
            yield from judged(
                "hours_missing", (after - first) / DAY, "pickup_at", ALL, 0, share, text
            )


def empty_runs(hours: np.ndarray) -> list[tuple[int, int]]:
    """Return first hour, and the one after the last, of each run of hours without a trip."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hours == 0, [0]]).astype("int8")))
    return [(int(first), int(after)) for first, after in edges.reshape(-1, 2)]


def usual_trips(hours: np.ndarray) -> np.ndarray:
    """The same hour of the week in the month's second busiest week, shape as given.

    Of half a month, too, it is what the other half had.
    """
    weeks = np.zeros(-(-len(hours) // WEEK_HOURS) * WEEK_HOURS)
    weeks[: len(hours)] = hours
    usual = np.sort(weeks.reshape(-1, WEEK_HOURS), axis=0)[-2]
    return np.resize(usual, len(hours))


def _level(hours: np.ndarray, usual: np.ndarray, first: int, after: int) -> float:
    """How busy the day before and the day after were beside the usual, at most 1."""
    near = np.r_[max(first - DAY, 0) : first, after : min(after + DAY, len(hours))]
    return min(float(hours[near].sum() / max(usual[near].sum(), 1.0)), 1.0) if len(near) else 1.0


def _is_skipped(hour: datetime) -> bool:
    """True for the hour that clocks jump over in March."""
    before = hour.replace(tzinfo=NEW_YORK)
    return hour.month == 3 and before.utcoffset() != (before + timedelta(hours=1)).utcoffset()
