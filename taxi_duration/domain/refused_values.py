"""What a ride and its true duration may say, and in which words what they may not is refused.

The same for the service and for the registered model.
"""

from __future__ import annotations

import json
import re
from math import log10
from typing import Any

from taxi_duration.domain.limits import FIRST_ZONE, LAST_ZONE, LONGEST_FEEDBACK_MINUTES

MAX_MILES = 1_000_000  # meters recorded 244,152; above MAX_TRIP_MILES the model ignores it
MAX_ID = 100  # characters
YEARS = (2000, 2100)  # from the first, before the second

NEW_YORK_TIME = (
    f"an ISO date and time such as 2021-02-15T08:30 from year {YEARS[0]} to {YEARS[1] - 1}, "
    "New York local unless it has an offset"
)
NOW = "; now when missing"
ALLOWED = {
    "PULocationID": f"a TLC taxi zone, a whole number from {FIRST_ZONE} to {LAST_ZONE}",
    "DOLocationID": f"a TLC taxi zone, a whole number from {FIRST_ZONE} to {LAST_ZONE}",
    "trip_distance": f"miles, a number from 0 to {MAX_MILES}, or null when not known",
    "pickup_datetime": NEW_YORK_TIME + NOW,
    "when": NEW_YORK_TIME + NOW,
    "arrive": NEW_YORK_TIME,
    "date": f"a day such as 2021-02-15, from year {YEARS[0]} to {YEARS[1] - 1}; today when missing",
    "ride_id": f"your own id of the ride, text or a whole number of at most {MAX_ID} characters",
    "prediction_id": f"an id that /predict gave, 1 to {MAX_ID} ASCII characters",
    "duration": f"the true minutes, a number above 0 up to {LONGEST_FEEDBACK_MINUTES}",
}

# "Expected `int`, got `str` - at `$[3].PULocationID`"
_PLACE = re.compile(r"`\$(?:\[(?P<element>\d+)\])?(?:\.(?P<field>\w+))?")
_MISSING = re.compile(r"missing required field `(?P<field>\w+)`")


class RefusedError(Exception):
    """A value, a field or a column that cannot be answered.

    Args:
        code: short name for programs.
        message: what came and what is allowed.
        field: the field it is about.
        element: position among several rides, from 0.
    """

    def __init__(
        self, code: str, message: str, field: str | None = None, element: int | None = None
    ) -> None:
        super().__init__(message if element is None else f"element {element}: {message}")
        self.code, self.message, self.field, self.element = code, message, field, element


def explained(content: Any, message: str) -> RefusedError:
    """Return the error for what msgspec found, in words that name the field."""
    place, missing = _PLACE.search(message), _MISSING.search(message)
    element = int(place["element"]) if place and place["element"] else None
    field = (place and place["field"]) or None
    value = content if element is None else content[element]
    if missing:
        field = missing["field"]
        message = f"{field} is missing; it must be {ALLOWED[field]}"
        return RefusedError("missing_field", message, field, element)
    if field is None:
        message = f"an object is expected, not {shown(value)}"
        return RefusedError("bad_value", message, None, element)
    return refused(field, value[field], element)


def refused(field: str, value: Any, element: int | None) -> RefusedError:
    """Return the error for a value that its field may not have."""
    message = f"{field} is {shown(value)}; it must be {ALLOWED[field]}"
    return RefusedError("bad_value", message, field, element)


def shown(value: Any) -> str:
    """What came, short enough for a message, in JSON's words."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**20:
        return f"a number of about {int(value.bit_length() * log10(2)) + 1} digits"
    text = json.dumps(value, default=str)  # a frame's values may be of any class
    return text if len(text) <= 60 else text[:57] + "…"
