"""JSON as RFC 8259 has it: no key twice, no NaN."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from math import isfinite
from typing import Any

from flask import Request

from serve.bodies.errors import ApiError
from serve.bodies.reading import decode_text, media_type, read_body, wrong_type
from taxi_duration.domain.refused_values import ALLOWED, RefusedError, refused, shown

JSON_TYPES = re.compile(r"application/(json|[\w.-]+\+json)", re.ASCII)
# UTF-8 has no half of a surrogate pair, so one can only come as an escape; whole pairs do too.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(body: bytes, of_a_frame: bool = False) -> Any:
    """Parse JSON as RFC 8259 has it.

    Args:
        body: UTF-8.
        of_a_frame: as frames of pandas are sent: a bare `NaN` is null, infinities are numbers,
            which the check of their column refuses.
    Raises:
        ApiError: not JSON, not UTF-8, a key twice, NaN or infinity, nested too deep, a number of
            thousands of digits, or an invalid text (half of a surrogate pair).
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
        if _HALF.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ApiError(400, "bad_json", "the body is nested too deeply") from None
    except UnicodeEncodeError as error:
        raise _half_a_pair(content, error) from None
    except json.JSONDecodeError as error:
        raise ApiError(400, "bad_json", f"the body is not JSON: {error}") from None
    except ValueError:  # Python's own bound, against work that grows with the square
        message = f"a number has more than {sys.get_int_max_str_digits()} digits"
        raise ApiError(400, "bad_json", message) from None
    if constants:
        raise _not_finite(content, constants[0])
    return content


def require_json(request: Request) -> Any:
    """Return the parsed JSON body.

    Raises:
        ApiError: another type, or what `read_json` says.
    """
    kind = media_type(request)
    if not JSON_TYPES.fullmatch(kind):
        raise wrong_type(kind, "application/json")
    return read_json(read_body(request))


def _half_a_pair(content: Any, error: UnicodeEncodeError) -> ApiError:
    """Return the error for a text that no UTF-8 can hold, by its field's name where it has one."""
    half = f"\\u{ord(error.object[error.start]):04x}, half of a surrogate pair"
    for element, ride in _rides_of(content):
        for field, value in ride.items():
            if field in ALLOWED and isinstance(value, str) and not _is_text(value):
                message = f"{field} is a text with {half}; it must be {ALLOWED[field]}"
                return ApiError(400, "bad_value", message, field, element)
    return ApiError(400, "bad_json", f"the body has a text with {half}")


def _is_text(value: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _rides_of(content: Any) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """The objects of a body, each with its position in the array if that is one."""
    elements = list(enumerate(content)) if isinstance(content, list) else [(None, content)]
    return ((element, ride) for element, ride in elements if isinstance(ride, dict))


def _not_finite(content: Any, constant: str) -> ApiError | RefusedError:
    """Return the error for a NaN or infinity, by the name of its field where that has one."""
    for element, ride in _rides_of(content):
        for field, value in ride.items():
            if field in ALLOWED and isinstance(value, float) and not isfinite(value):
                return refused(field, value, element)
    return ApiError(400, "bad_json", f"the body is not JSON: {constant} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ApiError(400, "duplicate_key", f"the key {shown(key)} comes twice",
                               key if key in ALLOWED else None)  # fmt: skip
            seen.add(key)
    return content
