"""POST /predict: one ride, an array of rides, or a Parquet file of them."""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response, request

from serve.bodies.errors import JSON, ApiError
from serve.bodies.json_text import JSON_TYPES
from serve.bodies.parquet import PARQUET_TYPES, read_rides
from serve.bodies.query import check_names
from serve.bodies.reading import media_type, read_body, wrong_type
from serve.bodies.ride_body import parse_rides
from serve.bodies.schema import RideAnswer
from serve.core.answering import Answering
from serve.headers import traceparent
from taxi_duration.domain.asked_rides import CheckedRide, ManyRides

_encode = msgspec.json.Encoder().encode


def predict_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("predict", __name__)

    @blueprint.post("/predict")
    def predict() -> Response:
        kind = request.content_type
        # Spares the usual case the parsing of the header.
        if kind != JSON or "HTTP_CONTENT_ENCODING" in request.environ:
            kind = media_type(request)
        if kind == JSON or JSON_TYPES.fullmatch(kind):
            trace = traceparent(request.environ)
            content = predict_json(answering, read_body(request), _wants_reasons(), trace)
        elif kind in PARQUET_TYPES:
            rides = read_rides(read_body(request), answering.limits.rides)
            trace = traceparent(request.environ)
            content = _encode(_answers(answering, rides, _wants_reasons(), trace))
        else:
            raise wrong_type(kind, JSON, PARQUET_TYPES[0])
        return Response(content, content_type=JSON)

    return blueprint


def predict_json(
    answering: Answering, body: bytes, explain: bool = False, trace: str | None = None
) -> bytes:
    """Return the answer to a JSON body, as JSON; an ApiError says what is wrong with it."""
    return _encode(_answers(answering, parse_rides(body, answering.limits.rides), explain, trace))


def _answers(
    answering: Answering, rides: CheckedRide | ManyRides, explain: bool, trace: str | None
) -> RideAnswer | list[RideAnswer]:
    if not isinstance(rides, ManyRides):
        ride, pickup_at, ignored = rides
        answer = answering.one(ride, pickup_at, explain, trace)
        if ignored:
            answer.ignored = ignored
        return answer
    answers = answering.many(rides, explain, trace)
    for i, ignored in (rides.ignored or {}).items() if answers else ():
        if ignored:
            answers[i].ignored = ignored
    return answers


def _wants_reasons() -> bool:
    if not request.query_string:
        return False
    check_names("explain")
    given = request.args.get("explain", "false").lower()
    if given not in ("true", "false", "1", "0"):
        raise ApiError(
            400, "bad_value", f"explain is {given[:40]!r}; it must be true or false", "explain"
        )
    return given in ("true", "1")
