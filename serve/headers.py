"""Headers of every answer, errors and static files included: for security, and of its trace.

TLS and Strict-Transport-Security are left to the proxy.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from flask import Flask, Response, request

from taxi_duration.domain.trace_context import continued

TRACEPARENT = "traceparent"
_CONTINUED = "taxi.traceparent"  # key in a request's environ: ours, made once

# API answers are no pages: they may not run, load or be framed.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # for browsers without frame-ancestors
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",  # keeps answers, cards and ids out of shared caches
}
# Our pages load our own scripts, styles and pictures, and ask our own API.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# An executed notebook has its own styles and pictures; its scripts, which would load from other
# hosts, do not run.
REPORT_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:; frame-ancestors 'none'",
}


def add_headers(app: Flask) -> None:
    """Add the headers to every answer that does not set them itself."""

    @app.after_request
    def add(response: Response) -> Response:
        headers = response.headers
        for name, value in HEADERS.items():
            if name not in headers:
                headers.add(name, value)
        if "HTTP_TRACEPARENT" in request.environ and (trace := traceparent(request.environ)):
            headers[TRACEPARENT] = trace
        return response


def traceparent(environ: MutableMapping[str, Any]) -> str | None:
    """Return what the answer says of the request's trace; None when it has no valid one."""
    if _CONTINUED not in environ:
        environ[_CONTINUED] = continued(environ.get("HTTP_TRACEPARENT"))
    trace: str | None = environ[_CONTINUED]
    return trace
