"""Request bodies: bytes to checked rides and feedback, or an error that says what is wrong."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from math import isfinite, log10
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
import numpy as np
from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from serve.bodies.errors import ApiError
from serve.bodies.schema import ALLOWED, MAX_ID, YEARS, Ride
from taxi_duration.domain.rides import Rides, local_time

JSON_TYPES = re.compile(r"application/(json|[\w.-]+\+json)", re.ASCII)
T = TypeVar("T")

# How much of a body that is refused is read all the same, in parts.
UNREAD_BYTES, UNREAD_PART, UNREAD_SECONDS = 100_000_000, 1_000_000, 5.0

CheckedRide = tuple[Ride, datetime]
_PLAIN_TIME = np.array([ord(c) for c in "0000-00-00T00:00:00"], "uint32")


@dataclass(frozen=True)
class ManyRides:
    """Checked rides as columns of length n.

    Args:
        columns: what a model is asked.
        miles: distances as they came, None where there is none.
        ride_ids: as they came; None when no ride has one.
    """

    columns: Rides
    miles: list[float | None]
    ride_ids: list[str | int | None] | None = None

    def __len__(self) -> int:
        return len(self.columns)

    def take(self, rows: np.ndarray) -> ManyRides:
        """Return the rides at these positions."""
        ride_ids = self.ride_ids and [self.ride_ids[i] for i in rows]
        return ManyRides(self.columns.take(rows), [self.miles[i] for i in rows], ride_ids)

    def each(self) -> Iterator[CheckedRide]:
        """Yield ride by ride, with its pickup."""
        pickups = self.columns.PULocationID.tolist(), self.columns.DOLocationID.tolist()
        ride_ids = self.ride_ids or [None] * len(self)
        times = self.columns.pickup_at.tolist()
        for pickup, dropoff, at, miles, ride_id in zip(
            *pickups, times, self.miles, ride_ids, strict=True
        ):
            yield Ride(pickup, dropoff, miles, None, ride_id), at


class _KnownRide(Ride, forbid_unknown_fields=True, gc=False):
    """A ride of nothing but known fields."""


_QUICK = msgspec.json.Decoder(_KnownRide | list[_KnownRide])
_QUOTED = [(name, f'"{name}"'.encode()) for name in Ride.__struct_fields__]

# "Expected `int`, got `str` - at `$[3].PULocationID`"
_PLACE = re.compile(r"`\$(?:\[(?P<element>\d+)\])?(?:\.(?P<field>\w+))?")
_MISSING = re.compile(r"missing required field `(?P<field>\w+)`")


def media_type(request: Request) -> str:
    """Return the body's type without parameters.

    Raises:
        ApiError: compressed, or in another character set than UTF-8.
    """
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise ApiError(415, "unsupported_type", "compressed bodies are not read; send it plain")
    charset = request.mimetype_params.get("charset", "utf-8")
    if charset.lower() not in ("utf-8", "utf8"):
        raise ApiError(
            415, "unsupported_type", f"the charset is {charset[:40]!r}; only UTF-8 is read"
        )
    return request.mimetype


def read_json(body: bytes, of_a_frame: bool = False) -> Any:
    """Parse JSON as RFC 8259 has it.

    Args:
        body: UTF-8.
        of_a_frame: as frames of pandas are sent: a bare `NaN` is null, infinities are numbers,
            which the check of their column refuses.
    Raises:
        ApiError: not JSON, not UTF-8, a key twice, NaN or infinity, nested too deep.
    """
    constants: list[str] = []

    def constant(name: str) -> float | None:
        if of_a_frame:
            return None if name == "NaN" else float(name)
        constants.append(name)
        return float(name)

    if not body:
        raise ApiError(400, "bad_json", "the body is empty; JSON is expected")
    text = decode_text(body)
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_constant=constant)
    except RecursionError:
        raise ApiError(400, "bad_json", "the body is nested too deeply") from None
    except ValueError as error:
        raise ApiError(400, "bad_json", f"the body is not JSON: {error}") from None
    if constants:
        raise _not_finite(content, constants[0])
    return content


def decode_text(body: bytes) -> str:
    """Return the body as text.

    Raises:
        ApiError: not UTF-8.
    """
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(
            400, "bad_encoding", f"the body is not UTF-8: {error.reason} at byte {error.start}"
        ) from None


def read_body(request: Request) -> bytes:
    """Return the whole body, as large as it may be.

    It is read from the server, which ends it where it ends: werkzeug's limit is a Python loop
    around that, and takes the first part of a chunked body that is too large for all of it.

    Raises:
        RequestEntityTooLarge: it is larger.
        ApiError: it stopped arriving, or did not arrive whole.
    """
    length, most = request.content_length, request.max_content_length
    assert most is not None  # the factory sets it
    if length is None and not request.environ.get("wsgi.input_terminated"):
        return b""
    if length is None or length <= most:
        body = _read(request.environ, most + 1 if length is None else length)
        if length is not None and len(body) < length:
            raise ApiError(400, "bad_body", f"{len(body)} bytes came, {length} were announced")
        if len(body) <= most:
            return body
    _read_on(request.environ)
    raise RequestEntityTooLarge


def _read(environ: dict[str, Any], n: int) -> bytes:
    try:
        return environ["wsgi.input"].read(n)
    except BlockingIOError:  # see `serve.worker`
        _hang_up(environ)
        raise ApiError(408, "timeout", "the body stopped arriving") from None
    except OSError as error:  # the client is gone, or its chunks are none
        raise ApiError(400, "bad_body", f"the body cannot be read: {error}") from None


def _read_on(environ: dict[str, Any]) -> None:
    """Let a client finish sending, within limits: before that many do not look for an answer."""
    until = time.monotonic() + UNREAD_SECONDS
    left = UNREAD_BYTES
    with suppress(OSError):
        while left > 0 and time.monotonic() < until:
            part = environ["wsgi.input"].read(UNREAD_PART)
            if not part:
                return
            left -= len(part)
    _hang_up(environ)


def _hang_up(environ: dict[str, Any]) -> None:
    """Receive no more: gunicorn would wait for the rest again, to use the connection again."""
    if "gunicorn.socket" in environ:
        with suppress(OSError):  # it is closed
            environ["gunicorn.socket"].shutdown(socket.SHUT_RD)


def require_json(request: Request) -> Any:
    """Return the parsed JSON body.

    Raises:
        ApiError: another type, or what `read_json` says.
    """
    kind = media_type(request)
    if not JSON_TYPES.fullmatch(kind):
        raise wrong_type(kind, "application/json")
    return read_json(read_body(request))


def wrong_type(kind: str, *allowed: str) -> ApiError:
    """Return the error for a body of a type that is not read here."""
    return ApiError(
        415, "unsupported_type", f"the Content-Type is {kind[:60]!r}; send {' or '.join(allowed)}"
    )


def check_count(n: int, most: int, what: str = "rides") -> None:
    """Refuse more elements than allowed.

    Raises:
        ApiError: 413.
    """
    if n > most:
        raise ApiError(413, "too_many", f"{n} {what} in one request; at most {most} are allowed")


def parse_rides(body: bytes, most: int) -> CheckedRide | ManyRides:
    """Return the ride, or the array of rides, of a JSON body.

    Args:
        body: UTF-8.
        most: rides allowed.
    Raises:
        ApiError: names the field, and in an array the element.
    """
    rides = _quick_rides(body)
    if rides is None:
        content = read_json(body)
        if not isinstance(content, list):
            return check_ride(content)
        check_count(len(content), most)
        return check_rides(content)
    if not isinstance(rides, list):
        return rides, _finish(rides)
    check_count(len(rides), most)
    return _as_columns(rides)


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
    return _as_columns(check(content, list[Ride]))


def _quick_rides(body: bytes) -> Ride | list[Ride] | None:
    """Decode and validate in one step what is surely good; None sends it the thorough way.

    The decoder is ten times as fast as `json`, and lets a key come twice: so every name must
    occur as often as it is filled. (A null, an escape, or a name used as a value also ends
    here; the thorough way is right about them.)
    """
    try:
        rides = _QUICK.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if b"\\" in body:
        return None
    for name, quoted in _QUOTED:
        if isinstance(rides, list):
            filled = len(rides) - list(map(attrgetter(name), rides)).count(None)
        else:
            filled = getattr(rides, name) is not None
        if body.count(quoted) != filled:
            return None
    return rides


def _as_columns(rides: list[Ride]) -> ManyRides:
    """Check what the declared types cannot say, and turn rides into columns."""
    ride_ids = [ride.ride_id for ride in rides]
    has_ids = ride_ids.count(None) < len(rides)
    if has_ids:
        for i, ride_id in enumerate(ride_ids):
            _check_ride_id(ride_id, i)
    miles = [ride.trip_distance for ride in rides]
    columns = Rides(
        np.array([ride.PULocationID for ride in rides], "int16"),
        np.array([ride.DOLocationID for ride in rides], "int16"),
        _pickups([ride.pickup_datetime for ride in rides]),
        np.array(miles, "float32"),  # None becomes NaN
    )
    return ManyRides(columns, miles, ride_ids if has_ids else None)


def _pickups(texts: list[str | None]) -> np.ndarray:
    """Return datetime64[s] in New York time for texts that are times, or missing."""
    quick = _quick_pickups(texts)
    if quick is not None:
        return quick
    now = local_time(None)
    times = [
        now if text is None else parse_time(text, "pickup_datetime", i)
        for i, text in enumerate(texts)
    ]
    return np.array(times, "datetime64[s]")


def _quick_pickups(texts: list[str | None]) -> np.ndarray | None:
    """Read texts that all look like 2021-02-15T08:30:00 at once; None when they do not."""
    if None in texts or set(map(len, filter(None, texts))) != {len(_PLAIN_TIME)}:
        return None
    letters = np.array(texts).view("uint32").reshape(len(texts), -1)
    digits = ord("0") == _PLAIN_TIME
    plain = (letters[:, ~digits] == _PLAIN_TIME[~digits]).all()
    if not plain or not ((letters[:, digits] >= ord("0")) & (letters[:, digits] <= ord("9"))).all():
        return None
    try:
        pickups = np.array(texts, "datetime64[s]")
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
        raise _explained(content, str(error)) from None


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
        if YEARS[0] <= asked.year < YEARS[1]:
            return local_time(asked)
    except (ValueError, OverflowError):
        pass
    raise _refused(field, text, element)


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
            raise _refused("ride_id", ride_id, element)


def _explained(content: Any, message: str) -> ApiError:
    """Return the error for what msgspec found, in words that name the field."""
    place, missing = _PLACE.search(message), _MISSING.search(message)
    element = int(place["element"]) if place and place["element"] else None
    field = (place and place["field"]) or None
    value = content if element is None else content[element]
    if missing:
        field = missing["field"]
        message = f"{field} is missing; it must be {ALLOWED[field]}"
        return ApiError(400, "missing_field", message, field, element)
    if field is None:
        message = f"an object is expected, not {_shown(value)}"
        return ApiError(400, "bad_value", message, None, element)
    return _refused(field, value[field], element)


def _not_finite(content: Any, constant: str) -> ApiError:
    """Return the error for a NaN or infinity, by the name of its field where that has one."""
    elements = list(enumerate(content)) if isinstance(content, list) else [(None, content)]
    for element, ride in elements:
        for field, value in ride.items() if isinstance(ride, dict) else ():
            if field in ALLOWED and isinstance(value, float) and not isfinite(value):
                return _refused(field, value, element)
    return ApiError(400, "bad_json", f"the body is not JSON: {constant} is not a JSON number")


def _refused(field: str, value: Any, element: int | None) -> ApiError:
    message = f"{field} is {_shown(value)}; it must be {ALLOWED[field]}"
    return ApiError(400, "bad_value", message, field, element)


def _shown(value: Any) -> str:
    """What came, short enough for a message, in JSON's words."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**20:
        return f"a number of about {int(value.bit_length() * log10(2)) + 1} digits"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ApiError(400, "duplicate_key", f"the key {_shown(key)} comes twice",
                               key if key in ALLOWED else None)  # fmt: skip
            seen.add(key)
    return content
