"""Request bodies: bytes to checked rides and feedback, or an error that says what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
import numpy as np

from serve.bodies.json_text import read_json
from serve.bodies.reading import check_count
from serve.bodies.refusals import explained, refused
from serve.bodies.schema import MAX_ID, YEARS, Ride
from taxi_duration.domain.rides import Rides, local_time

T = TypeVar("T")


CheckedRide = tuple[Ride, datetime]
_PLAIN_TIME = np.frombuffer(b"0000-00-00T00:00:00", "uint8")


@dataclass(frozen=True)
class ManyRides:
    """Checked rides as columns of length n.

    Args:
        columns: what a model is asked.
        miles: distances as they came, None where there is none.
        ride_ids: as they came; None when no ride has one.
        pickups: ISO texts of the times, where they came as the log has them.
    """

    columns: Rides
    miles: list[float | None]
    ride_ids: list[str | int | None] | None = None
    pickups: list[str] | None = None

    def __len__(self) -> int:
        return len(self.columns)

    def take(self, rows: np.ndarray) -> ManyRides:
        """Return the rides at these positions."""
        ride_ids = self.ride_ids and [self.ride_ids[i] for i in rows]
        pickups = self.pickups and [self.pickups[i] for i in rows]
        return ManyRides(self.columns.take(rows), [self.miles[i] for i in rows], ride_ids, pickups)


class _KnownRide(Ride, forbid_unknown_fields=True, gc=False):
    """A ride of nothing but known fields."""


_QUICK = msgspec.json.Decoder(_KnownRide | list[_KnownRide])
_COLUMNS = [attrgetter(name) for name in Ride.__struct_fields__]


def parse_rides(body: bytes, most: int) -> CheckedRide | ManyRides:
    """Return the ride, or the array of rides, of a JSON body.

    Args:
        body: UTF-8.
        most: rides allowed.
    Raises:
        ApiError: names the field, and in an array the element.
    """
    quick = _quick_rides(body)
    if quick is None:
        content = read_json(body)
        if not isinstance(content, list):
            return check_ride(content)
        check_count(len(content), most)
        return check_rides(content)
    if isinstance(quick, Ride):
        return quick, _finish(quick)
    check_count(len(quick[0]), most)
    return _as_columns(quick)


def check_ride(content: Any) -> CheckedRide:
    """Return one ride of parsed JSON and its pickup in New York time.

    Raises:
        ApiError: names the field.
    """
    ride = check(content, Ride)
    return ride, _finish(ride)


def check_rides(content: list[Any]) -> ManyRides:
    """Return the rides of a parsed array; an error says which element.

    Raises:
        ApiError: names the field.
    """
    return _as_columns(_columns_of(check(content, list[Ride])))


def _quick_rides(body: bytes) -> Ride | list[list[Any]] | None:
    """Decode and validate in one step what is surely good; None sends it the thorough way.

    The decoder is ten times as fast as `json`, and lets a key come twice. Without escapes each
    quotation mark begins or ends a key or a text, so there must be as many as the keys and texts
    that were kept need: one more means that something came twice. (A null also ends here; the
    thorough way is right about it.)

    Returns:
        A ride, or the columns of many in the order of Ride's fields.
    """
    try:
        rides = _QUICK.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if b"\\" in body:
        return None
    columns = _columns_of(rides if isinstance(rides, list) else [rides])
    n = len(columns[0])
    zones, (miles, pickups, ride_ids) = 2 * n, columns[2:]
    texts = n - pickups.count(None) + sum(isinstance(ride_id, str) for ride_id in ride_ids)
    filled = zones + 3 * n - sum(column.count(None) for column in (miles, pickups, ride_ids))
    if body.count(b'"') != 2 * (filled + texts):
        return None
    return columns if isinstance(rides, list) else rides


def _columns_of(rides: Sequence[Ride]) -> list[list[Any]]:
    return [list(map(column, rides)) for column in _COLUMNS]


def _as_columns(columns: list[list[Any]]) -> ManyRides:
    """Check what the declared types cannot say, and turn lists into arrays."""
    pickup_zones, dropoff_zones, miles, texts, ride_ids = columns
    has_ids = ride_ids.count(None) < len(ride_ids)
    if has_ids:
        for i, ride_id in enumerate(ride_ids):
            _check_ride_id(ride_id, i)
    pickups = _quick_pickups(texts)
    rides = Rides(
        np.array(pickup_zones, "int16"),
        np.array(dropoff_zones, "int16"),
        _pickups(texts) if pickups is None else pickups,
        np.array(miles, "float32"),  # None becomes NaN
    )
    return ManyRides(
        rides, miles, ride_ids if has_ids else None, None if pickups is None else texts
    )


def _pickups(texts: list[str | None]) -> np.ndarray:
    """Return datetime64[s] in New York time for texts that are times, or missing."""
    now = local_time(None)
    times = [
        now if text is None else parse_time(text, "pickup_datetime", i)
        for i, text in enumerate(texts)
    ]
    return np.array(times, "datetime64[s]")


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
        ApiError: names the field, what came and what is allowed.
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
        for name in ("PULocationID", "DOLocationID"):
            value = ride.get(name) if isinstance(ride, dict) else None
            if isinstance(value, float) and value.is_integer():
                ride[name] = int(value)
                changed = True
    return changed


def parse_time(text: str, field: str, element: int | None = None) -> datetime:
    """Return New York local time for ISO text.

    Raises:
        ApiError: not a time, or outside the years that are answered.
    """
    try:
        asked = datetime.fromisoformat(text)
        # A NUL ends the text for the C code below `fromisoformat`, whatever follows.
        if YEARS[0] <= asked.year < YEARS[1] and "\0" not in text:
            return local_time(asked)
    except (ValueError, OverflowError):
        pass
    raise refused(field, text, element)


def _finish(ride: Ride) -> datetime:
    """Check what the declared types cannot say; return the pickup."""
    _check_ride_id(ride.ride_id, None)
    if ride.pickup_datetime is None:
        return local_time(None)
    return parse_time(ride.pickup_datetime, "pickup_datetime")


def _check_ride_id(ride_id: str | int | None, element: int | None) -> None:
    """Refuse what cannot be stored everywhere: control characters and half surrogates."""
    if ride_id is not None:
        text = str(ride_id)
        if len(text) > MAX_ID or not text.isprintable():
            raise refused("ride_id", ride_id, element)
