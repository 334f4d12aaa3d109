"""What the prediction log keeps: answered predictions, shadow answers, failures, feedback."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import msgspec
import numpy as np

MINUTES = np.dtype("<f4")
# A column of minutes as MINUTES, or as numbers: so older releases wrote it. As digits they take as
# much time to write as all else of their rows, and three times the space.
Minutes = bytes | list[float]


# What is left out of a line of the spool is its default: so lines of older releases are read, and
# rides without traffic cost no more than they did.
class PredictionRow(msgspec.Struct, omit_defaults=True):
    """One answered prediction; the columns of the table `predictions`.

    `asked_at` is unix seconds (UTC), `pickup_at` ISO text in New York local time,
    `trip_distance` miles, `duration` and the quantiles minutes, `support` past trips,
    `model` is `name:version` and `arm` champion or challenger, `traceparent` what the answer
    said of the request's trace. `traffic` multiplied the model's own answer, `stretch_low` and
    `stretch_high` its interval below and above p50; that answer is in the `base_` columns
    (minutes), which are None where it was given unchanged.
    """

    prediction_id: str
    ride_id: str | None
    asked_at: float
    PULocationID: int
    DOLocationID: int
    pickup_at: str
    trip_distance: float | None
    duration: float
    p10: float
    p50: float
    p90: float
    support: int
    used_distance: bool
    model: str
    model_sha256: str
    arm: str
    latency_ms: float | None = None
    traceparent: str | None = None
    traffic: float = 1.0
    stretch_low: float = 1.0
    stretch_high: float = 1.0
    base_duration: float | None = None
    base_p10: float | None = None
    base_p50: float | None = None
    base_p90: float | None = None


class _Columns(msgspec.Struct, omit_defaults=True):
    """Many rows as columns of length n, and what they share."""

    def part(self, start: int, stop: int) -> Self:
        """Return the rows from start to stop."""
        columns: dict[str, Any] = {}
        for name, values in msgspec.structs.asdict(self).items():
            if isinstance(values, bytes):
                columns[name] = values[start * MINUTES.itemsize : stop * MINUTES.itemsize]
            elif isinstance(values, list):
                columns[name] = values[start:stop]
        return msgspec.structs.replace(self, **columns)

    def columns(self) -> list[list[Any]]:
        """Return the values of all rows, a list for each field.

        Raises:
            ValueError: the columns are of several lengths, or minutes are no numbers.
        """
        values = [
            read_minutes(v) if isinstance(v, bytes) else v for v in msgspec.structs.astuple(self)
        ]
        lengths = {len(v) for v in values if isinstance(v, list)}
        if len(lengths) > 1:
            raise ValueError(f"columns of {sorted(lengths)} rows")
        n = lengths.pop()
        return [v if isinstance(v, list) else [v] * n for v in values]


def write_minutes(minutes: np.ndarray) -> bytes:
    """Return float32 minutes, shape (n,), as a column of `Minutes`."""
    return minutes.astype(MINUTES).tobytes()


def read_minutes(column: bytes) -> list[float]:
    """Return the minutes that `write_minutes` was given.

    Raises:
        ValueError: they are cut off, or not finite: the tables would leave such a row out.
    """
    minutes = np.frombuffer(column, MINUTES)
    if not np.isfinite(minutes).all():
        raise ValueError("minutes that are not finite")
    numbers: list[float] = minutes.tolist()
    return numbers


class PredictionColumns(_Columns):
    """Many predictions of one model in one request; each a `PredictionRow`.

    `ride_id` is None when no ride has one.
    """

    prediction_id: list[str]
    ride_id: list[str | None] | None
    asked_at: float
    PULocationID: list[int]
    DOLocationID: list[int]
    pickup_at: list[str]
    trip_distance: list[float | None]
    duration: Minutes
    p10: Minutes
    p50: Minutes
    p90: Minutes
    support: list[int]
    used_distance: list[bool]
    model: str
    model_sha256: str
    arm: str
    latency_ms: float | None = None
    traceparent: str | None = None
    traffic: list[float] | float = 1.0
    stretch_low: list[float] | float = 1.0
    stretch_high: list[float] | float = 1.0
    base_duration: Minutes | None = None
    base_p10: Minutes | None = None
    base_p50: Minutes | None = None
    base_p90: Minutes | None = None


class ShadowRow(msgspec.Struct, omit_defaults=True):
    """What the other version of a test would have answered; the columns of `shadow_answers`."""

    prediction_id: str
    model: str
    model_sha256: str
    duration: float
    p10: float
    p50: float
    p90: float
    traffic: float = 1.0
    stretch_low: float = 1.0
    stretch_high: float = 1.0
    base_duration: float | None = None
    base_p10: float | None = None
    base_p50: float | None = None
    base_p90: float | None = None


class ShadowColumns(_Columns):
    """The other version's answers to many rides of one request; each a `ShadowRow`."""

    prediction_id: list[str]
    model: str
    model_sha256: str
    duration: Minutes
    p10: Minutes
    p50: Minutes
    p90: Minutes
    traffic: list[float] | float = 1.0
    stretch_low: list[float] | float = 1.0
    stretch_high: list[float] | float = 1.0
    base_duration: Minutes | None = None
    base_p10: Minutes | None = None
    base_p50: Minutes | None = None
    base_p90: Minutes | None = None


class FailureRow(msgspec.Struct):
    """A ride that a version could not answer; the columns of `model_failures`.

    `asked_as` is the arm that should have answered the rider, or `shadow`.
    """

    prediction_id: str
    model: str
    model_sha256: str
    asked_as: str
    error: str


class FeedbackResult(NamedTuple):
    """Prediction ids by what became of their feedback, each in the order given.

    `duplicate` had feedback before: the first true duration stays.
    """

    known: list[str]
    unknown: list[str]
    duplicate: list[str]


class LastTimes(NamedTuple):
    """When the log last got a ride and a true duration, unix seconds; None for never."""

    ride: float | None
    feedback: float | None
