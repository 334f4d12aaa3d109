"""POST /predict: one ride, an array of rides, or a Parquet file of them."""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response, request

from serve.bodies.errors import JSON, ApiError
from serve.bodies.json_text import JSON_TYPES
from serve.bodies.parquet import PARQUET_TYPES, read_rides
from serve.bodies.reading import media_type, read_body, wrong_type
from serve.bodies.ride_body import ManyRides, parse_rides
from serve.core.answering import Answering

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
            rides = parse_rides(read_body(request), answering.max_rides)
        elif kind in PARQUET_TYPES:
            rides = read_rides(read_body(request), answering.max_rides)
        else:
            raise wrong_type(kind, JSON, PARQUET_TYPES[0])
        explain = _wants_reasons()
        if not isinstance(rides, ManyRides):
            answers = answering.one(*rides, explain)
        elif explain:
            answers = [answering.one(*ride, explain) for ride in rides.each()]
        else:
            answers = answering.many(rides)
        return Response(_encode(answers), content_type=JSON)

    return blueprint


def _wants_reasons() -> bool:
    if not request.query_string:
        return False
    given = request.args.get("explain", "false").lower()
    if given not in ("true", "false", "1", "0"):
        raise ApiError(
            400, "bad_value", f"explain is {given[:40]!r}; it must be true or false", "explain"
        )
    return given in ("true", "1")
