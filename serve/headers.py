"""Security headers of every answer, errors and static files included.

TLS and Strict-Transport-Security are left to the proxy.
"""

from __future__ import annotations

from flask import Flask, Response

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
        return response
