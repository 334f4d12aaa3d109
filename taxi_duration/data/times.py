"""Times of a month's file, whatever their type, form and zone, as New York's wall clock.

TLC writes what the wall clock showed. Whoever adds a zone later has to guess which of the two
hours after 1 a.m. in November was meant; so times with a zone are turned back into the wall
clock, and a trip's minutes are counted on it as of times without one.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from taxi_duration.data.cells import Column, combine, first_line, is_number, is_text, plain
from taxi_duration.domain.months import Month
from taxi_duration.domain.rides import NEW_YORK
from taxi_duration.errors import TripFileError

UTC_NAMES = {"utc", "etc/utc", "z", "zulu", "gmt", "etc/gmt", "+00:00", "-00:00", "uct"}
# A zone at the end of a text; numbers of a date end in two digits after `-` too, so a time of
# day must stand before. Java and DuckDB add the zone's name after the offset.
OFFSET = r"(?:[Zz]|[+-]\d{2}(?::?\d{2})?)"
AFTER_TIME = rf":\d{{2}}(?:[.,]\d+)?{OFFSET}$"
UTC_OFFSETS = r"(?:[Zz]|[+-]00:?(?:00)?)$"
NEW_YORKS_OFFSETS = r"-0[45](?::?00)?$"
SPELLED = (  # how others write an offset -> how pyarrow reads it
    (r"\[[A-Za-z_/]+\]$", ""),
    (r"^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,?\s+", ""),
    (r"(:\d{2}),(\d+)", r"\1.\2"),
    (r",?\s+", " "),
    (r"\s*(?:America/New_York|US/Eastern)$", ""),
    (r"\s*(?:UTC|utc|GMT|Z|z)$", "Z"),
    (r"\s*EST$", "-05:00"),
    (r"\s*EDT$", "-04:00"),
    (r"(\d)\s+([+-]\d{2}:?\d{2})$", r"\1\2"),
    (r"\.0+( [AaPp][Mm])?$", r"\1"),  # SQL Server's
)
# NYC's open data writes dates as Americans do. Day first is taken when month first cannot be, as
# in a whole month, which has days after the 12th, or when more pickups are in the month then.
DATE_FORMS = (
    "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%Y-%m-%d", "%d.%m.%Y", "%Y.%m.%d", "%m-%d-%Y", "%d-%m-%Y",
    "%d %b %Y", "%b %d %Y", "%d-%b-%Y", "%Y-%b-%d",  # %b: also a month's whole name
)  # fmt: skip
FIRST_YEAR = datetime(1900, 1, 1)  # 1/3/21 is no day of the year 21
# What lies outside is what programs write for no time: 0001-01-01, 1899-12-30, 9999-12-31. TLC's
# own strays are a few decades off.
BELIEVED = np.datetime64("1900-01-01", "us"), np.datetime64("2200-01-01", "us")
TIME_FORMS = ("%I:%M:%S %p", "%H:%M:%S", "%I:%M %p", "%H:%M")
NUMBERS = "; a number does not say from when, in what and in which zone it counts"
DATES = "; a date has no time of day"
EXPECTED = (
    "timestamps (a timestamp type, or text such as 2021-01-31 23:59:00, "
    "2021-01-31T23:59:00-05:00 or 01/31/2021 11:59:00 PM)"
)


@dataclass(frozen=True)
class Times:
    """A column of times.

    Args:
        local: shape (n,), datetime64[us], New York's wall clock; NaT where the file has none.
        zone: the zone that the file gives them, None without one; `UTC` however it is written.
        as_written: for a zone of UTC, what the clock says without turning it to New York.
        form: of a text that is not written as ISO 8601 has it.
    """

    local: np.ndarray
    zone: str | None = None
    as_written: np.ndarray | None = None
    form: str | None = None


def read_both_times(
    pickups: tuple[pa.ChunkedArray, Column],
    dropoffs: tuple[pa.ChunkedArray, Column],
    month: Month | None,
    utc_is_local: bool = False,
) -> tuple[Times, Times]:
    """Return pickup and drop-off times; where days and months look alike, both read in one way.

    Raises:
        TripFileError: as `read_times`.
    """
    pickup = read_times(*pickups, utc_is_local, month)
    dropoff = read_times(*dropoffs, utc_is_local, form=pickup.form)
    if dropoff.form is not None and dropoff.form == _swapped(pickup.form):
        pickup = read_times(*pickups, utc_is_local, form=dropoff.form)
    return pickup, dropoff


def read_times(
    values: pa.ChunkedArray,
    column: Column,
    utc_is_local: bool = False,
    month: Month | None = None,
    form: str | None = None,
) -> Times:
    """Return a column of times in New York's wall clock.

    Args:
        utc_is_local: the mark UTC is wrong, the clock is New York's.
        month: most of them lie in it: tells days from months where both are possible.
        form: tried first on text.
    Raises:
        TripFileError: names the file, the column, what was found and what is expected.
    """
    values = plain(values, column)
    kind = values.type
    if pa.types.is_null(kind):
        return Times(np.full(len(values), np.datetime64("NaT", "us")))
    used = None
    if is_text(kind):
        values, zone, used = _parse(values, column, month, form)
    elif not pa.types.is_timestamp(kind):
        raise column.wrong_type(values, EXPECTED, _hint(values.type))
    else:
        zone = values.type.tz
    clock = _believed(_numpy(values))
    if zone is None:
        return Times(clock, form=used)
    if zone.lower() not in UTC_NAMES:
        return Times(_to_new_york(clock), zone)
    return Times(clock if utc_is_local else _to_new_york(clock), "UTC", clock)


def zone_note(times: Times, name: str, utc_is_local: bool) -> str | None:
    """Say how a column with a zone was read; None for one without, or of New York."""
    if times.zone in (None, NEW_YORK.key, "US/Eastern"):
        return None
    if times.zone != "UTC":
        return f"{name} carries the zone {times.zone}: turned to New York time"
    if utc_is_local:
        return f"{name} is marked UTC: taken as New York time, as UTC_TIMES=local says"
    return f"{name} is marked UTC: turned to New York time (UTC_TIMES=local if the mark is wrong)"


def outside_either_way(times: Times, month: Month | None) -> np.ndarray:
    """Return how many pickups are outside the month as UTC, and as New York time, shape (2,).

    Tools often mark TLC's times as UTC without turning them. A month holds its own pickups, so
    these counts tell which it was; both are 0 for times that are not marked UTC.
    """
    if times.as_written is None:
        return np.zeros(2, dtype=int)
    both = (_to_new_york(times.as_written), times.as_written)
    return np.array([outside_month(clock, month).sum() for clock in both])


def outside_month(pickup: np.ndarray, month: Month | None) -> np.ndarray:
    """Return True for pickups that are not in the month, shape (n,); never without one."""
    if month is None:
        return np.zeros(len(pickup), dtype=bool)
    start, end = np.datetime64(str(month)), np.datetime64(str(month.shift(1)))
    return ~((pickup >= start) & (pickup < end))


def _numpy(values: pa.ChunkedArray) -> np.ndarray:
    """The clock as datetime64[us], without its zone; below a microsecond it is cut."""
    unit = pa.timestamp("us", values.type.tz)
    return combine(values.cast(unit, safe=False)).to_numpy(zero_copy_only=False)


def _believed(clock: np.ndarray) -> np.ndarray:
    """The clock with NaT for what is no time."""
    none = (clock < BELIEVED[0]) | (clock >= BELIEVED[1])
    return np.where(none, np.datetime64("NaT", "us"), clock) if none.any() else clock


def _to_new_york(utc: np.ndarray) -> np.ndarray:
    # pandas brings the zone rules along; pyarrow wants those of the system, which a container
    # may lack.
    local = pd.DatetimeIndex(utc, tz="UTC").tz_convert(NEW_YORK).tz_localize(None)
    return local.to_numpy().astype("datetime64[us]")


# --- text ------------------------------------------------------------------------------------


class _Parsed(NamedTuple):
    """Text as timestamps; the zone that it carries: UTC, New York, or others' offsets; its form."""

    values: pa.ChunkedArray
    zone: str | None = None
    form: str | None = None


