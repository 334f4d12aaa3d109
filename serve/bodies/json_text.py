"""JSON as RFC 8259 has it: no key twice, no NaN."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any

from flask import Request

from serve.bodies.errors import ApiError
from serve.bodies.reading import decode_text, media_type, read_body, wrong_type
from serve.bodies.refusals import refused, shown
from serve.bodies.schema import ALLOWED

JSON_TYPES = re.compile(r"application/(json|[\w.-]+\+json)", re.ASCII)


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


def require_json(request: Request) -> Any:
    """Return the parsed JSON body.

    Raises:
        ApiError: another type, or what `read_json` says.
    """
    kind = media_type(request)
    if not JSON_TYPES.fullmatch(kind):
        raise wrong_type(kind, "application/json")
    return read_json(read_body(request))


def _not_finite(content: Any, constant: str) -> ApiError:
    """Return the error for a NaN or infinity, by the name of its field where that has one."""
    elements = list(enumerate(content)) if isinstance(content, list) else [(None, content)]
    for element, ride in elements:
        for field, value in ride.items() if isinstance(ride, dict) else ():
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
