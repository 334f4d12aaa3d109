"""Rides as people ask for them: columns found by name, values checked, or refused in words.

Every door goes through here: JSON, CSV and Parquet bodies, MLflow's protocol, the registered model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from taxi_duration.domain.limits import FIRST_ZONE, LAST_ZONE
from taxi_duration.domain.refused_values import (
    ALLOWED,
    MAX_ID,
    MAX_MILES,
    YEARS,
    RefusedError,
    explained,
    refused,
)
from taxi_duration.domain.ride_columns import find_columns, is_null_word, missing, twice
from taxi_duration.domain.rides import Rides, local_time

T = TypeVar("T")

NEEDED = ("PULocationID", "DOLocationID")
MAX_IGNORED = 50  # names of unknown fields that an answer lists; a month has 20 columns
_PLAIN_TIME = np.frombuffer(b"0000-00-00T00:00:00", "uint8")
# What `float` takes, without its `1_0`, `infinity` and the digits of other scripts.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class Ride(msgspec.Struct, gc=False):  # made by the thousand, and never part of a cycle
    """A ride to be asked for; other fields are ignored, and named in the answer."""

    PULocationID: Annotated[
        int, Meta(ge=FIRST_ZONE, le=LAST_ZONE, description=ALLOWED["PULocationID"], examples=[10])
    ]
    DOLocationID: Annotated[
        int, Meta(ge=FIRST_ZONE, le=LAST_ZONE, description=ALLOWED["DOLocationID"], examples=[50])
    ]
    trip_distance: (
        Annotated[
            float, Meta(ge=0, le=MAX_MILES, description=ALLOWED["trip_distance"], examples=[4.5])
        ]
        | None
    ) = None
    pickup_datetime: (
        Annotated[
            str,
            Meta(
                max_length=40,
                description=ALLOWED["pickup_datetime"],
                examples=["2021-02-15T08:30:00"],
            ),
        ]
        | None
    ) = None
    ride_id: (
        Annotated[str, Meta(max_length=MAX_ID, description=ALLOWED["ride_id"])] | int | None
    ) = None


FIELDS = Ride.__struct_fields__
_COLUMNS = [attrgetter(name) for name in FIELDS]
# With its pickup in New York time, and the names of the fields that are not read.
CheckedRide = tuple[Ride, datetime, list[str]]


@dataclass(frozen=True)
class ManyRides:
    """Checked rides as columns of length n.

    Args:
        columns: what a model is asked.
        miles: distances as they came, None where there is none.
        ride_ids: as they came; None when no ride has one.
        pickups: ISO texts of the times, where they came as the log has them.
        ignored: names of fields that are not read, by the position of the ride that had them; of
            a table all at its first ride.
    """

    columns: Rides
    miles: list[float | None]
    ride_ids: list[str | int | None] | None = None
    pickups: list[str] | None = None
    ignored: dict[int, list[str]] | None = None

    def __len__(self) -> int:
        return len(self.columns)

    def take(self, rows: np.ndarray) -> ManyRides:
        """Return the rides at these positions, without the names of what was ignored."""
        ride_ids = self.ride_ids and [self.ride_ids[i] for i in rows]
        pickups = self.pickups and [self.pickups[i] for i in rows]
        return ManyRides(self.columns.take(rows), [self.miles[i] for i in rows], ride_ids, pickups)


# --- names --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RideColumns:
    """Which column of a table, by position, is which field of a ride; and who is ignored."""

    positions: dict[str, int]
    ignored: list[str]


def find_ride_columns(
    names: Sequence[str],
    element: int | None = None,
    needed: Sequence[str] = NEEDED,
    fields: Sequence[str] = FIELDS,
) -> RideColumns:
    """Find a ride's fields among a table's columns, or an object's keys.

    Args:
        names: as written.
        element: of the object, for errors.
        needed: fields that must be there.
        fields: that are read.
    Raises:
        RefusedError: one of these is missing, or several columns mean the same field.
    """
    found = find_columns(names, fields)
    for field, positions in found.positions.items():
        if len(positions) > 1:
            words = twice(field, [names[i] for i in positions])
            raise RefusedError("duplicate_key", words, field, element)
    for field in needed:
        if field not in found.positions:
            words = f"{missing(field, names)}; it must be {ALLOWED[field]}"
            raise RefusedError("missing_field", words, field, element)
    others = [names[i].strip() for i in found.others if names[i].strip()]  # an index has no name
    ignored = [_shortened(name) for name in dict.fromkeys(others)][:MAX_IGNORED]
    return RideColumns({field: i for field, (i,) in found.positions.items()}, ignored)


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_ID else name[: MAX_ID - 1] + "…"


# --- values -------------------------------------------------------------------------------------


def check_ride(content: Any) -> CheckedRide:
    """Return one ride of parsed JSON.

    Raises:
        RefusedError: names the field.
    """
    ignored: list[str] = []
    if isinstance(content, dict):
        found = find_ride_columns(list(content), needed=())
        content, ignored = _of_our_names(content, found), found.ignored
    ride = check(content, Ride)
    return ride, finish(ride), ignored


def check_rides(content: Sequence[Any]) -> ManyRides:
    """Return the rides of a parsed array; an error says which element.

    Raises:
        RefusedError: names the field.
    """
    seen: dict[tuple[str, ...], RideColumns] = {}  # most objects of an array have the same keys
    rides: list[Any] = []
    ignored: dict[int, list[str]] = {}
    for i, ride in enumerate(content):
        if isinstance(ride, dict):
            keys = tuple(ride)
            if keys not in seen:
                seen[keys] = find_ride_columns(keys, i, needed=())
            if seen[keys].ignored:
                ignored[i] = seen[keys].ignored
            ride = _of_our_names(ride, seen[keys])
        rides.append(ride)
    return as_many(columns_of(check(rides, list[Ride])), ignored)


def check_table(
    names: Sequence[str], rows: Iterable[Sequence[Any]], ignored: Sequence[str] = ()
) -> ManyRides:
    """Return the rides of a table; its columns are checked before its rows are looked at.

    Args:
        names: of the columns, as written.
        rows: zones and miles are numbers, times ISO text, null is None.
        ignored: columns that were left out already.
    Raises:
        RefusedError: names the column, or the field and the row.
    """
    found = find_ride_columns(names)
    fields = found.positions.items()
    rides = [{field: row[i] for field, i in fields} for row in rows]
    return as_many(columns_of(check(rides, list[Ride])), {0: [*ignored, *found.ignored]})


def from_text(field: str, text: str) -> Any:
    """Return a cell of text as a value of its field; what is not of it stays, to be refused."""
    if is_null_word(text):
        return None
    text = text.strip()
    if field in ("pickup_datetime", "ride_id") or not _NUMBER.fullmatch(text):
        return text
    return float(text)


def columns_of(rides: Sequence[Ride]) -> list[list[Any]]:
    """Return the fields of rides as columns, in the order of FIELDS."""
    return [list(map(column, rides)) for column in _COLUMNS]


def as_many(columns: list[list[Any]], ignored: dict[int, list[str]] | None = None) -> ManyRides:
    """Check what the declared types cannot say, and turn lists into arrays.

    Args:
        columns: see `columns_of`.
        ignored: see `ManyRides`.
    Raises:
        RefusedError: names the field and the element.
    """
    pickup_zones, dropoff_zones, miles, texts, ride_ids = columns
    has_ids = ride_ids.count(None) < len(ride_ids)
    if has_ids:
        for i, ride_id in enumerate(ride_ids):
            _check_ride_id(ride_id, i)
    pickups, as_logged = read_pickups(texts)
    rides = Rides(
        np.array(pickup_zones, "int16"),
        np.array(dropoff_zones, "int16"),
        pickups,
        np.array(miles, "float32"),  # None becomes NaN
    )
    return ManyRides(
        rides, miles, ride_ids if has_ids else None, texts if as_logged else None, ignored
    )


def read_pickups(texts: list[Any]) -> tuple[np.ndarray, bool]:
    """Return datetime64[s] in New York time for ISO texts, None is now; and whether each text
    already looks as the log writes it.

    Raises:
        RefusedError: names the element that is no time.
    """
    pickups = _quick_pickups(texts)
    if pickups is not None:
        return pickups, True
    now = local_time(None)
    times = [
        now if text is None else parse_time(text, "pickup_datetime", i)
        for i, text in enumerate(texts)
    ]
    return np.array(times, "datetime64[s]"), False


def _quick_pickups(texts: list[str | None]) -> np.ndarray | None:
    """Read texts that all look like 2021-02-15T08:30:00 at once; None when they do not."""
    given = [text for text in texts if text is not None]
    if len(given) < len(texts) or set(map(len, given)) != {len(_PLAIN_TIME)}:
        return None
    together = "".join(given)
    if not together.isascii():
        return None
    letters = np.frombuffer(together.encode(), "uint8").reshape(len(texts), -1)
    digits = ord("0") == _PLAIN_TIME
    plain = (letters[:, ~digits] == _PLAIN_TIME[~digits]).all()
    if not plain or not ((letters[:, digits] >= ord("0")) & (letters[:, digits] <= ord("9"))).all():
        return None
    try:
        pickups = letters.view(f"S{len(_PLAIN_TIME)}").ravel().astype("datetime64[s]")
    except ValueError:  # the 30th of February; who looks at each will say where
        return None
    first, last = (np.datetime64(f"{year}-01-01") for year in YEARS)
    return pickups if ((pickups >= first) & (pickups < last)).all() else None


def check(content: Any, type_: type[T]) -> T:
    """Convert parsed JSON into a declared type.

    Raises:
        RefusedError: names the field, what came and what is allowed.
    """
    try:
        return msgspec.convert(content, type_)
    except msgspec.ValidationError as error:
        if "Expected `int`, got `float`" in str(error) and _make_whole(content):
            return check(content, type_)  # 10.0 is a whole number too, and frames send it
        raise explained(content, str(error)) from None


def _make_whole(content: Any) -> bool:
    """Turn whole floats of zones into ints, in place; False when there were none."""
    changed = False
    for ride in content if isinstance(content, list) else [content]:
        for name in NEEDED:
            value = ride.get(name) if isinstance(ride, dict) else None
            if isinstance(value, float) and value.is_integer():
                ride[name] = int(value)
                changed = True
    return changed


def parse_time(text: str, field: str, element: int | None = None) -> datetime:
    """Return New York local time for ISO text.

    Raises:
        RefusedError: not a time, or outside the years that are answered.
    """
    # SQL engines write an instant's zone as a word.
    iso = text[:-4] + "+00:00" if text.endswith(" UTC") else text
    try:
        asked = local_time(iso)
        # A NUL ends the text for the C code below `fromisoformat`, whatever follows.
        if YEARS[0] <= asked.year < YEARS[1] and "\0" not in text:
            return asked
    except (ValueError, OverflowError):
        pass
    raise refused(field, text, element)


def finish(ride: Ride) -> datetime:
    """Check what the declared types cannot say; return the pickup in New York time.

    Raises:
        RefusedError: names the field.
    """
    _check_ride_id(ride.ride_id, None)
    if ride.pickup_datetime is None:
        return local_time(None)
    return parse_time(ride.pickup_datetime, "pickup_datetime")


def _of_our_names(ride: dict[str, Any], found: RideColumns) -> dict[str, Any]:
    values = list(ride.values())
    return {field: values[i] for field, i in found.positions.items()}


def _check_ride_id(ride_id: str | int | None, element: int | None) -> None:
    """Refuse what cannot be stored everywhere: control characters and half surrogates."""
    if ride_id is not None:
        text = str(ride_id)
        if len(text) > MAX_ID or not text.isprintable():
            raise refused("ride_id", ride_id, element)
