"""W3C Trace Context: `traceparent`, by which a request is found again in everybody's traces.

`00-<trace id>-<id of the caller's span>-<flags>`, all of it hex in lower case. What breaks the
rules is ignored, as they ask; a request is answered whatever its trace says.
Source: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import os
import re

_GIVEN = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_FLAGS = 0x03  # those that version 00 knows: sampled, random; others must not be passed on


def continued(traceparent: str | None) -> str | None:
    """Return the traceparent of our own span in a request's trace; None when it has no valid one.

    Args:
        traceparent: the header's value, values of several headers joined by commas.
    """
    found = _parsed(traceparent) if traceparent else None
    if found is None:
        return None
    trace_id, flags = found
    return f"00-{trace_id}-{_span_id()}-{flags & _FLAGS:02x}"


def trace_id_of(text: str) -> str | None:
    """Return the trace id that a text is, or that it has as a traceparent; None for neither."""
    if _TRACE_ID.fullmatch(text):
        return text
    found = _parsed(text)
    return None if found is None else found[0]


def _parsed(traceparent: str) -> tuple[str, int] | None:
    """Return trace id and flags; None when they break the rules."""
    match = _GIVEN.fullmatch(traceparent.strip(" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    if version == "00" and more is not None:  # a later version may have more
        return None
    return trace_id, int(flags, 16)


def _span_id() -> str:
    """Return a new id; all zeros would mean none."""
    return os.urandom(8).hex().replace("0" * 16, "0" * 15 + "1")
