"""POST /invocations and GET /ping: MLflow's (and SageMaker's) scoring protocol.

Takes what `mlflow models serve` takes for the same model and answers as it does; the ids
under which the predictions are logged come beside them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from flask import Blueprint, Response, request
from msgspec import UNSET

from serve.bodies.errors import JSON, ApiError, json_response
from serve.bodies.json_text import JSON_TYPES, read_json
from serve.bodies.parquet import PARQUET_TYPES, read_rides
from serve.bodies.reading import check_count, decode_text, media_type, read_body, wrong_type
from serve.bodies.schema import InvocationsAnswer, MlflowPrediction, RideAnswer
from serve.core.answering import Answering
from serve.headers import traceparent
from taxi_duration.domain.asked_rides import (
    MAX_IGNORED,
    ManyRides,
    check_rides,
    check_table,
    find_ride_columns,
    from_text,
)

CSV = "text/csv"
FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def invocations_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("invocations", __name__)

    @blueprint.post("/invocations")
    def invocations() -> Response:
        kind, body, most = media_type(request), read_body(request), answering.limits.rides
        if kind in PARQUET_TYPES:
            rides = read_rides(body, most)
        elif kind == CSV:
            rides = _from_csv(decode_text(body), most)
        elif JSON_TYPES.fullmatch(kind):
            rides = _from_json(read_json(body, of_a_frame=True), most)
        else:
            raise wrong_type(kind, JSON, CSV, PARQUET_TYPES[0])
        answers = answering.many(rides, trace=traceparent(request.environ))
        return _response(answers, rides.ignored or {})

    return blueprint


def ping_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint; /ping needs no key."""
    blueprint = Blueprint("ping", __name__)

    @blueprint.get("/ping")
    def ping() -> Response:
        answering.serving()
        return Response("\n", content_type="text/plain")

    return blueprint


def _response(answers: list[RideAnswer], ignored: dict[int, list[str]]) -> Response:
    predictions = [
        MlflowPrediction(
            a.duration,
            a.interval.p10,
            a.interval.p50,
            a.interval.p90,
            a.support,
            a.used_distance,
            a.traffic,
        )
        for a in answers
    ]
    ids = [a.prediction_id for a in answers]
    names = list(dict.fromkeys(name for of_ride in ignored.values() for name in of_ride))
    return json_response(InvocationsAnswer(predictions, ids, names[:MAX_IGNORED] or UNSET))


def _from_json(content: Any, most: int) -> ManyRides:
    given = [name for name in FORMATS if isinstance(content, dict) and name in content]
    if len(given) != 1:
        raise ApiError(
            400, "bad_value", f"an object with exactly one of {', '.join(FORMATS)} is expected"
        )
    value = content[given[0]]
    if given[0] == "dataframe_split":
        return _from_split(value, most)
    if isinstance(value, dict) and given[0] != "dataframe_records":
        return _from_columns(value, given[0], most)
    if isinstance(value, list):
        check_count(len(value), most)
        return check_rides(value)
    raise ApiError(400, "bad_value", f"{given[0]} must be an array of objects", given[0])


def _from_split(value: Any, most: int) -> ManyRides:
    name = "dataframe_split"
    columns = value.get("columns") if isinstance(value, dict) else None
    rows = value.get("data") if isinstance(value, dict) else None
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise ApiError(400, "bad_value", f"{name} must have arrays `columns` and `data`", name)
    if not all(isinstance(column, str) for column in columns):
        raise ApiError(400, "bad_value", f"{name}.columns must be names", name)
    check_count(len(rows), most)

    def checked() -> Iterator[list[Any]]:
        for i, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != len(columns):
                message = f"a row of {name}.data must have {len(columns)} values"
                raise ApiError(400, "bad_value", message, name, i)
            yield row

    return check_table(columns, checked())


def _from_columns(value: dict[str, Any], name: str, most: int) -> ManyRides:
    """Rides of `{"PULocationID": [10, 11], …}`; plain values make one row."""
    found = find_ride_columns(list(value))
    chosen = [list(value.values())[i] for i in found.positions.values()]
    columns = [column if isinstance(column, list) else [column] for column in chosen]
    if len({len(column) for column in columns}) > 1:
        raise ApiError(400, "bad_value", f"the columns of {name} must be of one length", name)
    check_count(len(columns[0]), most)
    return check_table(list(found.positions), zip(*columns, strict=True), found.ignored)


def _from_csv(text: str, most: int) -> ManyRides:
    """Rides of a CSV file with a header."""
    try:
        # Strict: a quotation mark that is not closed would take the rides behind it.
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise ApiError(400, "bad_csv", f"the body is not CSV: {error}") from None
    if not rows:
        raise ApiError(400, "bad_csv", "the body is empty; a header and rows are expected")
    header, *rest = rows
    found = find_ride_columns(header)
    rest = [row for row in rest if row]
    check_count(len(rest), most)

    def cells() -> Iterator[Sequence[Any]]:
        for i, row in enumerate(rest):
            if len(row) != len(header):
                message = f"{len(row)} values under {len(header)} names"
                raise ApiError(400, "bad_csv", message, None, i)
            yield [from_text(field, row[at]) for field, at in found.positions.items()]

    return check_table(list(found.positions), cells(), found.ignored)
