"""What goes out, and feedback, declared once: it validates, and makes /openapi.json and /docs.

What a ride may say is `Ride` in `taxi_duration/domain/asked_rides.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from taxi_duration.domain.limits import LONGEST_FEEDBACK_MINUTES
from taxi_duration.domain.refused_values import ALLOWED, MAX_ID

# `gc=False`: made by the thousand, and never part of a cycle.


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
    used_distance: Annotated[bool, Meta(description="false when none, or an impossible one, came")]
    ride_id: str | int | UnsetType = UNSET
    reasons: list[Reason] | UnsetType = UNSET
    logged: Annotated[
        bool | UnsetType, Meta(description="false when the prediction log cannot be written")
    ] = UNSET
    ignored: Annotated[
        list[str] | UnsetType,
        Meta(description="fields that are not read; of a Parquet file, in the first answer"),
    ] = UNSET
    impossible_distance: Annotated[
        bool | UnsetType,
        Meta(
            description="true when a distance came that no ride between these zones can have: "
            "the answer is the one without a distance"
        ),
    ] = UNSET
    traffic: Annotated[
        float | UnsetType, Meta(description="factor of the traffic now, while it is not 1")
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


class ZoneReached(msgspec.Struct, gc=False):
    """The answer for a ride to this zone."""

    DOLocationID: int
    duration: float
    interval: Interval
    support: int


class Reach(msgspec.Struct):
    """Every zone that is a place, 1 to 263, as reached from one of them."""

    PULocationID: int
    when: Annotated[str, Meta(description="of the start, New York local")]
    model: str
    zones: list[ZoneReached]


class LeaveBy(msgspec.Struct):
    """The latest start that is in time with the asked probability."""

    PULocationID: int
    DOLocationID: int
    arrive: str
    leave_by: Annotated[
        str, Meta(description="New York local; with its offset in the hour that comes twice")
    ]
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
    traffic: float | UnsetType = UNSET


class InvocationsAnswer(msgspec.Struct):
    """The answer of MLflow's protocol, and the ids for /feedback."""

    predictions: list[MlflowPrediction]
    prediction_ids: list[str]
    ignored: Annotated[
        list[str] | UnsetType, Meta(description="fields or columns that are not read")
    ] = UNSET


class InferTensor(msgspec.Struct):
    """A column of rides, for the Open Inference Protocol."""

    name: Annotated[str, Meta(description="a field of a ride", examples=["PULocationID"])]
    shape: Annotated[list[int], Meta(description="[n], n rides", examples=[[1]])]
    datatype: Literal[
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
        "FP16", "FP32", "FP64", "BYTES",
    ]  # fmt: skip
    data: list[Any] | UnsetType = UNSET
    parameters: dict[str, Any] = {}


class InferOutput(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """A question of the Open Inference Protocol."""

    inputs: list[InferTensor]
    id: str | UnsetType = UNSET
    outputs: Annotated[list[InferOutput] | UnsetType, Meta(description="all when left out")] = UNSET
    parameters: dict[str, Any] = {}


class InferAnswer(msgspec.Struct):
    """Its answer, a tensor of n for each output."""

    model_name: str
    outputs: list[InferTensor]
    model_version: Annotated[
        str | UnsetType, Meta(description="left out where two versions share the rides of a test")
    ] = UNSET
    id: str | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET


class TensorMetadata(msgspec.Struct):
    """What an input or an output is called, and of which kind it is."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """A model in service, as the Open Inference Protocol describes it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(msgspec.Struct):
    """This service, as the Open Inference Protocol describes it."""

    name: str
    version: str
    extensions: list[str]


class Live(msgspec.Struct):
    """The process is alive."""

    live: bool


class Ready(msgspec.Struct):
    """Whether the service, or the model of this name, can answer."""

    ready: bool
    name: str | UnsetType = UNSET


class PlainError(msgspec.Struct):
    """The body of every answer below /v2 that is not 200."""

    error: str
