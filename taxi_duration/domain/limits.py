"""The limits of a ride that everything keeps to, each stated once."""

from __future__ import annotations

# The public course's rule: only trips of 1 to 60 minutes are learned from and scored.
SHORTEST_MINUTES, LONGEST_MINUTES = 1.0, 60.0
TRIP_MINUTES = (SHORTEST_MINUTES, LONGEST_MINUTES)
# Longer distances are meter faults: up to 244,152 miles were recorded in green 2021-01.
MAX_TRIP_MILES = 100.0
