"""GET /openapi.json and GET /docs: the API, for programs and for people."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from flask import Blueprint, Response, current_app, request
from markupsafe import Markup, escape

from serve.bodies.errors import json_response
from serve.openapi import openapi
from serve.routes.pages import page

_CODE = re.compile(r"`([^`]+)`")
_BOLD = re.compile(r"\*\*([^*]+)\*\*")
_LINK = re.compile(r"\[([^\]]+)\]\((https?://[^)\s]+|[/#][^)\s]*)\)")


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
        return page("docs.html", api=document(), host=request.host_url.rstrip("/"))

    blueprint.add_app_template_filter(markdown)
    blueprint.add_app_template_filter(as_json)

    return blueprint


def as_json(value: Any, indent: int | None = None) -> str:
    """Return JSON whose fields stay in their order, unlike those of Jinja's `tojson`."""
    return json.dumps(value, indent=indent, ensure_ascii=False)


def markdown(text: str) -> Markup:
    """Return the HTML of a description: code, bold words, links and paragraphs of Markdown.

    Whatever else it has is text.
    """
    found = str(escape(text))
    for pattern, tags in ((_CODE, r"<code>\1</code>"), (_BOLD, r"<b>\1</b>"),
                          (_LINK, r'<a href="\2">\1</a>')):  # fmt: skip
        found = pattern.sub(tags, found)
    return Markup("<br><br>".join(re.split(r"\n\s*\n", found)))  # escaped above
