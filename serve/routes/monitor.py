"""GET /monitor for operators, its data (/monitor/data), and the last full report."""

from __future__ import annotations

from flask import Blueprint, Response

from serve.bodies.errors import ApiError, json_response
from serve.core.answering import Answering
from serve.core.live_page import LivePage
from serve.headers import REPORT_HEADERS
from serve.routes.pages import page
from taxi_duration.errors import ContentError
from taxi_duration.files import read_file
from taxi_duration.live.verdict import page_path


def monitor_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("monitor", __name__)
    live = LivePage(answering)

    @blueprint.get("/monitor")
    def monitor() -> Response:
        return page("monitor.html")

    @blueprint.get("/monitor/report")
    def report() -> Response:
        try:
            content = read_file(page_path())
        except (OSError, ContentError):
            message = "there is no report yet; `python pipeline.py monitor` makes one"
            raise ApiError(404, "no_report", message) from None
        return Response(content, content_type="text/html; charset=utf-8", headers=REPORT_HEADERS)

    @blueprint.get("/monitor/data")
    def data() -> Response:
        return json_response(live.content())

    return blueprint
