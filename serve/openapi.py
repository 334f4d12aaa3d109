"""The OpenAPI document, made from the schema that validates (`schema.py`)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from serve.bodies import schema
from serve.bodies.parquet import PARQUET_TYPES
from serve.openapi_examples import FROM_TO, ID, RIDE, add_examples
from taxi_duration.domain.asked_rides import Ride
from taxi_duration.domain.limits import FIRST_ZONE, LAST_ZONE
from taxi_duration.domain.refused_values import ALLOWED

COMPONENTS = (
    Ride, schema.RideAnswer, schema.Feedback, schema.FeedbackAnswer, schema.Served,
    schema.State, schema.Profile, schema.LeaveBy, schema.Reach, schema.ErrorBody,
    schema.InvocationsAnswer, schema.ServerMetadata, schema.ModelMetadata, schema.InferRequest,
    schema.InferAnswer, schema.Live, schema.Ready, schema.PlainError,
)  # fmt: skip
REF = "#/components/schemas/{name}"
JSON = "application/json"
BINARY = {PARQUET_TYPES[0]: {"schema": {"type": "string", "format": "binary"}}}
MODEL, OF_VERSION = "/v2/models/{name}", "/versions/{version}"
KEYED = (
    "/predict",
    "/feedback",
    "/invocations",
    "/profile",
    "/leave-by",
    "/reach",
    "/v2",
    *(f"{MODEL}{which}{what}" for which in ("", OF_VERSION) for what in ("", "/infer")),
)
INSIDE = ("/model", "/metrics", "/monitor", "/monitor/report", "/monitor/data")
TRACE = {
    "name": "traceparent", "in": "header", "required": False, "schema": {"type": "string"},
    "description": "W3C Trace Context; the answer and the log continue a valid one",
}  # fmt: skip
NO_KEY = {"401": "no key, or a wrong one"}
TENSORS = [
    {"name": field, "shape": [1], "datatype": "INT64", "data": [zone]}
    for field, zone in FROM_TO.items()
]


def openapi(keyed: bool) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document.

    Args:
        keyed: asking, feedback and the inside need an API key.
    """
    _, components = msgspec.json.schema_components(COMPONENTS, ref_template=REF)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "NYC taxi trip duration",
            "version": "1",
            "description": "Minutes from zone to zone, with an interval that was checked.",
        },
        "paths": _paths(),
        "components": {"schemas": components},
    }
    if keyed:
        document["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}
        }
        for path in (*KEYED, *INSIDE):
            for operation in document["paths"][path].values():
                operation["security"] = [{"key": []}]
    return document


def _paths() -> dict[str, Any]:
    paths = {
        **_asking(), **_planning(), **_scoring(), **_open_inference(), **_state(), **_for_people(),
    }  # fmt: skip
    for path, operations in paths.items():
        words = "_".join(re.findall(r"\w+", path)) or "page"
        for verb, operation in operations.items():
            operation["operationId"] = f"{verb}_{words}"  # how generated clients call it
    add_examples(paths)
    return paths


def _asking() -> dict[str, Any]:
    feedback = {"prediction_id": ID, "duration": 18.5}
    explain = _parameter("explain", {"type": "boolean"}, "also give reasons in minutes")
    return {
        "/predict": _post(
            "How long does it take?",
            "One ride, an array of rides, or a Parquet file of them (a row each; `ride_id` is not "
            "read from Parquet). An array answers in its order. TLC's own names are understood; "
            "other fields are named in `ignored`.",
            {JSON: {"schema": _one_or_many("Ride"), "example": RIDE}, **BINARY},
            _one_or_many("RideAnswer"),
            *(400, 401, 408, 413, 415, 422, 503),
            parameters=[explain],
        ),
        "/feedback": _post(
            "How long did it take?",
            "True durations of predictions. Safe to repeat; the first stays.",
            {JSON: {"schema": _one_or_many("Feedback"), "example": feedback}},
            _ref("FeedbackAnswer"),
            *(400, 401, 408, 413, 415, 503),
        ),
    }


