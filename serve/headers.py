"""Headers of every answer: what a browser may do with it, errors and static files included.

TLS and its Strict-Transport-Security are the proxy's, which alone knows whether there is any.
"""

from __future__ import annotations

from flask import Flask, Response

# An answer of the API is no page: nothing in it may run, load or be framed.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # what browsers knew before frame-ancestors
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",  # answers, cards and ids of rides stay out of shared caches
}
# Our pages load our own scripts, styles and pictures, and ask our own API.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# An executed notebook brings its own styles and pictures; its scripts, which would ask other
# hosts, do not run here.
REPORT_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:; frame-ancestors 'none'",
}


def add_headers(app: Flask) -> None:
    """Give every answer of the app the headers that it does not bring itself."""

    @app.after_request
    def add(response: Response) -> Response:
        headers = response.headers
        for name, value in HEADERS.items():
            if name not in headers:
                headers.add(name, value)
        return response
