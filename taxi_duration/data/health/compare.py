"""A month's columns beside those of the months before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from taxi_duration.data.health.finding import ALL, MonthFinding, judged
from taxi_duration.data.health.profile import FEW, WEEK_HOURS, Group, Profile
from taxi_duration.domain.limits import UNKNOWN_ZONE

CHANCE = 3.0  # standard errors that chance adds once in about 1,000 looks
# A new name needs so many rows: a slip of the pen is no new vendor.
NEW_ROWS = 20
# A zone is new when so many of the rows looked at name it and no earlier month's did.
NEW_ZONE_ROWS = 15
WEEK_ROWS = 1500  # fewer show no profile of 168 hours
SAME_WEEK = 0.95  # correlation of one city's weeks, chance taken off
CLEAR_GAIN = 0.2  # in correlation: a shift of 4 hours or more
MEDIAN_SPREAD = 1.0  # of the logarithm of a ride's minutes or miles, about
WHAT = {
    "accepted": ("duration", "of rides take 1 to 60 minutes"),
    "unknown_zone": ("PULocationID, DOLocationID", "of rides have an unknown zone"),
    "no_distance": ("trip_distance", "of rides have no distance"),
    "zero_distance": ("trip_distance", "of distances are 0"),
    "full_minute": ("pickup_at", "of pickups are at a whole minute"),
}
UNITS = {"minutes": "minutes", "miles": "miles"}


def compare(profile: Profile, earlier: Sequence[Profile]) -> Iterator[MonthFinding]:
    """Yield what differs from all of the earlier months.

    Args:
        profile: of a month; earlier: of months before it, at least one.
    """
    yield from _new_names(profile, earlier)
    yield from _volume(profile, earlier)
    for name, group in profile.groups.items():
        before = [e.groups[name] for e in earlier if name in e.groups]
        before = [known for known in before if known.seen >= FEW]
        if before and group.seen >= FEW:
            yield from _shares(name, group, before)
            yield from _medians(name, group, before)
            yield from _week(name, group, before)
            yield from _zones(name, group, before)


def beyond(value: float, known: Sequence[float]) -> float:
    """How far a value is outside the range of the known ones; 0 inside, negative never."""
    return max(value - max(known), min(known) - value, 0.0)


def _range(known: Sequence[float], form: str) -> str:
    low, high = format(min(known), form), format(max(known), form)
    return low if low == high else f"{low} to {high}"


# --- names -----------------------------------------------------------------------------------


def _new_names(profile: Profile, earlier: Sequence[Profile]) -> Iterator[MonthFinding]:
    known = [e.vendors for e in earlier if e.vendors]
    if known and profile.vendors:
        yield from _vendors(profile.vendors, known)
    for column, counts in profile.types.items():
        before = [e.types[column] for e in earlier if e.types.get(column)]
        yield from _new_types(column, counts, before)
    yield from _new_zones(profile, earlier)


def _vendors(now: dict[str, int], earlier: Sequence[dict[str, int]]) -> Iterator[MonthFinding]:
    total = sum(now.values())
    for name in sorted({*now, *(name for e in earlier for name in e)}):
        rows = now.get(name, 0)
        share, shares = rows / total, [e.get(name, 0) / sum(e.values()) for e in earlier]
        usual = _range(shares, ".1%")
        if not rows:
            text = f"has no row; {usual} of the earlier months' rows are its"
            yield from judged("gone_vendor", min(shares), "vendor", name, 0, 0.0, text)
        elif max(shares) > 0:
            far = beyond(share, shares)
            text = f"{share:.1%} of rows are its, expected {usual}"
            yield from judged("vendor_share", far, "vendor", name, rows, share, text)
        elif rows >= NEW_ROWS:
            text = f"no earlier month has it; it has {share:.2%} of rows"
            yield from judged("new_vendor", share, "vendor", name, rows, share, text)


def _new_types(
    column: str, counts: dict[str, int], earlier: Sequence[dict[str, int]]
) -> Iterator[MonthFinding]:
    total = sum(counts.values())
    if not earlier or not total:
        return
    for name, rows in counts.items():
        shares = [e.get(name, 0) / sum(e.values()) for e in earlier]
        share = rows / total
        if max(shares) == 0 and rows >= NEW_ROWS:
            text = f"no earlier month has {column} {name}; {share:.2%} of rows have it"
            yield from judged("new_type", share, column, ALL, rows, share, text)
            continue
        far = beyond(share, shares) - _noise(max(shares), total, total)
        text = f"{column} {name} in {share:.1%} of rows, expected {_range(shares, '.1%')}"
        yield from judged("type_share", far, column, ALL, rows, share, text)


def _new_zones(profile: Profile, earlier: Sequence[Profile]) -> Iterator[MonthFinding]:
    for column, counts in profile.groups[ALL].zones.items():
        before = np.sum([e.groups[ALL].zones[column] for e in earlier], axis=0)
        now = np.array(counts)
        new = np.flatnonzero((now >= NEW_ZONE_ROWS) & (before == 0))[:UNKNOWN_ZONE]
        if len(new) and before.sum() >= now.sum():
            rows, share = int(now[new].sum()), float(now[new].sum() / now.sum())
            zones = ", ".join(map(str, new[:8]))
            text = f"no earlier month has zone {zones}; {share:.1%} of rows have it"
            yield from judged("new_zone", share, column, ALL, rows, share, text)


# --- numbers ---------------------------------------------------------------------------------


def _volume(profile: Profile, earlier: Sequence[Profile]) -> Iterator[MonthFinding]:
    rows, known = profile.groups[ALL].rows, [e.groups[ALL].rows for e in earlier]
    if not rows or not min(known):
        return
    value = beyond(float(np.log(rows)), [float(np.log(n)) for n in known])
    text = f"{rows:,} rows, expected {_range(known, ',')}"
    yield from judged("volume", value, "all columns", ALL, rows, 1.0, text)


def _shares(name: str, group: Group, before: Sequence[Group]) -> Iterator[MonthFinding]:
    for measure, (column, what) in WHAT.items():
        known = [b.shares[measure] for b in before if measure in b.shares]
        if not known or measure not in group.shares:
            continue
        share = group.shares[measure]
        far = beyond(share, known) - _noise(share, group.seen, min(b.seen for b in before))
        text = f"{share:.1%} {what}, expected {_range(known, '.1%')}"
        rows = round(share * group.rows)
        yield from judged(f"{measure}_share", far, column, name, rows, share, text)


def _noise(share: float, n: int, m: int) -> float:
    p = min(max(share, 1 / n), 1 - 1 / n)
    return CHANCE * float(np.sqrt(p * (1 - p) * (1 / n + 1 / m)))


def _medians(name: str, group: Group, before: Sequence[Group]) -> Iterator[MonthFinding]:
    for measure, unit in UNITS.items():
        known = [b.medians[measure] for b in before if measure in b.medians]
        if not known or measure not in group.medians:
            continue
        now = group.medians[measure]
        seen = min(group.seen, *(b.seen for b in before))
        noise = CHANCE * MEDIAN_SPREAD * float(np.sqrt(2 / seen))
        far = beyond(float(np.log(now)), [float(np.log(value)) for value in known]) - noise
        text = f"the middle ride has {now:.3g} {unit}, expected {_range(known, '.3g')}"
        column = {"minutes": "duration", "miles": "trip_distance"}[measure]
        yield from judged(f"median_{measure}", far, column, name, group.rows, 1.0, text)


# --- profiles --------------------------------------------------------------------------------


def _week(name: str, group: Group, before: Sequence[Group]) -> Iterator[MonthFinding]:
    """The week's profile fits the earlier ones better when it is turned by some hours."""
    now, known = np.array(group.week), np.sum([b.week for b in before], axis=0)
    if min(now.sum(), known.sum()) < WEEK_ROWS:
        return
    fits = turned_fits(now, known)
    hours = int(np.argmax(fits))
    ahead = hours if hours <= WEEK_HOURS // 2 else hours - WEEK_HOURS
    off = f"{abs(ahead)} hour{'s' * (abs(ahead) != 1)} {'late' if ahead > 0 else 'early'}"
    text = (
        f"the week's profile is that of the earlier months {off} (correlation "
        f"{fits[hours]:.2f}, as it is {fits[0]:.2f}): the times may be of another zone or day"
    )
    value = float(fits[hours] - fits[0])
    if value < CLEAR_GAIN and fits[hours] < SAME_WEEK:
        value = 0.0  # another week, not the same one at another time
    yield from judged("clock_shifted", value, "pickup_at", name, group.rows, 1.0, text)


