"""Reads a month of trips, whatever its service, era or format, and accounts for every row."""

from __future__ import annotations

import gzip
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from taxi_duration.data.columns import resolve_columns
from taxi_duration.data.health.look import SUSPECT, MonthLook, look_at_columns
from taxi_duration.domain.limits import (
    FIRST_ZONE,
    LAST_ZONE,
    LONGEST_MINUTES,
    MAX_TRIP_MILES,
    SHORTEST_MINUTES,
    UNKNOWN_ZONE,
    ZONE_RANGE,
)
from taxi_duration.domain.months import Month
from taxi_duration.errors import BadMonthError, TripFileError

DROP_REASONS = ("bad_time", "too_short", "too_long")
FLAG_REASONS = ("outside_month", "unknown_zone", "bad_distance", "duplicate")
REASONS = (*DROP_REASONS, *FLAG_REASONS, SUSPECT)
# A short or long trip is a real trip that the course rule leaves out, not bad data.
# A proven fault has its own remedy: such rows are not learned from, and no month stops for them.
BAD_REASONS = ("bad_time", *FLAG_REASONS)
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
    share of rows read with a bad time or any flag.
    """

    rows_read: int
    rows_kept: int
    reasons: dict[str, int]
    bad_share: float

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
    """Return the trips of one TLC file that the course rule keeps.

    Returns:
        Shape (n, 6): `pickup_at`, `dropoff_at` (datetime64[us], New York local),
        `PULocationID`, `DOLocationID` (int16), `trip_distance` (float32 miles, NaN when
        unknown), `duration` (float32 minutes).
    Raises:
        TripFileError: the file is not a readable TLC month.
    """
    return read_month(path, month, rules).trips


def read_month(
    path: str | Path, month: Month | None = None, rules: TripRules = COURSE_RULES
) -> MonthTrips:
    """Read one TLC file and split its rows into trips and quarantine.

    Args:
        path: Parquet or CSV (also gzipped), recognised by content.
        month: the month the file claims to be, for `outside_month`; None skips that check.
        rules: bounds in minutes and miles.
    Raises:
        TripFileError: names the file, the column, what was found and what was expected.
    """
    path = Path(path)
    raw = _read_columns(path)
    frame = _to_frame(raw, path.name)
    look = look_at_columns(raw, frame, month)
    reasons = find_reasons(frame, month, rules) | {SUSPECT: look.suspects}
    dropped = np.zeros(len(frame), dtype=bool)
    for reason in DROP_REASONS:
        dropped |= reasons[reason]
    return MonthTrips(
        trips=frame[~dropped].reset_index(drop=True) if dropped.any() else frame,
        quarantine=_quarantine(frame, reasons, dropped),
        accounting=_account(reasons, dropped),
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
        "outside_month": _outside(trips["pickup_at"].to_numpy(), month),
        "unknown_zone": _unknown_zone(trips),
        "bad_distance": _bad_distance(trips["trip_distance"].to_numpy(), rules),
        "duplicate": _duplicated(trips),
    }


def check_bad_share(accounting: Accounting, file: str, max_share: float) -> None:
    """Stop when too much of a month is bad.

    Raises:
        BadMonthError: names the file, the share, the limit and the counts.
    """
    if accounting.bad_share > max_share:
        counts = ", ".join(f"{r} {accounting.reasons[r]:,}" for r in BAD_REASONS)
        raise BadMonthError(
            f"{file}: {accounting.bad_share:.1%} of {accounting.rows_read:,} rows are bad, at most "
            f"{max_share:.0%} are accepted ({counts}); set MAX_BAD_SHARE to accept more"
        )


# --- reading -----------------------------------------------------------------------------


def _read_columns(path: Path) -> pa.Table:
    """Read only the needed columns, renamed to ours, types as found in the file."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise TripFileError(f"{path.name}: cannot be read: {error.strerror}") from error
    if magic == b"PAR1":
        return _read_parquet(path)
    if magic[:2] == b"\x1f\x8b":
        return _read_csv(path, gzip.open)
    if b"\0" in magic or not magic.strip():
        what = "is empty" if not magic else "is neither Parquet nor CSV"
        raise TripFileError(f"{path.name}: {what} (first bytes {magic!r})")
    return _read_csv(path, open)