def _parse(
    values: pa.ChunkedArray, column: Column, month: Month | None, form: str | None
) -> _Parsed:
    if values.null_count == len(values):
        return _Parsed(values.cast(pa.timestamp("us")))
    if len(_first(values)) > len("2021-01-31"):
        with contextlib.suppress(pa.ArrowException):  # as TLC writes them: looked at no further
            return _Parsed(values.cast(pa.timestamp("us")))
    for pattern, instead in SPELLED:
        values = pc.replace_substring_regex(values, pattern, instead)
    zoned = pc.match_substring_regex(values, AFTER_TIME)
    share = pc.mean(zoned).as_py()
    if 0 < share < 1:
        found = [values.filter(mask)[0].as_py() for mask in (zoned, pc.invert(zoned))]
        raise column.wrong(f"times with a zone and without ({found[0]!r}, {found[1]!r})", EXPECTED)
    if not share:
        return _parse_forms(values, column, month, form)
    parsed = _parse_iso(values, column, "UTC")
    if _all_match(values, UTC_OFFSETS):
        return _Parsed(parsed, "UTC")
    zone = NEW_YORK.key if _all_match(values, NEW_YORKS_OFFSETS) else "of its offsets"
    return _Parsed(parsed, zone)


def _all_match(values: pa.ChunkedArray, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(values, pattern)).as_py()


