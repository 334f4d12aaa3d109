"""Reads a month of trips, whatever its service, era or format, and accounts for every row."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from taxi_duration.data.cells import Column, plain, read_miles, read_zones
from taxi_duration.data.columns import MARKS, join_columns, service_of
from taxi_duration.data.csv_files import read_csv
from taxi_duration.data.health.look import SUSPECT, MonthLook, look_at_columns
from taxi_duration.data.packing import Part, is_parquet, month_parts
from taxi_duration.data.parquet_files import read_parquet
from taxi_duration.data.times import (
    outside_either_way,
    outside_month,
    read_both_times,
    zone_note,
)
from taxi_duration.domain.limits import (
    LONGEST_MINUTES,
    MAX_TRIP_MILES,
    SHORTEST_MINUTES,
)
from taxi_duration.domain.months import Month
from taxi_duration.domain.zones import is_unknown
from taxi_duration.errors import BadMonthError, TripFileError

DROP_REASONS = ("bad_time", "too_short", "too_long")
FLAG_REASONS = ("outside_month", "unknown_zone", "bad_distance", "duplicate")
REASONS = (*DROP_REASONS, *FLAG_REASONS, SUSPECT)
# A short or long trip is a real trip that the course rule leaves out, not bad data.
# A proven fault has its own remedy: such rows are not learned from, and no month stops for them.
BAD_REASONS = ("bad_time", *FLAG_REASONS)
# What is held against a month's limit of bad rows, where that is not all of these. Bases of FHV
# need not report zones and report no distance, so that rides of the same minute look like copies
# of one another: only their times tell a bad file.
HELD_AGAINST = {"fhv": ("bad_time", "outside_month")}
COLUMNS = ("pickup_at", "dropoff_at", "PULocationID", "DOLocationID", "trip_distance", "duration")


@dataclass(frozen=True)
class TripRules:
    """Which rows are scored (the course rule) and which distances are believed.

    Minutes and miles; all bounds are inclusive.
    """

    min_minutes: float = SHORTEST_MINUTES
    max_minutes: float = LONGEST_MINUTES
    max_miles: float = MAX_TRIP_MILES


COURSE_RULES = TripRules()


@dataclass(frozen=True)
class Accounting:
    """Where a month's rows went: `rows_read` = `rows_kept` + the drop reasons' counts.

    Flag reasons count over all rows read (a row may carry several); `bad_share` is the
    share of rows read with a bad time or any flag, those apart that are by nature of the
    service. `notes` say how the file was read, where that is not plain.
    """

    rows_read: int
    rows_kept: int
    reasons: dict[str, int]
    bad_share: float
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class MonthTrips:
    """A month after reading: the trips to use, the rows left out, and the count of both.

    `suspects` says which of the trips carry a proven fault, bool of shape (trips,): they are
    scored, and not learned from. `look` is what the columns say.
    """

    trips: pd.DataFrame
    quarantine: pd.DataFrame
    accounting: Accounting
    suspects: np.ndarray
    look: MonthLook


def read_dataframe(
    path: str | Path, month: Month | None = None, rules: TripRules = COURSE_RULES
) -> pd.DataFrame:
    """Return the trips of one TLC month that the course rule keeps.

    Returns:
        Shape (n, 6): `pickup_at`, `dropoff_at` (datetime64[us], New York local),
        `PULocationID`, `DOLocationID` (int16), `trip_distance` (float32 miles, NaN when
        unknown), `duration` (float32 minutes).
    Raises:
        TripFileError: the file is not a readable TLC month.
    """
    return read_month(path, month, rules).trips


def read_month(
    path: str | Path,
    month: Month | None = None,
    rules: TripRules = COURSE_RULES,
    service: str | None = None,
    utc_is_local: bool = False,
) -> MonthTrips:
    """Read one TLC month and split its rows into trips and quarantine.

    Args:
        path: Parquet or CSV, packed or not, recognised by content; or a folder of such files.
        month: the month the file claims to be, for `outside_month`; None skips that check.
        rules: bounds in minutes and miles.
        service: whose reasons are held against the limit of bad rows; None for all.
        utc_is_local: times marked UTC are New York's all the same.
    Raises:
        TripFileError: names the file, the column, what was found and what was expected.
    """
    read = [_read_part(part, month, utc_is_local) for part in month_parts(Path(path))]
    frames = [part.frame for part in read]
    frame = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    whose = next((part.whose for part in read if part.whose not in (None, service)), service)
    look = look_at_columns(_marks(read), frame, month, whose)
    reasons = find_reasons(frame, month, rules) | {SUSPECT: look.suspects}
    dropped = np.zeros(len(frame), dtype=bool)
    for reason in DROP_REASONS:
        dropped |= reasons[reason]
    held = HELD_AGAINST.get(service or "", BAD_REASONS)
    return MonthTrips(
        trips=_rows(frame, ~dropped) if dropped.any() else frame,
        quarantine=_quarantine(frame, reasons, dropped),
        accounting=_account(reasons, dropped, held, _notes(read, held)),
        suspects=look.suspects[~dropped],
        look=look,
    )


def find_reasons(
    trips: pd.DataFrame, month: Month | None = None, rules: TripRules = COURSE_RULES
) -> dict[str, np.ndarray]:
    """Return one boolean array of shape (n,) per reason code that a row alone has.

    The drop reasons exclude each other; a row may carry several flags, dropped or not.
    """
    minutes = trips["duration"].to_numpy()
    bad_time = ~(minutes >= 0)  # NaN when a clock is missing
    too_short = (minutes >= 0) & (minutes < rules.min_minutes)
    too_long = minutes > rules.max_minutes
    return {
        "bad_time": bad_time,
        "too_short": too_short,
        "too_long": too_long,
        "outside_month": outside_month(trips["pickup_at"].to_numpy(), month),
        "unknown_zone": is_unknown(
            trips["PULocationID"].to_numpy(), trips["DOLocationID"].to_numpy()
        ),
        "bad_distance": _bad_distance(trips["trip_distance"].to_numpy(), rules),
        "duplicate": _duplicated(trips),
    }


def check_bad_share(accounting: Accounting, file: str, max_share: float) -> None:
    """Stop when too much of a month is bad, or when no ride is left of it.

    Raises:
        BadMonthError: names the file, the share, the limit and the counts.
    """
    if not accounting.rows_read:
        raise BadMonthError(f"{file} has columns but no rows; expected is a month of trips")
    if accounting.bad_share > max_share:
        counts = ", ".join(f"{r} {accounting.reasons[r]:,}" for r in BAD_REASONS)
        raise BadMonthError(
            f"{file}: {accounting.bad_share:.1%} of {accounting.rows_read:,} rows are bad, at most "
            f"{max_share:.0%} are accepted ({counts}); set MAX_BAD_SHARE to accept more"
        )
    if not accounting.rows_kept:
        counts = ", ".join(f"{reason} {accounting.reasons[reason]:,}" for reason in DROP_REASONS)
        raise BadMonthError(
            f"{file}: none of {accounting.rows_read:,} rows is a ride of 1 to 60 minutes "
            f"({counts}); expected are pickup and drop-off times with their minutes"
        )


# --- reading -----------------------------------------------------------------------------


class _ReadPart(NamedTuple):
    """One file of rows in our columns and types.

    Args:
        marks: the columns of MARKS that it has.
        notes: how it was read, where that is not plain.
        outside: as `outside_either_way`.
        whose: as `service_of`.
    """

    frame: pd.DataFrame
    marks: pa.Table
    notes: list[str]
    outside: np.ndarray
    whose: str | None


def _read_part(part: Part, month: Month | None, utc_is_local: bool) -> _ReadPart:
    read = read_parquet if is_parquet(part) else read_csv
    raw, names, notes = join_columns(read(part), part.name)
    columns = {ours: Column(part.name, theirs) for ours, theirs in names.items()}
    pickup, dropoff = read_both_times(
        (raw["pickup_at"], columns["pickup_at"]),
        (raw["dropoff_at"], columns["dropoff_at"]),
        month,
        utc_is_local,
    )
    zones = {
        name: read_zones(raw[name], columns[name]) for name in ("PULocationID", "DOLocationID")
    }
    if "trip_distance" in columns:
        miles = read_miles(raw["trip_distance"], columns["trip_distance"])
    else:
        miles = np.full(len(raw), np.nan, dtype="float32")
    frame = pd.DataFrame(
        {
            "pickup_at": pickup.local,
            "dropoff_at": dropoff.local,
            **zones,
            "trip_distance": miles,
            "duration": _minutes(pickup.local, dropoff.local),
        },
        copy=False,
    )
    said = [zone_note(pickup, names["pickup_at"], utc_is_local)]
    if dropoff.zone != pickup.zone:
        said.append(zone_note(dropoff, names["dropoff_at"], utc_is_local))
    marks, unread = _read_marks(raw, columns)
    notes = [*notes, *filter(None, said), *unread]
    outside = outside_either_way(pickup, month)
    return _ReadPart(frame, marks, notes, outside, service_of(names))


def _read_marks(raw: pa.Table, columns: dict[str, Column]) -> tuple[pa.Table, list[str]]:
    """The columns of MARKS, and what is to be said of those that cannot be read.

    No ride is learned from them: for an odd one no month is refused.
    """
    marks, notes = {}, []
    for name in MARKS:
        if name in columns:
            try:
                marks[name] = plain(raw[name], columns[name])
            except TripFileError as error:
                notes.append(f"{error}: not looked at")
    return pa.table(marks), notes


def _minutes(pickup: np.ndarray, dropoff: np.ndarray) -> np.ndarray:
    """Minutes as float32, shape (n,), divided as float64; NaN where a clock is missing."""
    minutes = np.empty(len(pickup), dtype="float32")
    np.divide((dropoff - pickup).view("int64"), 60e6, out=minutes, casting="same_kind")
    minutes[np.isnat(pickup) | np.isnat(dropoff)] = np.nan
    return minutes


def _marks(read: list[_ReadPart]) -> pa.Table:
    """The marks of all parts; as text where there are several, whose types may differ."""
    if len(read) == 1:
        return read[0].marks
    tables = [part.marks.select([n for n in part.marks.column_names
                                 if not pa.types.is_nested(part.marks[n].type)])
              for part in read]  # fmt: skip
    names = {name for table in tables for name in table.column_names}
    return pa.table({
        name: pa.chunked_array(
            [chunk for part, table in zip(read, tables, strict=True) for chunk in (
                table[name].cast(pa.string()).chunks if name in table.column_names
                else [pa.nulls(len(part.frame), pa.string())])],
            pa.string())
        for name in sorted(names)
    })  # fmt: skip


# --- reasons -----------------------------------------------------------------------------


def _bad_distance(miles: np.ndarray, rules: TripRules) -> np.ndarray:
    """NaN is unknown, not bad."""
    return (miles <= 0) | (miles > rules.max_miles)


def _duplicated(trips: pd.DataFrame) -> np.ndarray:
    """True for the second and later copies of a row.

    Rows are first compared by a 64-bit hash, and only the few that share one in full:
    comparing five columns of three million rows directly takes over a second.
    """
    shared = _repeated(_row_hash(trips))
    duplicated = np.zeros(len(trips), dtype=bool)
    duplicated[shared] = trips.iloc[shared].duplicated().to_numpy()
    return duplicated


def _repeated(keys: np.ndarray) -> np.ndarray:
    """Return the places of those uint64 that stand more than once, in order.

    Nearly all are found with a table that fits a processor's cache: a hash table of 20 million
    does not, and takes eight times as long.
    """
    ordered = np.sort(keys)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    del ordered
    table = np.zeros(1 << 20, dtype=bool)
    table[twice >> np.uint64(44)] = True
    some = np.flatnonzero(table[keys >> np.uint64(44)])
    nearest = np.searchsorted(twice, keys[some], side="right") - 1
    return some[twice[nearest] == keys[some]]


def _row_hash(trips: pd.DataFrame) -> np.ndarray:
    """Mix the five columns into uint64; equal rows have equal hashes."""
    zones = trips["PULocationID"].to_numpy().astype("uint64")
    zones <<= np.uint64(16)
    zones |= trips["DOLocationID"].to_numpy().view("uint16")
    zones <<= np.uint64(32)
    zones |= trips["trip_distance"].to_numpy().view("uint32")
    key = trips["pickup_at"].to_numpy().view("uint64") * np.uint64(0x9E3779B97F4A7C15)
    key ^= trips["dropoff_at"].to_numpy().view("uint64")
    key *= np.uint64(0xBF58476D1CE4E5B9)  # odd constants of splitmix64
    key ^= zones
    return key


def _rows(frame: pd.DataFrame, mask: np.ndarray) -> pd.DataFrame:
    """The rows under a mask, numbered anew; pandas itself takes five times as long."""
    return pd.DataFrame({n: frame[n].to_numpy()[mask] for n in frame.columns}, copy=False)


def _quarantine(
    frame: pd.DataFrame, reasons: dict[str, np.ndarray], dropped: np.ndarray
) -> pd.DataFrame:
    """The dropped rows with their `reason`, in file order."""
    out = _rows(frame, dropped)
    codes = np.select([reasons[r][dropped] for r in DROP_REASONS], range(len(DROP_REASONS)))
    return out.assign(reason=pd.Categorical.from_codes(codes, categories=list(DROP_REASONS)))


def _account(
    reasons: dict[str, np.ndarray], dropped: np.ndarray, held: tuple[str, ...], notes: list[str]
) -> Accounting:
    bad = np.zeros(len(dropped), dtype=bool)
    for reason in held:
        bad |= reasons[reason]
    return Accounting(
        rows_read=len(dropped),
        rows_kept=int((~dropped).sum()),
        reasons={reason: int(reasons[reason].sum()) for reason in REASONS},
        bad_share=float(bad.mean()) if len(bad) else 0.0,
        notes=notes,
    )


def _notes(read: list[_ReadPart], held: tuple[str, ...]) -> list[str]:
    """What is to be said of a month: of its files once, with their number, and of its limit."""
    count = Counter(note for part in read for note in part.notes)
    said = list(count)
    if len(read) > 1:
        said = [f"{len(read)} files read as one month"]
        said += [f"{note} ({n} of {len(read)} files)" for note, n in count.items()]
    as_utc, as_local = np.sum([part.outside for part in read], axis=0)
    if as_utc != as_local:
        looks = "wrong" if as_local < as_utc else "right"
        said.append(
            f"the mark UTC looks {looks}: {as_utc:,} pickups are outside the month as UTC, "
            f"{as_local:,} as New York time"
        )
    if held != BAD_REASONS:
        spared = ", ".join(reason for reason in BAD_REASONS if reason not in held)
        said.append(f"{spared}: not held against the limit of bad rows, by nature of the service")
    return said
