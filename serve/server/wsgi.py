"""A WSGI application called for a request of granian's RSGI whose body is whole."""

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
        client: the client's address and port.
        body: whole; its length replaces what the head said of it.
    """
    host, _, port = client.rpartition(":")
    server, _, server_port = scope.server.rpartition(":")
    environ = {
        **_BASE,
        "wsgi.errors": sys.stderr,
        "wsgi.url_scheme": scope.scheme,
        "REQUEST_METHOD": scope.method,
        # WSGI hands bytes over as Latin-1.
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
        # A value that is not ASCII is not given to us. That there was one may decide whom the
        # request is taken for: a proxy's field must not vanish.
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
    """Call the application and return status, headers and body of its answer."""
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


@lru_cache(maxsize=1024)  # what clients make up is forgotten again
def _key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