def _planning() -> dict[str, Any]:
    zones = [_zone("PULocationID"), _zone("DOLocationID")]
    day = {"type": "string", "examples": ["2021-02-15"]}
    moment = {"type": "string", "examples": ["2021-02-15T08:30"]}
    chance = {"type": "number", "minimum": 0.1, "maximum": 0.9, "examples": [0.9]}
    return {
        "/profile": _get(
            "How does the day go?", _ref("Profile"), 400, 401, 503,
            description="The answer for a start at each of the 24 hours.",
            parameters=[*zones, _parameter("date", day, "a day; today")],
        ),
        "/reach": _get(
            "How far do I get?", _ref("Reach"), 400, 401, 503,
            description="The answer for a ride from a zone to each of the 263 that are a place.",
            parameters=[zones[0], _parameter("when", moment, ALLOWED["when"])],
        ),
        "/leave-by": _get(
            "When must I leave?", _ref("LeaveBy"), 400, 401, 503,
            description="The latest start that arrives in time with probability p.",
            parameters=[
                *zones,
                _parameter("arrive", moment, ALLOWED["arrive"], required=True),
                _parameter("p", chance, "default 0.9"),
            ],
        ),
    }  # fmt: skip


def _scoring() -> dict[str, Any]:
    frame = {"schema": {"type": "object"}, "example": {"dataframe_records": [RIDE]}}
    return {
        "/invocations": _post(
            "MLflow's scoring protocol",
            "`dataframe_split`, `dataframe_records`, `instances`, `inputs`, CSV or Parquet, as "
            "`mlflow models serve` takes them.",
            {JSON: frame, "text/csv": {"schema": {"type": "string"}}, **BINARY},
            _ref("InvocationsAnswer"),
            *(400, 401, 408, 413, 415, 422, 503),
        ),
        "/ping": _text(
            "MLflow's and SageMaker's health check", "text/plain", {"503": "no model yet"}
        ),
    }


def _open_inference() -> dict[str, Any]:
    """The Open Inference Protocol; its errors have a form of their own."""
    name = _in_path("name", "of the registered model", "green-duration")
    version = _in_path("version", "of a version that answers riders", "7")
    paths = {
        "/v2": _get("Open Inference Protocol: the server", _ref("ServerMetadata"), 401),
        "/v2/health/live": _get("Is the process alive?", _ref("Live")),
        "/v2/health/ready": _get("Can it answer, and log what it answers?", _ref("Ready"), 503),
    }
    for which, parameters in ((MODEL, [name]), (MODEL + OF_VERSION, [name, version])):
        paths[which] = _get("Its inputs and outputs", _ref("ModelMetadata"), 401, 404, 503,
                            parameters=parameters)  # fmt: skip
        paths[f"{which}/ready"] = _get("Does it answer riders?", _ref("Ready"), 404, 503,
                                       parameters=parameters)  # fmt: skip
        paths[f"{which}/infer"] = _post(
            "Open Inference Protocol: a tensor of n for each column of n rides",
            "Columns are named as the fields of a ride. Tensors are JSON, or bytes behind it "
            "(Triton's extension `binary_tensor_data`).",
            {JSON: {"schema": _ref("InferRequest"), "example": {"inputs": TENSORS}}},
            _ref("InferAnswer"),
            *(400, 401, 404, 408, 413, 415, 503),
            parameters=parameters,
        )
    for operation in (operation for path in paths.values() for operation in path.values()):
        for status, response in operation["responses"].items():
            if status != "200":
                response["content"][JSON]["schema"] = _ref("PlainError")
    not_ready = _response(_ref("Ready"), "not ready; /ready says why")
    paths["/v2/health/ready"]["get"]["responses"]["503"] = not_ready
    return paths


