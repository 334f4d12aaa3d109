"""Riders of a city slower than any model learned; what they tell owes nothing to the answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import pandas as pd

from taxi_duration.data.sample import make_sample_month
from taxi_duration.domain.limits import LONGEST_FEEDBACK_MINUTES
from taxi_duration.domain.rides import NEW_YORK

SLOWER = 1.3  # than the months that models learned from
MONTH, ROWS = "2021-03", 20_000  # of the generated city; models learn from earlier ones
# The generated month has its own noise and strays: false starts, meters left running, lost clocks.
BUSY = (9, 17)  # hours of a weekday; at night, too: whenever tests run they find one traffic
CALL = 25  # rides that one fleet tells of at once
SPOILED = 12  # every such fleet counts in seconds


class SlowCity:
    """Rides of a generated month, asked as if of now, and what each takes in this city."""

    def __init__(self) -> None:
        self._minutes: dict[str, float] = {}

    @cached_property
    def _rides(self) -> list[dict[str, Any]]:
        """Rides of the busy hours; every row with a time and a place."""
        table = make_sample_month("green", MONTH, ROWS).to_pandas()
        start, end = table["lpep_pickup_datetime"], table["lpep_dropoff_datetime"]
        rows = pd.DataFrame(
            {"PULocationID": table["PULocationID"], "DOLocationID": table["DOLocationID"],
             "trip_distance": table["trip_distance"].clip(0, 1000).round(2),
             "minutes": (end - start).dt.total_seconds() / 60}
        )  # fmt: skip
        is_busy = (start.dt.day_of_week < 5) & start.dt.hour.between(*BUSY)
        return rows[is_busy & (end > start)].dropna().to_dict("records")

    def ride(self, n: int, minutes_ago: float) -> dict[str, Any]:
        """Return the n-th ride, asked as of so many minutes ago."""
        at = datetime.now(UTC).astimezone(NEW_YORK) - timedelta(minutes=minutes_ago)
        row = self._rides[n % len(self._rides)]
        asked = {name: row[name] for name in ("PULocationID", "DOLocationID", "trip_distance")}
        self._minutes[f"ride-{n}"] = SLOWER * row["minutes"]
        when = at.strftime("%Y-%m-%dT%H:%M:%S")
        return {"ride_id": f"ride-{n}", **asked, "pickup_datetime": when}

    def told(self, answer: dict[str, Any], factor: float = 1.0) -> dict[str, Any]:
        """Return the feedback on an answer: what the ride took, by a clock off by a factor."""
        minutes = factor * self._minutes[answer["ride_id"]]
        return {
            "prediction_id": answer["prediction_id"],
            "duration": min(minutes, LONGEST_FEEDBACK_MINUTES),
        }

    def calls(self, answers: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        """Yield what each fleet tells in one call."""
        for call, first in enumerate(range(0, len(answers), CALL)):
            factor = 60.0 if call % SPOILED == SPOILED - 1 else 1.0
            yield [self.told(answer, factor) for answer in answers[first : first + CALL]]
