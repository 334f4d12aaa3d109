"""What is wrong with a value, in words that name its field."""

from __future__ import annotations

import json
import re
from math import log10
from typing import Any

from serve.bodies.errors import ApiError
from serve.bodies.schema import ALLOWED

# "Expected `int`, got `str` - at `$[3].PULocationID`"
_PLACE = re.compile(r"`\$(?:\[(?P<element>\d+)\])?(?:\.(?P<field>\w+))?")
_MISSING = re.compile(r"missing required field `(?P<field>\w+)`")


def explained(content: Any, message: str) -> ApiError:
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
        message = f"an object is expected, not {shown(value)}"
        return ApiError(400, "bad_value", message, None, element)
    return refused(field, value[field], element)


def refused(field: str, value: Any, element: int | None) -> ApiError:
    message = f"{field} is {shown(value)}; it must be {ALLOWED[field]}"
    return ApiError(400, "bad_value", message, field, element)


def shown(value: Any) -> str:
    """What came, short enough for a message, in JSON's words."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**20:
        return f"a number of about {int(value.bit_length() * log10(2)) + 1} digits"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