def _state() -> dict[str, Any]:
    ready = {
        "200": _response(_ref("State"), "ready"),
        "503": _response(_ref("State"), "not ready; `problems` says why"),
    }
    return {
        "/model": _get("What is serving?", _ref("Served"), 401, 503),
        "/health": _get("Is the process alive?", _ref("State")),
        "/ready": {
            "get": {"summary": "Can it answer, and log what it answers?", "responses": ready}
        },
        "/metrics": _text("Prometheus metrics of the whole service", "text/plain", NO_KEY),
        "/openapi.json": _get("This document", {"type": "object"}),
    }


def _for_people() -> dict[str, Any]:
    missing = {**NO_KEY, "404": "none was made yet"}
    return {
        "/docs": _text("This document to read", "text/html"),
        "/": _text("The page for riders", "text/html"),
        "/zones": _get("The taxi zones", {"type": "array", "items": {"type": "object"}}),
        "/zones/shapes": _get(
            "Their outlines",
            {"type": "object"},
            description="`borders`: a corner, then steps, in units of 0.0001 degrees of longitude "
            "and latitude; `zones`: outlines by zone, as numbers of borders, ~i backwards.",
        ),
        "/monitor": _text("The page for operators", "text/html", NO_KEY),
        "/monitor/report": _text("The monitor's last whole report", "text/html", missing),
        "/monitor/data": _get("What the page for operators shows", {"type": "object"}, 401),
    }


def _one_or_many(name: str) -> dict[str, Any]:
    return {"oneOf": [_ref(name), {"type": "array", "items": _ref(name)}]}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": REF.format(name=name)}


def _response(content: dict[str, Any], text: str) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": content}}}


def _responses(content: dict[str, Any], *refusals: int) -> dict[str, Any]:
    texts = {
        400: "a field is wrong; the error names it",
        401: NO_KEY["401"],
        404: "no such model, or no such version, answers riders",
        408: "the body stopped arriving",
        413: "the body is too large or has too many elements",
        415: "a type of body that is not read",
        422: "a Parquet body that cannot be read",
        503: "no model, or no log, at the moment",
    }
    refused = {str(code): _response(_ref("ErrorBody"), texts[code]) for code in refusals}
    return {"200": _response(content, "the answer"), **refused}


def _post(
    summary: str,
    description: str,
    bodies: dict[str, Any],
    answer: dict[str, Any],
    *refusals: int,
    **more: Any,
) -> dict[str, Any]:
    operation = {
        "summary": summary,
        "description": description,
        "requestBody": {"required": True, "content": bodies},
        "responses": _responses(answer, *refusals),
        **more,
    }
    operation["parameters"] = [*more.get("parameters", ()), TRACE]
    return {"post": operation}


def _get(summary: str, answer: dict[str, Any], *refusals: int, **more: Any) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": _responses(answer, *refusals), **more}}


def _text(summary: str, kind: str, refusals: dict[str, str] | None = None) -> dict[str, Any]:
    content = {kind: {"schema": {"type": "string"}}}
    responses: dict[str, Any] = {"200": {"description": "the text", "content": content}}
    for code, why in (refusals or {}).items():
        responses[code] = _response(_ref("ErrorBody"), why)
    return {"get": {"summary": summary, "responses": responses}}


def _zone(name: str) -> dict[str, Any]:
    kind = {"type": "integer", "minimum": FIRST_ZONE, "maximum": LAST_ZONE,
            "examples": [FROM_TO[name]]}  # fmt: skip
    return _parameter(name, kind, ALLOWED[name], required=True)


def _in_path(name: str, text: str, example: str) -> dict[str, Any]:
    kind = {"type": "string", "examples": [example]}
    return {**_parameter(name, kind, text, required=True), "in": "path"}


def _parameter(
    name: str, kind: dict[str, Any], text: str, required: bool = False
) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": kind, "description": text}