def turned_fits(now: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Correlation of a profile turned back by 0, 1, … hours with a known one, shape (168,).

    Of square roots, in which chance has one size in every hour.
    """
    a, b = _standard(now), _standard(known)
    turned = np.lib.stride_tricks.sliding_window_view(np.concatenate([a, a[:-1]]), len(a))
    fits: np.ndarray = turned @ b / len(a)
    return fits


def _standard(counts: np.ndarray) -> np.ndarray:
    """Roots with mean 0 and variance 1, less the quarter that chance adds to a root's."""
    roots = np.sqrt(counts)
    spread = float(np.sqrt(max(roots.var() - 0.25, 0.1)))
    return (roots - roots.mean()) / spread


def _zones(name: str, group: Group, before: Sequence[Group]) -> Iterator[MonthFinding]:
    now = {column: _normed(np.array(counts)) for column, counts in group.zones.items()}
    known = {c: _normed(np.sum([b.zones[c] for b in before], axis=0)) for c in now}
    (pickup, dropoff), (pickups, dropoffs) = now.values(), known.values()
    straight = _distance(pickup, pickups) + _distance(dropoff, dropoffs)
    crossed = _distance(pickup, dropoffs) + _distance(dropoff, pickups)
    text = (
        f"pickup zones are spread as drop-off zones were and the other way round (distance "
        f"{crossed / 2:.2f}, as they are {straight / 2:.2f})"
    )
    columns = "PULocationID, DOLocationID"
    yield from judged(
        "swapped_zones", (straight - crossed) / 2, columns, name, group.rows, 1.0, text
    )
    for column in now:
        moved = _distance(now[column], known[column])
        chance = np.sqrt(np.count_nonzero(known[column]) / group.seen / np.pi)
        text = f"{moved:.0%} of rides are in other zones than in the earlier months"
        yield from judged("zones_moved", moved - chance, column, name, group.rows, moved, text)


def _normed(counts: np.ndarray) -> np.ndarray:
    return counts / max(counts.sum(), 1)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Total variation: the share of rides that would have to move."""
    return float(np.abs(one - other).sum() / 2)
