"""GET / for riders and GET /monitor for operators: plain pages that need no other host."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, render_template

from serve.answering import Answering
from taxi_duration.deployment import name_of, read_history
from taxi_duration.errors import LogError
from taxi_duration.zones import LAST_ZONE, zone_table

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
HISTORY_LINES = 50


def page(template: str, **values: Any) -> Response:
    """Return a rendered page with the headers that keep it to itself."""
    return Response(render_template(template, **values), content_type="text/html; charset=utf-8",
                    headers=HEADERS)  # fmt: skip


def pages_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("pages", __name__)

    @blueprint.get("/")
    def index() -> Response:
        zones = zone_table()
        choices = sorted(
            (str(zones.borough[i]), str(zones.name[i]), i) for i in range(1, LAST_ZONE + 1)
        )
        return page("index.html", zones=choices)

    @blueprint.get("/monitor")
    def monitor() -> Response:
        trouble = answering.holder.trouble
        try:
            models = answering.log.summary()
        except LogError as error:
            models, trouble = [], str(error)
        history = read_history()[: -HISTORY_LINES - 1 : -1]
        return page(
            "monitor.html",
            serving=answering.holder.serving,
            models=models,
            history=history,
            trouble=trouble,
            name_of=name_of,
        )

    return blueprint
