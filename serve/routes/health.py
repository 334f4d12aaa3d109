"""GET /health: the process is alive. GET /ready: it can answer, and log what it answers."""

from __future__ import annotations

from flask import Blueprint, Response

from serve.bodies.errors import json_response
from serve.bodies.folders import without_folders
from serve.bodies.schema import State
from serve.core.answering import Answering
from serve.core.served_models import HOW_TO_DEPLOY
from taxi_duration.errors import LogError


def health_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/health")
    def health() -> Response:
        return json_response(State("ok", _version(answering), []))

    @blueprint.get("/ready")
    def ready() -> Response:
        problems = []
        if answering.holder.serving is None:
            problems.append(answering.holder.problem or HOW_TO_DEPLOY)
        try:
            answering.check_log()
        except LogError as error:
            problems.append(f"predictions are not logged: {error}")
        status, code = ("not ready", 503) if problems else ("ready", 200)
        # A refused deployment is reported, but the service stays ready: the old model answers.
        if answering.holder.serving is not None and answering.holder.problem:
            problems.append(answering.holder.problem)
        return json_response(State(status, _version(answering), without_folders(problems)), code)

    return blueprint


def _version(answering: Answering) -> str | None:
    serving = answering.holder.serving
    return serving.champion.version if serving else None
