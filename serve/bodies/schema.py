"""What goes in and out, declared once: it validates, and makes /openapi.json and /docs."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from taxi_duration.domain.limits import FIRST_ZONE, LAST_ZONE, LONGEST_FEEDBACK_MINUTES

MAX_MILES = 1_000_000  # meters recorded 244,152; above MAX_TRIP_MILES the model ignores it
MAX_ID = 100  # characters
YEARS = (2000, 2100)

# `gc=False`: made by the thousand, and never part of a cycle.

# Also the words in which an error says what is allowed.
ALLOWED = {
    "PULocationID": f"a TLC taxi zone, a whole number from {FIRST_ZONE} to {LAST_ZONE}",
    "DOLocationID": f"a TLC taxi zone, a whole number from {FIRST_ZONE} to {LAST_ZONE}",
    "trip_distance": f"miles, a number from 0 to {MAX_MILES}, or null when not known",
    "pickup_datetime": "an ISO date and time such as 2021-02-15T08:30:00 from year "
    f"{YEARS[0]} to {YEARS[1]}, New York local unless it has an offset; now when missing",
    "arrive": f"an ISO date and time such as 2021-02-15T08:30 from year {YEARS[0]} to "
    f"{YEARS[1]}, New York local unless it has an offset",
    "ride_id": f"your own id of the ride, text or a whole number of at most {MAX_ID} characters",
    "prediction_id": f"an id that /predict gave, 1 to {MAX_ID} ASCII characters",
    "duration": f"the true minutes, a number above 0 up to {LONGEST_FEEDBACK_MINUTES}",
}


class Ride(msgspec.Struct, gc=False):
    """A ride to be asked for; other fields are ignored."""

    PULocationID: Annotated[
        int, Meta(ge=FIRST_ZONE, le=LAST_ZONE, description=ALLOWED["PULocationID"], examples=[10])
    ]
    DOLocationID: Annotated[
        int, Meta(ge=FIRST_ZONE, le=LAST_ZONE, description=ALLOWED["DOLocationID"], examples=[50])
    ]
    trip_distance: (
        Annotated[
            float, Meta(ge=0, le=MAX_MILES, description=ALLOWED["trip_distance"], examples=[4.5])
        ]
        | None
    ) = None
    pickup_datetime: (
        Annotated[
            str,
            Meta(
                max_length=40,
                description=ALLOWED["pickup_datetime"],
                examples=["2021-02-15T08:30:00"],
            ),
        ]
        | None
    ) = None
    ride_id: (
        Annotated[str, Meta(max_length=MAX_ID, description=ALLOWED["ride_id"])] | int | None
    ) = None


class Interval(msgspec.Struct, gc=False):
    """Minutes that one in ten, half and nine in ten such rides stay under."""

    p10: float
    p50: float
    p90: float


class Reason(msgspec.Struct):
    """What a part of the answer comes from; the minutes of all reasons add up to it."""

    name: str
    minutes: float


class RideAnswer(msgspec.Struct, gc=False):
    """The answer to a ride."""

    duration: Annotated[float, Meta(description="minutes")]
    interval: Interval
    support: Annotated[int, Meta(description="past trips from zone to zone it rests on")]
    model: Annotated[str, Meta(description="name:version", examples=["green-duration:7"])]
    arm: Annotated[str, Meta(description="champion or challenger")]
    prediction_id: Annotated[str, Meta(description="give it back with the true duration")]
    used_distance: Annotated[bool, Meta(description="false when none, or no possible one, came")]
    ride_id: str | int | UnsetType = UNSET
    reasons: list[Reason] | UnsetType = UNSET
    logged: Annotated[
        bool | UnsetType, Meta(description="false when the prediction log cannot be written")
    ] = UNSET


class Feedback(msgspec.Struct):
    """How long a ride truly took."""

    prediction_id: Annotated[
        str,
        Meta(
            max_length=MAX_ID,
            pattern="^[!-~]+$",
            description=ALLOWED["prediction_id"],
            examples=["0193f5c1a2b34c5d6e7f8091a2b3c4d5"],
        ),
    ]
    duration: Annotated[
        float,
        Meta(gt=0, le=LONGEST_FEEDBACK_MINUTES, description=ALLOWED["duration"], examples=[18.5]),
    ]


class FeedbackAnswer(msgspec.Struct):
    """Ids by what became of their feedback; `duplicate` had some before, which stays."""

    known: list[str]
    unknown: list[str]
    duplicate: list[str]


class Hour(msgspec.Struct):
    """The answer for a start at this hour."""

    hour: int
    duration: float
    interval: Interval


class Profile(msgspec.Struct):
    """A day from zone to zone."""

    PULocationID: int
    DOLocationID: int
    date: str
    model: str
    hours: list[Hour]


class LeaveBy(msgspec.Struct):
    """The latest start that is in time with the asked probability."""

    PULocationID: int
    DOLocationID: int
    arrive: str
    leave_by: str
    p: float
    minutes: Annotated[float, Meta(description="that the ride stays under with probability p")]
    model: str


class Served(msgspec.Struct):
    """What is serving: cards of champion and challenger."""

    model: str
    champion: dict[str, Any]
    challenger: dict[str, Any] | None
    ab_share: float
    shadow: Annotated[bool, Meta(description="both answer every ride, one for the log alone")]
    baking: Annotated[bool, Meta(description="the challenger is the champion before")]
    trouble: Annotated[str | None, Meta(description="why a newer deployment was refused")]


class Error(msgspec.Struct):
    """What is wrong with a request."""

    code: str
    message: str
    field: str | None
    element: Annotated[int | UnsetType, Meta(description="position in an array, from 0")] = UNSET


class ErrorBody(msgspec.Struct):
    """The body of every answer that is not 200."""

    error: Error


class State(msgspec.Struct):
    """Whether the service is well; `problems` is empty when it is."""

    status: str
    model: str | None
    problems: list[str]


class MlflowPrediction(msgspec.Struct):
    """One row of what the registered model answers under MLflow."""

    duration: float
    p10: float
    p50: float
    p90: float
    support: int
    used_distance: bool


class InvocationsAnswer(msgspec.Struct):
    """The answer of MLflow's protocol, and the ids for /feedback."""

    predictions: list[MlflowPrediction]
    prediction_ids: list[str]
