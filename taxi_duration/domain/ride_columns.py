"""What a ride's columns are called and what their empty cells say, whoever wrote them.

The one rule for all doors: the reading of months, Parquet, JSON and CSV bodies, the registered
model. Names are compared without case, spaces, `_` and `-`, and byte order mark around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Our fields -> the names that mean them, lower case, best first: those of the meter before those
# of others. Source: TLC's data dictionaries and files of all services since 2009 (yellow's names
# before 2015 and in the CSV republication of 2019 differ), the service's contract, and `pickup_at`
# and `dropoff_at` of prepared months. FHVHV's `request_datetime` is no pickup.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "PULocationID": ("pulocationid", "pickup_location_id"),
    "DOLocationID": ("dolocationid", "dropoff_location_id"),
    "trip_distance": ("trip_distance", "trip_miles"),
    "pickup_datetime": (
        "lpep_pickup_datetime",
        "tpep_pickup_datetime",
        "pickup_datetime",
        "trip_pickup_datetime",
        "pickup_at",
    ),
    "dropoff_datetime": (
        "lpep_dropoff_datetime",
        "tpep_dropoff_datetime",
        "dropoff_datetime",
        "trip_dropoff_datetime",
        "dropoff_at",
    ),
    "ride_id": ("ride_id",),
}

# Words for "no value" that pandas, R, SQL, Hive, spreadsheets and Python write, in their cases.
_WORDS = ("", "NULL", "None", "N/A", "#N/A", "NA", "<NA>", "NaN", "-NaN", "NaT", "\\N")
_CASES = (str, str.lower, str.upper, str.capitalize)
NULL_WORDS = frozenset(case(word) for word in _WORDS for case in _CASES) - {"\\n"}


def is_null_word(text: str) -> bool:
    """True when a cell's text, without the spaces around it, says that there is no value."""
    return text.strip() in NULL_WORDS


def plain_name(name: str) -> str:
    """Return what names that differ in writing alone share: `Trip Distance` and `trip_distance`.

    In lower case, without byte order mark and spaces around it, nor spaces, `_` and `-` in it.
    """
    return name.strip("\ufeff\u200b \t\r\n\xa0").lower().translate(_JOINTS)


_JOINTS = str.maketrans("", "", " _-")
_PLAIN = {field: tuple(map(plain_name, names)) for field, names in SYNONYMS.items()}


@dataclass(frozen=True)
class FoundColumns:
    """Which columns of a table mean which of our fields, by position.

    Args:
        positions: field -> the columns that mean it, best name first; no entry when none does.
        others: the columns that mean none of the fields asked for.
    """

    positions: dict[str, list[int]]
    others: list[int]


def find_columns(names: Sequence[str], fields: Iterable[str] = tuple(SYNONYMS)) -> FoundColumns:
    """Find our fields among the column names of a table, or the keys of an object.

    A field may have several columns: the same name twice, in two cases, or two names that mean
    the same. Whoever cannot tell which is right refuses them with `twice`.

    Args:
        names: as written, in the table's order; may hold the same name twice.
        fields: of SYNONYMS, to look for.
    """
    plain = [plain_name(name) for name in names]
    positions: dict[str, list[int]] = {}
    for field in fields:
        found = [i for word in _PLAIN[field] for i, name in enumerate(plain) if name == word]
        if found:
            positions[field] = found
    taken = {i for found in positions.values() for i in found}
    return FoundColumns(positions, [i for i in range(len(names)) if i not in taken])


def twice(field: str, names: Sequence[str]) -> str:
    """Return the words for a field that several columns (these, as written) stand for."""
    written = " and ".join(repr(name[:60]) for name in names[:3])
    return f"{field} comes {len(names)} times, as {written}; one column is expected"


def missing(field: str, names: Sequence[str]) -> str:
    """Return the words for a field that none of these columns, as written, stands for."""
    there = ", ".join(name.strip()[:60] for name in names[:20]) or "no columns"
    expected = " or ".join([field, *(n for n in SYNONYMS[field] if n != field.lower())])
    return f"{field} is missing; expected {expected} (any case), found {there}"
