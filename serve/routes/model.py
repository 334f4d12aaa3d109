"""GET /model: the cards of what is serving."""

from __future__ import annotations

from flask import Blueprint, Response

from serve.bodies.errors import json_response
from serve.bodies.schema import Served
from serve.core.answering import Answering


def model_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("model", __name__)

    @blueprint.get("/model")
    def model() -> Response:
        serving = answering.serving()
        challenger = serving.challenger
        return json_response(
            Served(
                serving.champion.version,
                serving.champion.card,
                challenger.card if challenger else None,
                serving.ab_share,
                serving.shadow,
                serving.baking,
                answering.holder.problem,
            )
        )

    return blueprint
