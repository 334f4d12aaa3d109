"""Rides as columns: the one shape in which training, batch scoring and the service ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

NEW_YORK = ZoneInfo("America/New_York")


@dataclass(frozen=True)
class Rides:
    """Columns of n rides, each of shape (n,); all that is known when a rider asks.

    Zones are int16 (1-265), `pickup_at` is datetime64[s] in New York local time,
    `trip_distance` is float32 miles, NaN when not given.
    """

    PULocationID: np.ndarray
    DOLocationID: np.ndarray
    pickup_at: np.ndarray
    trip_distance: np.ndarray

    def __len__(self) -> int:
        return len(self.PULocationID)

    @classmethod
    def from_frame(cls, trips: Any) -> Rides:
        """Take the columns from a frame of trips (see `read_dataframe`)."""
        return cls(
            trips["PULocationID"].to_numpy(dtype="int16"),
            trips["DOLocationID"].to_numpy(dtype="int16"),
            trips["pickup_at"].to_numpy().astype("datetime64[s]"),
            trips["trip_distance"].to_numpy(dtype="float32"),
        )

    @classmethod
    def from_dicts(cls, rides: Iterable[Mapping[str, Any]]) -> Rides:
        """Take the columns from ride dicts as the service accepts them (already checked).

        `trip_distance` may be missing or None; `pickup_datetime` may be missing (now), a
        datetime or ISO text.
        """
        rides = list(rides)
        return cls(
            np.array([ride["PULocationID"] for ride in rides], dtype="int16"),
            np.array([ride["DOLocationID"] for ride in rides], dtype="int16"),
            np.array(
                [local_time(ride.get("pickup_datetime")) for ride in rides], dtype="datetime64[s]"
            ),
            np.array(
                [_miles(ride.get("trip_distance")) for ride in rides],
                dtype="float32",
            ),
        )

    def take(self, rows: np.ndarray | slice) -> Rides:
        """Return the rides at these positions or under this mask."""
        return Rides(
            self.PULocationID[rows],
            self.DOLocationID[rows],
            self.pickup_at[rows],
            self.trip_distance[rows],
        )

    def without_distance(self) -> Rides:
        """Return the same rides as if no distance had been given."""
        unknown = np.full(len(self), np.nan, dtype="float32")
        return Rides(self.PULocationID, self.DOLocationID, self.pickup_at, unknown)


class Answer(NamedTuple):
    """The answer to one ride; minutes, `support` in past trips."""

    duration: float
    p10: float
    p50: float
    p90: float
    support: int
    used_distance: bool


@dataclass(frozen=True)
class Answers:
    """The answers to n rides, each of shape (n,): float32 minutes, int32 trips, bool."""

    duration: np.ndarray
    p10: np.ndarray
    p50: np.ndarray
    p90: np.ndarray
    support: np.ndarray
    used_distance: np.ndarray

    def __len__(self) -> int:
        return len(self.duration)

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Return the answers of all parts, at least one, one behind the other."""
        names = [column.name for column in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _miles(value: float | None) -> float:
    return np.nan if value is None else value


def local_time(value: datetime | str | None) -> datetime:
    """Return a naive New York time, to the second; None means now.

    A time with an offset is converted; one without is taken as New York local, as TLC
    records it.

    Raises:
        ValueError: text that is not an ISO date and time.
    """
    if value is None:
        value = datetime.now(NEW_YORK)
    elif isinstance(value, str):
        value = datetime.fromisoformat(value)
    if value.tzinfo is not None:
        value = value.astimezone(NEW_YORK).replace(tzinfo=None)
    return value.replace(microsecond=0)
