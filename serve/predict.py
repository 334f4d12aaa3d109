"""POST /predict: one ride, an array of rides, or a Parquet file of them."""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response, request

from serve.answering import Answering
from serve.bodies import (
    JSON_TYPES,
    check_count,
    check_ride,
    check_rides,
    media_type,
    read_json,
    wrong_type,
)
from serve.errors import JSON, ApiError
from serve.parquet import PARQUET_TYPES, read_rides

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
        if kind in PARQUET_TYPES:
            rides = read_rides(request.get_data(cache=False), answering.max_rides)
            return Response(_encode(answering.columns(*rides)), content_type=JSON)
        if not JSON_TYPES.fullmatch(kind):
            raise wrong_type(kind, JSON, PARQUET_TYPES[0])
        content = read_json(request.get_data(cache=False))
        explain = _wants_reasons()
        if not isinstance(content, list):
            answer = answering.one(*check_ride(content), explain)
            return Response(_encode(answer), content_type=JSON)
        check_count(len(content), answering.max_rides)
        rides = check_rides(content)
        if explain:
            answers = [answering.one(*ride, explain) for ride in zip(*rides, strict=True)]
        else:
            answers = answering.many(*rides)
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
