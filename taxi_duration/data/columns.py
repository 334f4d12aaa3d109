"""What TLC called its columns, by service and era, and how they map to ours."""

from __future__ import annotations

from taxi_duration.errors import TripFileError

# Ours -> names seen in TLC files, lower case and stripped, best first.
# Source: TLC data dictionaries; yellow before 2011 and in the 2019 CSV republication differ.
ALIASES: dict[str, tuple[str, ...]] = {
    "pickup_at": (
        "lpep_pickup_datetime",
        "tpep_pickup_datetime",
        "pickup_datetime",
        "trip_pickup_datetime",
    ),
    "dropoff_at": (
        "lpep_dropoff_datetime",
        "tpep_dropoff_datetime",
        "dropoff_datetime",
        "trip_dropoff_datetime",
    ),
    "PULocationID": ("pulocationid", "pickup_location_id"),
    "DOLocationID": ("dolocationid", "dropoff_location_id"),
    "trip_distance": ("trip_distance", "trip_miles"),
    # Looked at for a month's health (`health.marks`), never learned from.
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
OPTIONAL = ("trip_distance", "vendor", "rate_code", "trip_type", "payment_type")  # fhv has few
COORDINATES = {"pickup_longitude", "pickup_latitude", "start_lon", "start_lat"}


def resolve_columns(names: list[str], file: str) -> dict[str, str]:
    """Map our column names to the ones found in a file.

    Args:
        names: column names as written in the file.
        file: the file's name, for errors.
    Returns:
        Ours -> theirs; `trip_distance` is absent when the file has none.
    Raises:
        TripFileError: a needed column is missing; old files with coordinates are named so.
    """
    found = {name.strip().lower(): name for name in reversed(names)}
    columns = {}
    for ours, aliases in ALIASES.items():
        match = next((found[alias] for alias in aliases if alias in found), None)
        if match is not None:
            columns[ours] = match
        elif ours not in OPTIONAL:
            raise _missing_column(ours, aliases, names, found, file)
    return columns


def _missing_column(
    ours: str, aliases: tuple[str, ...], names: list[str], found: dict[str, str], file: str
) -> TripFileError:
    if ours.endswith("LocationID") and COORDINATES & set(found):
        return TripFileError(
            f"{file}: has pickup and drop-off coordinates (longitude, latitude) instead of taxi "
            f"zones ({' or '.join(aliases)}); only months with zones can be used"
        )
    return TripFileError(
        f"{file}: column {ours} is missing; expected one of {', '.join(aliases)} "
        f"(any case), found {', '.join(name.strip() for name in names) or 'no columns'}"
    )
