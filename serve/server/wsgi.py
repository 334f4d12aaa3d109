"""Calls a WSGI application for a request of granian's RSGI with a complete body."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from serve.server.intake import Body

Headers = list[tuple[str, str]]
_BASE = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}
_PROTOCOLS = {"1": "HTTP/1.0", "1.1": "HTTP/1.1"}


def environ_of(scope: Any, client: str, body: Body) -> dict[str, Any]:
    """Return the WSGI environment of a request.

    Args:
        scope: RSGI's.
        client: address:port.
        body: complete; its length becomes Content-Length, whatever the head said.
    """
    host, _, port = client.rpartition(":")
    server, _, server_port = scope.server.rpartition(":")
    environ = {
        **_BASE,
        "wsgi.errors": sys.stderr,
        "wsgi.url_scheme": scope.scheme,
        "REQUEST_METHOD": scope.method,
        # WSGI strings are bytes decoded as Latin-1.
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_PROTOCOL": _PROTOCOLS.get(scope.http_version, "HTTP/1.1"),
        "SERVER_NAME": server.strip("[]"),
        "SERVER_PORT": server_port,
        "REMOTE_ADDR": host.strip("[]"),
        "REMOTE_PORT": port,
    }
    for name, value in scope.headers.items():
        key = _key(name)
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    for name in scope.headers.keys():  # noqa: SIM118
        # RSGI leaves out values that are not ASCII. Their names must stay: `auth` treats a request
        # with a proxy's header as not local.
        environ.setdefault(_key(name), "")
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    if isinstance(body, bytes):
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = io.BytesIO(body)
    else:
        environ["CONTENT_LENGTH"] = str(body.seek(0, io.SEEK_END))
        body.seek(0)
        environ["wsgi.input"] = body
    return environ


def call(app: Callable[..., Any], environ: dict[str, Any]) -> tuple[int, Headers, bytes]:
    """Call the application; return status, headers and body of the response."""
    given: list[Any] = []

    def start_response(status: str, headers: Headers, exc_info: Any = None) -> None:
        given[:] = (status, headers)

    parts = app(environ, start_response)
    try:
        body = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    return int(given[0][:3]), given[1], body


@lru_cache(maxsize=1024)  # bounded: clients choose the names
def _key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
