"""/v2: the Open Inference Protocol, which KServe, Triton, Seldon and others share.

A question has a tensor of n for each column of n rides. Limits, log and arms are those of
/invocations; a version that is named answers every ride itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, request
from msgspec import UNSET

from serve.bodies.errors import JSON, ApiError, json_response
from serve.bodies.reading import check_count, media_type, read_body
from serve.bodies.schema import (
    InferRequest,
    Live,
    ModelMetadata,
    Ready,
    RideAnswer,
    ServerMetadata,
    TensorMetadata,
)
from serve.bodies.tensors import (
    BINARY,
    EXTENSION,
    JSON_BYTES,
    Column,
    read_columns,
    read_request,
    write_answer,
)
from serve.core.answering import Answering
from serve.core.served_models import LoadedModel, Serving
from serve.headers import traceparent
from taxi_duration.domain.asked_rides import ManyRides, check_table, find_ride_columns
from taxi_duration.domain.ride_columns import is_null_word

NAME, VERSION = "taxi-duration", "1"
INPUTS = {
    "PULocationID": "INT64", "DOLocationID": "INT64", "trip_distance": "FP64",
    "pickup_datetime": "BYTES", "ride_id": "BYTES",
}  # fmt: skip
TEXTS = ("pickup_datetime", "ride_id")
Output = tuple[str, Callable[[RideAnswer], Any]]
OUTPUTS: dict[str, Output] = {
    "duration": ("FP64", lambda answer: answer.duration),
    "p10": ("FP64", lambda answer: answer.interval.p10),
    "p50": ("FP64", lambda answer: answer.interval.p50),
    "p90": ("FP64", lambda answer: answer.interval.p90),
    "support": ("INT64", lambda answer: answer.support),
    "used_distance": ("BOOL", lambda answer: answer.used_distance),
    "model": ("BYTES", lambda answer: answer.model),
    "arm": ("BYTES", lambda answer: answer.arm),
    "prediction_id": ("BYTES", lambda answer: answer.prediction_id),
    "traffic": ("FP64", lambda answer: 1.0 if answer.traffic is UNSET else answer.traffic),
    "logged": ("BOOL", lambda answer: answer.logged is not False),
}
OF_A_MODEL = ("/v2/models/<name>", "/v2/models/<name>/versions/<version>")


def open_inference_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint of metadata and questions."""
    blueprint = Blueprint("open_inference", __name__)

    @blueprint.get("/v2")
    def server() -> Response:
        return json_response(ServerMetadata(NAME, VERSION, [EXTENSION]))

    def metadata(name: str, version: str | None = None) -> Response:
        serving = answering.serving()
        _named(serving, name, version)
        inputs = [TensorMetadata(field, kind, [-1]) for field, kind in INPUTS.items()]
        outputs = [TensorMetadata(output, kind, [-1]) for output, (kind, _) in OUTPUTS.items()]
        versions = list(_versions(serving))
        return json_response(ModelMetadata(name, versions, NAME, inputs, outputs))

    def infer(name: str, version: str | None = None) -> Response:
        model = _named(answering.serving(), name, version)
        asked, binary = read_request(
            media_type(request), read_body(request), request.headers.get(JSON_BYTES)
        )
        wanted = _wanted(asked)
        rides = _rides(asked, binary, answering.limits.rides)
        answers = answering.many(rides, trace=traceparent(request.environ), model=model)
        return _response(name, version, asked, wanted, answers, rides)

    for path in OF_A_MODEL:
        blueprint.add_url_rule(path, "metadata", metadata)
        blueprint.add_url_rule(f"{path}/infer", "infer", infer, methods=["POST"])
    return blueprint


def open_inference_health_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint of what probes ask; it needs no key."""
    blueprint = Blueprint("open_inference_health", __name__)

    @blueprint.get("/v2/health/live")
    def live() -> Response:
        return json_response(Live(True))

    @blueprint.get("/v2/health/ready")
    def ready() -> Response:
        is_ready = not answering.problems()
        return json_response(Ready(is_ready), 200 if is_ready else 503)

    def model_ready(name: str, version: str | None = None) -> Response:
        _named(answering.serving(), name, version)
        return json_response(Ready(True, name))

    for path in OF_A_MODEL:
        blueprint.add_url_rule(f"{path}/ready", "model_ready", model_ready)
    return blueprint


def _versions(serving: Serving) -> dict[str, LoadedModel]:
    """Return the versions that answer riders, by number: a shadow answers nobody."""
    arms = [serving.champion]
    if serving.challenger is not None and serving.ab_share:
        arms.append(serving.challenger)
    return {loaded.version.rpartition(":")[2]: loaded for loaded in arms}


def _named(serving: Serving, name: str, version: str | None) -> LoadedModel | None:
    """Return the version that is named, None when only the model is.

    Raises:
        ApiError: 404, it does not answer riders.
    """
    served, versions = serving.champion.version.rpartition(":")[0], _versions(serving)
    if name != served:
        raise ApiError(404, "not_found", f"no model {name[:60]!r} is served; {served!r} is")
    if version is not None and version not in versions:
        there = " and ".join(versions)
        raise ApiError(404, "not_found", f"version {version[:20]!r} is not served; {there} is")
    return None if version is None else versions[version]


def _wanted(asked: InferRequest) -> dict[str, bool]:
    """Return the outputs that are asked for, and whether as bytes.

    Raises:
        ApiError: there is no such output.
    """
    every = asked.parameters.get("binary_data_output") is True
    if not asked.outputs:
        return dict.fromkeys(OUTPUTS, every)
    for output in asked.outputs:
        if output.name not in OUTPUTS:
            message = f"no output {output.name[:60]!r}; there are {', '.join(OUTPUTS)}"
            raise ApiError(400, "bad_value", message, "outputs")
    return {one.name: one.parameters.get("binary_data", every) is True for one in asked.outputs}


def _rides(asked: InferRequest, binary: bytes, most: int) -> ManyRides:
    found = find_ride_columns([tensor.name for tensor in asked.inputs])
    columns = read_columns(asked.inputs, binary)
    check_count(len(columns[0]), most)
    rides = {field: columns[i] for field, i in found.positions.items()}
    for field in TEXTS:  # a tensor of texts has no null
        rides[field] = [
            None if isinstance(value, str) and is_null_word(value) else value
            for value in rides.get(field, [None] * len(columns[0]))
        ]
    return check_table(list(rides), zip(*rides.values(), strict=True), found.ignored)


def _response(
    name: str,
    version: str | None,
    asked: InferRequest,
    wanted: dict[str, bool],
    answers: list[RideAnswer],
    rides: ManyRides,
) -> Response:
    content: dict[str, Any] = {"model_name": name}
    answered = {answer.model.rpartition(":")[2] for answer in answers}
    if version is not None or len(answered) == 1:
        content["model_version"] = version or answered.pop()
    if asked.id is not UNSET:
        content["id"] = asked.id
    if ignored := (rides.ignored or {}).get(0):
        content["parameters"] = {"ignored": ", ".join(ignored)}
    columns = [Column(output, OUTPUTS[output][0], list(map(OUTPUTS[output][1], answers)))
               for output in wanted]  # fmt: skip
    as_bytes = {output for output, is_binary in wanted.items() if is_binary}
    body, json_bytes = write_answer(content, columns, as_bytes)
    response = Response(body, content_type=JSON if json_bytes is None else BINARY)
    if json_bytes is not None:
        response.headers[JSON_BYTES] = str(json_bytes)
    return response
