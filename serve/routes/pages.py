"""GET / for riders: a page that loads nothing from other hosts, and the zones that it shows.

Pages are empty forms; scripts fill them from the API, /zones and /monitor/data.
"""

from __future__ import annotations

from functools import cache
from math import isnan
from typing import Any

from flask import Blueprint, Response, render_template

from serve.bodies.errors import JSON, json_response
from serve.headers import PAGE_HEADERS
from taxi_duration.domain.limits import FIRST_ZONE, LAST_ZONE
from taxi_duration.domain.zone_shapes import stored_shapes
from taxi_duration.domain.zones import zone_table

FIGURES = ("longitude", "latitude", "area_km2")
ZONES_SECONDS = 3600  # browsers may cache the zones; they change with a release only


def page(template: str, **values: Any) -> Response:
    """Return a rendered page with the security headers of pages."""
    return Response(render_template(template, **values), content_type="text/html; charset=utf-8",
                    headers=PAGE_HEADERS)  # fmt: skip


def pages_blueprint() -> Blueprint:
    """Return the blueprint."""
    blueprint = Blueprint("pages", __name__)

    @blueprint.get("/")
    def index() -> Response:
        return page("index.html")

    @blueprint.get("/zones")
    def zones() -> Response:
        return _kept(json_response(list_zones()))

    @blueprint.get("/zones/shapes")
    def shapes() -> Response:
        return _kept(Response(stored_shapes(), content_type=JSON))

    return blueprint


def _kept(response: Response) -> Response:
    response.headers["Cache-Control"] = f"public, max-age={ZONES_SECONDS}"
    return response


@cache
def list_zones() -> list[dict[str, Any]]:
    """Return the taxi zones; 264 and 265, which are no places, have no coordinates."""
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
