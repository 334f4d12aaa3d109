"""POST /invocations and GET /ping: MLflow's (and SageMaker's) scoring protocol.

Takes what `mlflow models serve` takes for the same model and answers as it does; the ids
under which the predictions are logged come beside them.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from serve.bodies.errors import JSON, ApiError, json_response
from serve.bodies.json_text import JSON_TYPES, read_json
from serve.bodies.parquet import PARQUET_TYPES, read_rides
from serve.bodies.reading import check_count, decode_text, media_type, read_body, wrong_type
from serve.bodies.ride_body import check_rides
from serve.bodies.schema import InvocationsAnswer, MlflowPrediction, Ride, RideAnswer
from serve.core.answering import Answering

CSV = "text/csv"
FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
FIELDS = tuple(field.name for field in msgspec.structs.fields(Ride))
Frame = list[dict[str, Any]]


def invocations_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("invocations", __name__)

    @blueprint.post("/invocations")
    def invocations() -> Response:
        kind, body = media_type(request), read_body(request)
        if kind in PARQUET_TYPES:
            return _response(answering.many(read_rides(body, answering.limits.rides)))
        if kind == CSV:
            frame = _from_csv(decode_text(body).removeprefix("\ufeff"))
        elif JSON_TYPES.fullmatch(kind):
            frame = _from_json(read_json(body, of_a_frame=True))
        else:
            raise wrong_type(kind, JSON, CSV, PARQUET_TYPES[0])
        check_count(len(frame), answering.limits.rides)
        return _response(answering.many(check_rides(frame)))

    return blueprint


def ping_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint; /ping needs no key."""
    blueprint = Blueprint("ping", __name__)

    @blueprint.get("/ping")
    def ping() -> Response:
        answering.serving()
        return Response("\n", content_type="text/plain")

    return blueprint


def _response(answers: list[RideAnswer]) -> Response:
    predictions = [
        MlflowPrediction(
            a.duration, a.interval.p10, a.interval.p50, a.interval.p90, a.support, a.used_distance
        )
        for a in answers
    ]
    return json_response(InvocationsAnswer(predictions, [a.prediction_id for a in answers]))


def _from_json(content: Any) -> Frame:
    given = [name for name in FORMATS if isinstance(content, dict) and name in content]
    if len(given) != 1:
        raise ApiError(
            400, "bad_value", f"an object with exactly one of {', '.join(FORMATS)} is expected"
        )
    value = content[given[0]]
    if given[0] == "dataframe_split":
        return _from_split(value)
    if isinstance(value, dict) and given[0] != "dataframe_records":
        return _from_columns(value, given[0])
    if isinstance(value, list):
        return [_known(row) if isinstance(row, dict) else row for row in value]
    raise ApiError(400, "bad_value", f"{given[0]} must be an array of objects", given[0])


def _from_split(value: Any) -> Frame:
    name = "dataframe_split"
    columns = value.get("columns") if isinstance(value, dict) else None
    rows = value.get("data") if isinstance(value, dict) else None
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise ApiError(400, "bad_value", f"{name} must have arrays `columns` and `data`", name)
    if not all(isinstance(column, str) for column in columns):
        raise ApiError(400, "bad_value", f"{name}.columns must be names", name)
    if len(set(columns)) != len(columns):
        raise ApiError(400, "bad_value", f"a column comes twice in {name}.columns", name)
    frame = []
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            raise ApiError(
                400, "bad_value", f"a row of {name}.data must have {len(columns)} values", name, i
            )
        frame.append(_known(dict(zip(columns, row, strict=True))))
    return frame


def _from_columns(value: dict[str, Any], name: str) -> Frame:
    """Rows of `{"PULocationID": [10, 11], …}`; plain values make one row."""
    columns = {key: v if isinstance(v, list) else [v] for key, v in value.items() if key in FIELDS}
    if len({len(column) for column in columns.values()}) > 1:
        raise ApiError(400, "bad_value", f"the columns of {name} must be of one length", name)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _from_csv(text: str) -> Frame:
    """Rows of a CSV file with a header; empty and `NaN` are missing."""
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise ApiError(400, "bad_csv", f"the body is not CSV: {error}") from None
    if not rows:
        raise ApiError(400, "bad_csv", "the body is empty; a header and rows are expected")
    header, *rest = rows
    if len(set(header)) != len(header):
        raise ApiError(400, "bad_csv", "a column comes twice in the header")
    frame = []
    for i, row in enumerate(row for row in rest if row):
        if len(row) != len(header):
            raise ApiError(400, "bad_csv", f"{len(row)} values under {len(header)} names",
                           None, i)  # fmt: skip
        frame.append({k: _from_cell(k, v) for k, v in zip(header, row, strict=True) if k in FIELDS})
    return frame


def _from_cell(name: str, text: str) -> Any:
    """A cell as its column's type; what is not of it stays text, and the check says so."""
    if text in ("", "NaN", "nan", "NA", "null"):
        return None
    if name in ("pickup_datetime", "ride_id"):
        return text
    try:
        return float(text)
    except ValueError:
        return text


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in FIELDS if name in row}