def _read_parquet(path: Path) -> pa.Table:
    try:
        file = pq.ParquetFile(path)
        columns = resolve_columns(file.schema_arrow.names, path.name)
        table = file.read(list(columns.values()), use_threads=True)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise TripFileError(
            f"{path.name}: is not a whole Parquet file (truncated or damaged): {_first_line(error)}"
        ) from error
    return table.select(list(columns.values())).rename_columns(list(columns))


def _read_csv(path: Path, opener) -> pa.Table:
    try:
        with opener(path, "rb") as file:
            header = file.readline().decode("utf-8-sig")
        names = header.rstrip("\r\n").split(",")
        columns = resolve_columns([name.strip('" ') for name in names], path.name)
        with opener(path, "rb") as file:
            table = _parse_csv(file, [name.strip('" ') for name in names], columns)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise TripFileError(
            f"{path.name}: is not a whole CSV file (truncated or damaged): {_first_line(error)}"
        ) from error
    return table.select(list(columns.values())).rename_columns(list(columns))


def _parse_csv(file: BinaryIO, names: list[str], columns: dict[str, str]) -> pa.Table:
    # Ids and times are read as text and cast below, so that a bad value is reported with
    # its column and value like a bad Parquet type is.
    return pa.csv.read_csv(
        file,
        read_options=pa.csv.ReadOptions(skip_rows=1, column_names=names),
        convert_options=pa.csv.ConvertOptions(
            include_columns=list(columns.values()),
            column_types={theirs: pa.string() for theirs in columns.values()},
            strings_can_be_null=True,
        ),
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# --- types -------------------------------------------------------------------------------


def _to_frame(raw: pa.Table, file: str) -> pd.DataFrame:
    pickup = _times(raw, "pickup_at", file)
    dropoff = _times(raw, "dropoff_at", file)
    elapsed_us = (dropoff - pickup).astype("int64")
    missing = np.isnat(pickup) | np.isnat(dropoff)
    minutes = np.where(missing, np.nan, elapsed_us / 60e6).astype("float32")
    return pd.DataFrame(
        {
            "pickup_at": pickup,
            "dropoff_at": dropoff,
            "PULocationID": _zones(raw, "PULocationID", file),
            "DOLocationID": _zones(raw, "DOLocationID", file),
            "trip_distance": _miles(raw, file),
            "duration": minutes,
        },
        copy=False,
    )


def _times(raw: pa.Table, column: str, file: str) -> np.ndarray:
    """Column as datetime64[us]; NaT where the file has a null."""
    values = raw[column]
    if not (pa.types.is_timestamp(values.type) or _is_text(values.type)):
        raise _wrong_type(file, column, values, "timestamps")
    if _is_text(values.type):
        values = _cast(values, pa.timestamp("us"), file, column, "timestamps")
    return _combine(values.cast(pa.timestamp("us"), safe=False)).to_numpy(zero_copy_only=False)


def _zones(raw: pa.Table, column: str, file: str) -> np.ndarray:
    """Column as int16; a null or an id that is no zone becomes UNKNOWN_ZONE."""
    values = raw[column]
    kind = values.type
    if pa.types.is_null(kind):
        return np.full(raw.num_rows, UNKNOWN_ZONE, dtype="int16")
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or _is_text(kind)):
        raise _wrong_type(file, column, values, f"whole numbers {ZONE_RANGE}")
    if not pa.types.is_integer(kind):
        if _is_text(kind):  # "74" and "74.0" are both seen
            values = _cast(values, pa.float64(), file, column, f"whole numbers {ZONE_RANGE}")
        values = _cast(values, pa.int64(), file, column, f"whole numbers {ZONE_RANGE}")
    ids = _combine(values)
    if ids.null_count:
        ids = ids.fill_null(UNKNOWN_ZONE)
    ids = ids.to_numpy(zero_copy_only=False)
    known = (ids >= FIRST_ZONE) & (ids <= LAST_ZONE)
    return (
        ids.astype("int16") if known.all() else np.where(known, ids, UNKNOWN_ZONE).astype("int16")
    )


