"""Request bodies: bytes to checked rides and feedback, or an error that says what is wrong."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from flask import Request

from serve.errors import ApiError
from serve.schema import ALLOWED, MAX_ID, YEARS, Ride
from taxi_duration.rides import local_time

JSON_TYPES = re.compile(r"application/(json|[\w.-]+\+json)", re.ASCII)
T = TypeVar("T")

CheckedRide = tuple[Ride, datetime]
CheckedRides = tuple[list[Ride], list[datetime]]


class _KnownRide(Ride, forbid_unknown_fields=True):
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


def read_json(body: bytes, nan_is_null: bool = False) -> Any:
    """Parse JSON as RFC 8259 has it.

    Args:
        body: UTF-8.
        nan_is_null: read a bare `NaN` as null, as frames of pandas are sent.
    Raises:
        ApiError: not JSON, not UTF-8, a key twice, NaN or infinity, nested too deep.
    """

    def constant(name: str) -> None:
        if not (nan_is_null and name == "NaN"):
            raise ValueError(f"{name} is not a JSON number")

    if not body:
        raise ApiError(400, "bad_json", "the body is empty; JSON is expected")
    text = decode_text(body)
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=constant)
    except RecursionError:
        raise ApiError(400, "bad_json", "the body is nested too deeply") from None
    except ValueError as error:
        raise ApiError(400, "bad_json", f"the body is not JSON: {error}") from None


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
    """Return the body, as large as it may be.

    Raises:
        RequestEntityTooLarge: it is larger.
    """
    length, most = request.content_length, request.max_content_length
    if length is None or most is None or length > most:
        return request.get_data(cache=False)
    # The server ends the stream at its length; werkzeug's own limit is a Python loop around it.
    return request.environ["wsgi.input"].read(length)


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


def check_count(n: int, most: int) -> None:
    """Refuse more elements than allowed.

    Raises:
        ApiError: 413.
    """
    if n > most:
        raise ApiError(413, "too_many", f"{n} rides in one request; at most {most} are allowed")


def parse_rides(body: bytes, most: int) -> CheckedRide | CheckedRides:
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
        return rides, _finish(rides, None)
    check_count(len(rides), most)
    return rides, _finish_all(rides)


def check_ride(content: Any) -> CheckedRide:
    """Return one ride of parsed JSON and its pickup in New York time.

    Raises:
        ApiError: names the field.
    """
    ride = check(content, Ride)
    return ride, _finish(ride, None)


def check_rides(content: list[Any]) -> CheckedRides:
    """Return many rides and their pickups; an error says which element.

    Raises:
        ApiError: names the field.
    """
    rides = check(content, list[Ride])
    return rides, _finish_all(rides)


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
            filled = sum(getattr(ride, name) is not None for ride in rides)
        else:
            filled = getattr(rides, name) is not None
        if body.count(quoted) != filled:
            return None
    return rides


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


def _finish(ride: Ride, element: int | None, now: datetime | None = None) -> datetime:
    """Check what the declared types cannot say; return the pickup."""
    ride_id = ride.ride_id
    if ride_id is not None:
        text = str(ride_id)
        # Control characters and half surrogates cannot be stored everywhere.
        if len(text) > MAX_ID or not text.isprintable():
            raise _refused("ride_id", ride_id, element)
    if ride.pickup_datetime is None:
        return now or local_time(None)
    return parse_time(ride.pickup_datetime, "pickup_datetime", element)


def _finish_all(rides: list[Ride]) -> list[datetime]:
    now = local_time(None)
    return [_finish(ride, i, now) for i, ride in enumerate(rides)]


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
        return f"a number of about {value.bit_length() * 3 // 10} digits"
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
