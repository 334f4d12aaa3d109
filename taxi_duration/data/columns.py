"""Which columns of a month's file are ours; what they may be called is said in `ride_columns`."""

from __future__ import annotations

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
COORDINATES = {"pickup_longitude", "pickup_latitude", "start_lon", "start_lat"}


def resolve_columns(names: list[str], file: str) -> dict[str, str]:
    """Map our column names to the ones found in a file.

    Args:
        names: column names as written in the file.
        file: the file's name, for errors.
    Returns:
        Ours -> theirs, which stands once among the names; `trip_distance` is absent when the
        file has none.
    Raises:
        TripFileError: a needed column is missing or stands twice; old files with coordinates
            are named so.
    """
    found = find_columns(names, FIELDS.values()).positions
    columns = {}
    for ours, field in FIELDS.items():
        if field in found:
            # Of several that mean the same the best name is taken: FHVHV has two pickup times.
            best = names[found[field][0]]
            if names.count(best) > 1:
                written = [names[at] for at in found[field]]
                raise TripFileError(f"{file}: column {twice(field, written)}")
            columns[ours] = best
        elif ours not in OPTIONAL:
            raise _missing_column(field, names, file)
    return columns | _find_marks(names)


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