def _miles(raw: pa.Table, file: str) -> np.ndarray:
    """Distance as float32 miles; NaN where the file has none."""
    if "trip_distance" not in raw.column_names or pa.types.is_null(raw["trip_distance"].type):
        return np.full(raw.num_rows, np.nan, dtype="float32")
    values = raw["trip_distance"]
    kind = values.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not (numeric or _is_text(kind)):
        raise _wrong_type(file, "trip_distance", values, "numbers (miles)")
    values = _cast(values, pa.float64(), file, "trip_distance", "numbers (miles)")
    return _combine(values).to_numpy(zero_copy_only=False).astype("float32")


def _cast(values: pa.ChunkedArray, to: pa.DataType, file: str, column: str, expected: str):
    try:
        if _is_text(values.type):
            values = pc.utf8_trim_whitespace(values)
        return values.cast(to)
    except pa.ArrowException as error:
        raise TripFileError(
            f"{file}: column {column} must hold {expected}, found {values.type} with "
            f"{_first_line(error)}"
        ) from error


def _wrong_type(file: str, column: str, values: pa.ChunkedArray, expected: str) -> TripFileError:
    example = next((v.as_py() for v in values if v.is_valid), None)
    return TripFileError(
        f"{file}: column {column} must hold {expected}, found {values.type} (such as {example!r})"
    )


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _combine(values: pa.ChunkedArray) -> pa.Array:
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()


# --- reasons -----------------------------------------------------------------------------


def _outside(pickup: np.ndarray, month: Month | None) -> np.ndarray:
    if month is None:
        return np.zeros(len(pickup), dtype=bool)
    start, end = np.datetime64(str(month)), np.datetime64(str(month.shift(1)))
    return ~((pickup >= start) & (pickup < end))


def _unknown_zone(trips: pd.DataFrame) -> np.ndarray:
    return (trips["PULocationID"].to_numpy() >= UNKNOWN_ZONE) | (
        trips["DOLocationID"].to_numpy() >= UNKNOWN_ZONE
    )


def _bad_distance(miles: np.ndarray, rules: TripRules) -> np.ndarray:
    """NaN is unknown, not bad."""
    return (miles <= 0) | (miles > rules.max_miles)


def _duplicated(trips: pd.DataFrame) -> np.ndarray:
    """True for the second and later copies of a row.

    Rows are first compared by a 64-bit hash, and only the few that share one in full:
    comparing five columns of three million rows directly takes over a second.
    """
    key = pd.Series(_row_hash(trips))
    shared = key.duplicated(keep=False).to_numpy()
    duplicated = np.zeros(len(trips), dtype=bool)
    if shared.any():
        duplicated[shared] = trips[shared].duplicated().to_numpy()
    return duplicated


def _row_hash(trips: pd.DataFrame) -> np.ndarray:
    """Mix the five columns into uint64; equal rows have equal hashes."""
    zones = trips["PULocationID"].to_numpy().astype("uint64") << np.uint64(16)
    zones |= trips["DOLocationID"].to_numpy().astype("uint64")
    key = trips["pickup_at"].to_numpy().view("uint64") * np.uint64(0x9E3779B97F4A7C15)
    key ^= trips["dropoff_at"].to_numpy().view("uint64")
    key *= np.uint64(0xBF58476D1CE4E5B9)  # odd constants of splitmix64
    key ^= (zones << np.uint64(32)) | trips["trip_distance"].to_numpy().view("uint32")
    return key


def _quarantine(
    frame: pd.DataFrame, reasons: dict[str, np.ndarray], dropped: np.ndarray
) -> pd.DataFrame:
    """The dropped rows with their `reason`, in file order."""
    out = frame[dropped].reset_index(drop=True)
    codes = np.select([reasons[r][dropped] for r in DROP_REASONS], range(len(DROP_REASONS)))
    return out.assign(reason=pd.Categorical.from_codes(codes, categories=list(DROP_REASONS)))


def _account(reasons: dict[str, np.ndarray], dropped: np.ndarray) -> Accounting:
    bad = np.zeros(len(dropped), dtype=bool)
    for reason in BAD_REASONS:
        bad |= reasons[reason]
    return Accounting(
        rows_read=len(dropped),
        rows_kept=int((~dropped).sum()),
        reasons={reason: int(reasons[reason].sum()) for reason in REASONS},
        bad_share=float(bad.mean()) if len(bad) else 0.0,
    )
