"""The limits of a ride that everything keeps to, each stated once."""

from __future__ import annotations

from typing import Any

# The public course's rule: only trips of 1 to 60 minutes are learned from and scored.
SHORTEST_MINUTES, LONGEST_MINUTES = 1.0, 60.0
TRIP_MINUTES = (SHORTEST_MINUTES, LONGEST_MINUTES)
# Longer durations are refused at the door: a week of minutes is no ride's.
LONGEST_FEEDBACK_MINUTES = 10_000
# Longer distances are meter faults: up to 244,152 miles were recorded in green 2021-01.
MAX_TRIP_MILES = 100.0
# TLC's LocationIDs; the last two are its own words for "Unknown" and "Outside of NYC".
FIRST_ZONE, LAST_ZONE = 1, 265
UNKNOWN_ZONE, OUTSIDE_ZONE = 264, 265
ZONE_RANGE = f"{FIRST_ZONE}-{LAST_ZONE}"  # in words


def can_be_miles(miles: Any) -> Any:
    """True for distances that a ride may have, numbers or arrays; not for NaN."""
    return (miles > 0) & (miles <= MAX_TRIP_MILES)


def is_zone(zone: int) -> bool:
    """True for the number of a taxi zone, and of TLC's two that lie nowhere."""
    return FIRST_ZONE <= zone <= LAST_ZONE
