"""GET / for riders and GET /monitor for operators: plain pages that need no other host.

They are empty forms; scripts fill them from the API, /zones and /monitor/data.
"""

from __future__ import annotations

from functools import cache
from math import isnan
from typing import Any

from flask import Blueprint, Response, render_template

from serve.bodies.errors import ApiError, json_response
from serve.core.answering import Answering
from serve.core.live_page import LivePage
from taxi_duration.domain.limits import FIRST_ZONE, LAST_ZONE
from taxi_duration.domain.zones import zone_table
from taxi_duration.live.verdict import page_path

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# An executed notebook brings its own styles and pictures; its scripts, which would ask other
# hosts, do not run here.
REPORT_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:; frame-ancestors 'none'",
}
FIGURES = ("longitude", "latitude", "area_km2")
ZONES_SECONDS = 3600  # browsers may keep the zones; they change with a new version only


def page(template: str, **values: Any) -> Response:
    """Return a rendered page with the headers that keep it to itself."""
    return Response(render_template(template, **values), content_type="text/html; charset=utf-8",
                    headers=HEADERS)  # fmt: skip


def pages_blueprint(answering: Answering) -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("pages", __name__)
    live = LivePage(answering)

    @blueprint.get("/")
    def index() -> Response:
        return page("index.html")

    @blueprint.get("/zones")
    def zones() -> Response:
        response = json_response(list_zones())
        response.headers["Cache-Control"] = f"public, max-age={ZONES_SECONDS}"
        return response

    @blueprint.get("/monitor")
    def monitor() -> Response:
        return page("monitor.html")

    @blueprint.get("/monitor/report")
    def report() -> Response:
        try:
            content = page_path().read_bytes()
        except OSError:
            message = "there is no report yet; `python pipeline.py monitor` makes one"
            raise ApiError(404, "no_report", message) from None
        return Response(content, content_type="text/html; charset=utf-8", headers=REPORT_HEADERS)

    @blueprint.get("/monitor/data")
    def monitor_data() -> Response:
        response = json_response(live.content())
        response.headers["Cache-Control"] = "no-store"
        return response

    return blueprint


@cache
def list_zones() -> list[dict[str, Any]]:
    """Return the taxi zones; those that are no place have no coordinates."""
    table = zone_table()
    return [
        {
            "id": zone,
            "borough": str(table.borough[zone]),
            "name": str(table.name[zone]),
            **{figure: _known(getattr(table, figure)[zone]) for figure in FIGURES},
        }
        for zone in range(FIRST_ZONE, LAST_ZONE + 1)
    ]


def _known(value: float) -> float | None:
    return None if isnan(value) else float(value)
