"""GET /health: the process is alive. GET /ready: it can answer, and log what it answers."""

from __future__ import annotations

from flask import Blueprint, Response

from serve.bodies.errors import json_response
from serve.bodies.folders import without_folders
from serve.bodies.schema import State
from serve.core.answering import Answering


def health_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health")
    def health() -> Response:
        return json_response(State("ok", _version(answering), []))

    @blueprint.get("/ready")
    def ready() -> Response:
        problems = answering.problems()
        status, code = ("not ready", 503) if problems else ("ready", 200)
        # A refused deployment is reported, but the service stays ready: the old model answers.
        if answering.holder.serving is not None and answering.holder.problem:
            problems.append(answering.holder.problem)
        if answering.traffic.problem:  # as well: answers go on with the last level, which fades
            problems.append(answering.traffic.problem)
        return json_response(State(status, _version(answering), without_folders(problems)), code)

    return blueprint


def _version(answering: Answering) -> str | None:
    serving = answering.holder.serving
    return serving.champion.version if serving else None
