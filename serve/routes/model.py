"""GET /model: the cards of the models in service, without paths of this machine."""

from __future__ import annotations

from flask import Blueprint, Response

from serve.bodies.errors import json_response
from serve.bodies.folders import without_folders
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
                without_folders(serving.champion.card),
                without_folders(challenger.card) if challenger else None,
                serving.ab_share,
                serving.shadow,
                serving.baking,
                without_folders(answering.holder.problem),
            )
        )

    return blueprint
