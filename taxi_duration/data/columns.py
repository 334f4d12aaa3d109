"""Which columns of a month's file are ours; what they may be called is said in `ride_columns`."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from taxi_duration.data.cells import Column, plain
from taxi_duration.data.packing import RawColumns
from taxi_duration.domain.ride_columns import SYNONYMS, find_columns, missing, plain_name, twice
from taxi_duration.errors import TripFileError

# Ours -> the field of `ride_columns` that it is read from.
FIELDS = {
    "pickup_at": "pickup_datetime",
    "dropoff_at": "dropoff_datetime",
    "PULocationID": "PULocationID",
    "DOLocationID": "DOLocationID",
    "trip_distance": "trip_distance",
}
# Looked at for a month's health (`health.marks`), never learned from.
MARKS: dict[str, tuple[str, ...]] = {
    "vendor": (
        "vendorid",
        "vendor_id",
        "vendor_name",
        "hvfhs_license_num",
        "dispatching_base_num",
    ),
    "rate_code": ("ratecodeid", "rate_code_id", "rate_code"),
    "trip_type": ("trip_type",),
    "payment_type": ("payment_type",),
}
OPTIONAL = ("trip_distance", *MARKS)  # fhv has few
# Names that one service alone has, without their `_`: of its meters' times, of its bases.
METERS = {"lpep": "green", "tpep": "yellow"}
BASES = {"hvfhslicensenum": "fhvhv", "dispatchingbasenum": "fhv"}
COORDINATES = {"pickup_longitude", "pickup_latitude", "start_lon", "start_lat"}


def resolve_columns(names: list[str], file: str) -> dict[str, str]:
    """Map our column names to the ones found in a file.

    Args:
        names: column names as written in the file.
        file: the file's name, for errors.
    Returns:
        Ours -> theirs, which stands once among the names; `trip_distance` is absent when the
        file has none. Further columns that mean the same have a number behind our name:
        `PULocationID 2`.
    Raises:
        TripFileError: a needed column is missing or stands twice; old files with coordinates
            are named so.
    """
    found = find_columns(names, FIELDS.values()).positions
    columns: dict[str, str] = {}
    for ours, field in FIELDS.items():
        if field in found:
            # Of several that mean the same the best name is taken first.
            best = names[found[field][0]]
            if names.count(best) > 1:
                written = [names[at] for at in found[field]]
                raise TripFileError(f"{file}: column {twice(field, written)}")
            others = (names[at] for at in found[field][1:])
            once = [name for name in others if names.count(name) == 1]
            columns |= {ours: best} | {f"{ours} {n}": name for n, name in enumerate(once, 2)}
        elif ours not in OPTIONAL:
            raise _missing_column(field, names, file)
    return columns | _find_marks(names)


def join_columns(raw: RawColumns, file: str) -> RawColumns:
    """Take a field from the next column that means the same where the one before has no value.

    Months of two eras that were joined and written anew have both names, and each month has its
    values under one of them.

    Args:
        raw: under the names of `resolve_columns`.
        file: the file's name, for errors.
    Raises:
        TripFileError: as `cells.plain`.
    """
    table, names, notes = raw.table, dict(raw.names), list(raw.notes)
    for again in [name for name in names if " " in name]:
        ours, other = again.partition(" ")[0], names.pop(again)
        first, second = (plain(table[n], Column(file, c)) for n, c in
                         ((ours, names[ours]), (again, other)))  # fmt: skip
        table = table.drop_columns(again)
        if pa.types.is_null(second.type):
            continue
        if pa.types.is_null(first.type):
            notes.append(f"{names[ours]} has no value, {other} is taken")
            names[ours], joined = other, second
        else:
            notes.append(f"{names[ours]} and {other} mean the same: the second is taken where the "
                         "first has no value")  # fmt: skip
            joined = pc.coalesce(first, second) if first.type == second.type else first
        table = table.set_column(table.column_names.index(ours), ours, joined)
    return RawColumns(table, names, notes)


def service_of(columns: Mapping[str, str]) -> str | None:
    """Return the service that calls its columns so (ours -> theirs); None when several may."""
    pickup, vendor = (plain_name(columns.get(ours, "")) for ours in ("pickup_at", "vendor"))
    return METERS.get(pickup[:4]) or BASES.get(vendor)


def _find_marks(names: list[str]) -> dict[str, str]:
    """Those marks of a ride that one column alone says."""
    plain = {plain_name(name): name for name in reversed(names)}
    best = ((ours, next((plain[n] for n in map(plain_name, known) if n in plain), None))
            for ours, known in MARKS.items())  # fmt: skip
    return {ours: name for ours, name in best if name is not None and names.count(name) == 1}


def _missing_column(field: str, names: list[str], file: str) -> TripFileError:
    if field.endswith("LocationID") and {*map(plain_name, COORDINATES)} & {*map(plain_name, names)}:
        return TripFileError(
            f"{file}: has pickup and drop-off coordinates (longitude, latitude) instead of taxi "
            f"zones ({' or '.join(SYNONYMS[field])}); only months with zones can be used"
        )
    return TripFileError(f"{file}: column {missing(field, names)}")
