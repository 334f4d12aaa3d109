"""GET /openapi.json and GET /docs: the API, for programs and for people."""

from __future__ import annotations

from functools import cache
from typing import Any

from flask import Blueprint, Response, current_app

from serve.bodies.errors import json_response
from serve.openapi import openapi
from serve.routes.pages import page


def docs_blueprint() -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("docs", __name__)

    @cache
    def document() -> dict[str, Any]:
        return openapi(keyed=bool(current_app.config["API_KEYS"]))

    @blueprint.get("/openapi.json")
    def openapi_json() -> Response:
        return json_response(document())

    @blueprint.get("/docs")
    def docs() -> Response:
        return page("docs.html", api=document())

    return blueprint
