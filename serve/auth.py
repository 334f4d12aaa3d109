"""Optional API keys: with `API_KEYS` set, predictions, feedback and internal pages need one.

Internal pages (`/model`, `/metrics`, `/monitor`) may also be open to this machine itself, see
`MONITOR_ACCESS`. Requests through a proxy on this machine come from the loopback, too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from flask import Blueprint, request
from werkzeug.datastructures import Headers

from serve.bodies.errors import ApiError
from serve.settings import MONITOR_ACCESS

LOCAL, KEY, OPEN = MONITOR_ACCESS
# Headers that proxies add to requests, as WSGI names them.
_OF_A_PROXY = re.compile(
    r"HTTP_(FORWARDED|VIA|X_FORWARDED_\w+|X_REAL_IP|X_CLIENT_IP|X_ORIGINAL_\w+|X_ENVOY_\w+|"
    r"X_AMZN_TRACE_ID|TRUE_CLIENT_IP|CF_CONNECTING_IP|FASTLY_CLIENT_IP)"
)
_LOCAL_HOST = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?", re.IGNORECASE)


def require_key(blueprint: Blueprint, keys: Sequence[str]) -> None:
    """Require a key (`X-API-Key`, bearer token or Basic password) for a blueprint; else 401.

    Args:
        blueprint: gets a check before each request.
        keys: the valid keys; without any, no key is required.
    """
    if keys:
        blueprint.before_request(_check(keys))


def guard_inside(blueprint: Blueprint, keys: Sequence[str], access: str) -> None:
    """Require a key for a blueprint of internal pages, unless `access` exempts the request.

    Args:
        access: LOCAL exempts requests of this machine, OPEN all, KEY none.
    """
    if not keys or access == OPEN:
        return
    check = _check(keys)

    @blueprint.before_request
    def check_or_local() -> None:
        if access != LOCAL or not comes_from_here(request.environ):
            check()


def comes_from_here(environ: Mapping[str, Any]) -> bool:
    """Return whether a request comes from this machine and shows no sign of a proxy.

    The peer is the loopback, the Host header names it, and there is no header of a proxy. nginx,
    which may add none, speaks HTTP/1.0 by default. A proxy that leaves no sign is not detected:
    behind one, only `MONITOR_ACCESS=key` is safe.
    """
    return (
        _is_loopback(environ.get("REMOTE_ADDR") or "")
        and _LOCAL_HOST.fullmatch(environ.get("HTTP_HOST") or "") is not None
        and environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
        and not any(map(_OF_A_PROXY.fullmatch, environ))
    )


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)  # ::ffff:127.0.0.1
    return (mapped or found).is_loopback


def _check(keys: Sequence[str]) -> Callable[[], None]:
    digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check_key() -> None:
        digest = hashlib.sha256(_given(request.headers)).digest()
        # Digests of equal length, all compared: the time taken reveals nothing about a key.
        matches = [hmac.compare_digest(digest, known) for known in digests]
        if not any(matches):
            # A browser then asks for a password; other clients get a plain 401.
            shown = "text/html" in request.headers.get("Accept", "")
            scheme = 'Basic realm="taxi-duration", charset="UTF-8"' if shown else "Bearer"
            message = "give a key as X-API-Key, as Authorization: Bearer, or as Basic's password"
            raise ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": scheme})

    return check_key


def _given(headers: Headers) -> bytes:
    """Return the key of a request, as bytes; WSGI decodes headers as Latin-1."""
    if key := headers.get("X-API-Key"):
        return key.encode("latin-1", "backslashreplace")
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    content = token.strip().encode("latin-1", "backslashreplace")
    if scheme.lower() == "bearer":
        return content
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(content, validate=True).partition(b":")[2]
    except ValueError:
        return b""
