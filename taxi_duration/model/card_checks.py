"""What a card must say before anybody reads it: field by field, type and form.

Whoever shows, exports or follows a field may rely on it afterwards: the service, its metrics and
pages, the monitor, `trace`. Fields beyond these are shown as they are.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from taxi_duration.domain.months import SERVICES
from taxi_duration.domain.references import model_name, name_of
from taxi_duration.errors import BundleError

MAX_DEPTH = 20  # of lists and dicts in a card
MAX_VERSION = 2**31
SOURCES = ("tlc", "sample")
_MONTH = r"\d{4}-(?:0[1-9]|1[0-2])"
_SPAN = rf"{_MONTH}(?::{_MONTH})?"
_SHA256 = re.compile(r"[0-9a-f]{64}")

Check = Callable[[Any], bool]


def check_card(card: Any, expected: str | None = None) -> None:
    """Make sure that a card says what its readers need, in the form that they need.

    Args:
        card: parsed JSON.
        expected: `name:version` that it must be of; None for any, also for none yet.
    Raises:
        BundleError: names the field, what was found and what is expected.
    """
    if type(card) is not dict or not _can_be_shown(card, MAX_DEPTH):
        raise BundleError(
            f"must hold an object of texts and numbers below 2**63, {MAX_DEPTH} levels at most"
        )
    wanted = {**_FIELDS, **(_NUMBERED if expected or "version" in card or "name" in card else {})}
    for name, (is_right, form) in wanted.items():
        if name not in card:
            raise BundleError(f"has no {name}; expected is {form}")
        if not is_right(card[name]):
            raise BundleError(f"has {name} {reprlib.repr(card[name])}; expected is {form}")
    if "name" not in card:
        return
    if card["name"] != model_name(card["service"]):
        raise BundleError(f"is named {card['name']}, and is of the service {card['service']}")
    if expected not in (None, name_of(card)):
        raise BundleError(f"is that of {name_of(card)}, expected is {expected}")


def _can_be_shown(value: Any, depth: int) -> bool:
    """True for what any JSON writer takes."""
    if type(value) is dict:
        return depth > 0 and all(
            _can_be_shown(item, depth - 1) for pair in value.items() for item in pair
        )
    if type(value) is list:
        return depth > 0 and all(_can_be_shown(item, depth - 1) for item in value)
    if type(value) is int:
        return abs(value) < 2**63
    # A lone surrogate is legal in JSON and in no UTF-8 answer.
    return type(value) is not str or not any("\ud800" <= c <= "\udfff" for c in value)


def _text(form: re.Pattern[str] | str) -> Check:
    pattern = re.compile(form)
    return lambda value: type(value) is str and bool(pattern.fullmatch(value))


def _whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _object_of(check: Check) -> Check:
    return lambda value: type(value) is dict and all(map(check, value.values()))


def _with_fields(checks: dict[str, Check]) -> Check:
    """An object that has at least these fields."""
    return lambda value: (
        type(value) is dict
        and all(name in value and check(value[name]) for name, check in checks.items())
    )


def _list_of(check: Check) -> Check:
    return lambda value: type(value) is list and all(map(check, value))


def _is_time(value: Any) -> bool:
    """True for an ISO time with its offset, so that it is one moment everywhere."""
    try:
        return type(value) is str and datetime.fromisoformat(value).utcoffset() is not None
    except ValueError:
        return False


def _is_error(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e9


_any_text = _text(re.compile(r"[^\0]{1,1000}"))
_plain_name = _text(re.compile(r"[\w][\w.-]{0,199}", re.ASCII))  # of a file: no way out of a folder
_months = _text(rf"{_SPAN}(?:,{_SPAN})*")
_scores = _with_fields({"rmse": _is_error, "mae": _is_error})
_count = _whole(0, 2**63)
_lineage = _with_fields(
    {
        "month": _text(_MONTH), "file": _plain_name, "sha256": _text(_SHA256),
        "url": lambda value: value is None or _any_text(value),
        "data_source": lambda value: value in SOURCES,
        "rows_read": _count, "rows_kept": _count, "reasons": _object_of(_count),
    }
)  # fmt: skip

_FIELDS: dict[str, tuple[Check, str]] = {
    "model_sha256": (_text(_SHA256), "the model's digest, 64 hex digits"),
    "created": (_is_time, "an ISO time with its offset"),
    "model_kind": (_text(r"[A-Z][A-Z0-9_]{0,19}"), "a name such as XGB"),
    "service": (lambda value: value in SERVICES, f"one of {', '.join(SERVICES)}"),
    "data_source": (lambda value: value in SOURCES, f"one of {', '.join(SOURCES)}"),
    "train_data": (_months, "months such as 2021-01:2021-03"),
    "val_data": (_months, "months such as 2021-01:2021-03"),
    "months": (
        _with_fields({"train": _list_of(_lineage), "validation": _list_of(_lineage)}),
        "train and validation, each a list of files with month, sha256 and row counts",
    ),
    "metrics": (
        _with_fields({"with_distance": _scores, "without_distance": _scores}),
        "with_distance and without_distance, each with rmse and mae in minutes",
    ),
    "parameters": (lambda value: type(value) is dict, "an object"),
    "libraries": (_object_of(_any_text), "an object of versions"),
    "git_commit": (_any_text, "a text"),
    "run_id": (_plain_name, "a run's id, letters, digits, - and _"),
}
_NUMBERED: dict[str, tuple[Check, str]] = {
    "name": (_plain_name, "a name such as green-duration"),
    "version": (_whole(1, MAX_VERSION), "a whole number from 1"),
}
