"""Which traceparents are continued, and how."""

from __future__ import annotations

import pytest

from taxi_duration.domain import trace_context
from taxi_duration.domain.trace_context import continued, trace_id_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (GIVEN, "01"),
        (f"  {GIVEN}\t", "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        (f"00-{TRACE}-{SPAN}-03", "03"),
        (f"00-{TRACE}-{SPAN}-ff", "03"),  # flags of later versions are not passed on
        (f"00-{TRACE}-{SPAN}-fc", "00"),
        (f"01-{TRACE}-{SPAN}-01", "01"),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", "01"),
    ],
)
def test_a_trace_is_continued_with_a_span_of_our_own(given, flags):
    version, trace_id, span_id, ours = continued(given).split("-")
    assert (version, trace_id, ours) == ("00", TRACE, flags)
    assert span_id not in (SPAN, "0" * 16)
    assert continued(given).split("-")[2] != span_id


@pytest.mark.parametrize(
    "given",
    [
        None, "", "-", GIVEN.upper(), GIVEN + "-", GIVEN + "-more", GIVEN[:-1], GIVEN + "0",
        GIVEN[3:], f"ff-{TRACE}-{SPAN}-01", f"0-{TRACE}-{SPAN}-01", f"01-{TRACE}-{SPAN}-01.more",
        f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}-01", f"00-{TRACE}-{SPAN}-1g", f"{GIVEN},{GIVEN}", GIVEN + "\n",
        f"00-{TRACE[:-1]}%-{SPAN}-01", f"٠٠-{TRACE}-{SPAN}-01",
    ],
)  # fmt: skip
def test_what_breaks_the_rules_is_ignored(given):
    assert continued(given) is None


def test_a_span_of_zeros_is_never_made(monkeypatch):
    monkeypatch.setattr(trace_context.os, "urandom", bytes)
    assert continued(GIVEN).split("-")[2] == "0" * 15 + "1"


@pytest.mark.parametrize(
    ("text", "found"),
    [(TRACE, TRACE), (GIVEN, TRACE), (TRACE[:-1], None), (TRACE.upper(), None), ("", None),
     (f"00-{TRACE}", None), (f"ff-{TRACE}-{SPAN}-01", None)],
)  # fmt: skip
def test_a_trace_is_known_by_its_id_or_its_traceparent(text, found):
    assert trace_id_of(text) == found