def _parse_forms(
    values: pa.ChunkedArray, column: Column, month: Month | None, form: str | None
) -> _Parsed:
    """The first form that reads all of them, or the one with more of them in the month."""
    try:
        return _Parsed(_parse_iso(values, column, None))
    except TripFileError as error:
        reason: Exception = error
    known = [f"{day} {time}" for day in DATE_FORMS for time in TIME_FORMS]
    for first in [form, *known] if form else known:
        try:
            parsed = _strptime(values, first)
        except pa.ArrowException as error:
            if _first(values) not in str(error):  # it reads the first, and not another
                reason = column.wrong(f"{values.type} with {first_line(error)}", EXPECTED)
            continue
        if month and (swapped := _swapped(first)):
            with contextlib.suppress(pa.ArrowException):
                other = _strptime(values, swapped)
                if _outside(other, month) < _outside(parsed, month):
                    return _Parsed(other, form=swapped)
        return _Parsed(parsed, form=first)
    raise reason


def _parse_iso(values: pa.ChunkedArray, column: Column, zone: str | None) -> pa.ChunkedArray:
    first = _first(values)
    if re.fullmatch(r"[\d.]+", first) and first.count(".") < 2:
        raise column.wrong(f"{first!r}{NUMBERS}", EXPECTED)
    if pc.max(pc.utf8_length(values)).as_py() <= len("2021-01-31"):
        raise column.wrong(f"{first!r}{DATES}", EXPECTED)
    reason: Exception | None = None
    for unit in ("us", "ns"):
        try:
            return values.cast(pa.timestamp(unit, zone))
        except pa.ArrowException as error:
            reason = reason or error
    raise column.wrong(f"{values.type} with {first_line(reason)}", EXPECTED) from reason


def _strptime(values: pa.ChunkedArray, form: str) -> pa.ChunkedArray:
    pc.strptime(_first(values), format=form, unit="us")
    parsed = pc.strptime(values, format=form, unit="us")
    if pc.min(parsed).as_py() < FIRST_YEAR:
        raise pa.ArrowInvalid(f"{_first(values)!r} has a year of two digits")
    return parsed


def _swapped(form: str | None) -> str | None:
    """The form with day and month the other way round; None where a text tells which is which."""
    for one, other in (("%m/%d/", "%d/%m/"), ("%m-%d-", "%d-%m-")):
        for this, that in ((one, other), (other, one)):
            if form and form.startswith(this):
                return form.replace(this, that)
    return None


def _outside(values: pa.ChunkedArray, month: Month | None) -> int:
    return int(outside_month(_numpy(values), month).sum())


def _first(values: pa.ChunkedArray) -> str:
    return next(value.as_py() for value in values if value.is_valid)


def _hint(kind: pa.DataType) -> str:
    return DATES if pa.types.is_date(kind) else NUMBERS if is_number(kind) else ""
