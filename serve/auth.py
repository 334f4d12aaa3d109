"""Optional API keys: with `API_KEYS` set, asking and feedback need one; so does looking inside.

Looking inside (`/model`, `/metrics`, `/monitor`) may also be open to this machine itself, see
`MONITOR_ACCESS`. A proxy on this machine comes from the loopback too, whoever asked it.
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
# What proxies add to a request that they pass on; as WSGI names headers.
_OF_A_PROXY = re.compile(
    r"HTTP_(FORWARDED|VIA|X_FORWARDED_\w+|X_REAL_IP|X_CLIENT_IP|X_ORIGINAL_\w+|X_ENVOY_\w+|"
    r"X_AMZN_TRACE_ID|TRUE_CLIENT_IP|CF_CONNECTING_IP|FASTLY_CLIENT_IP)"
)
_LOCAL_HOST = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?", re.IGNORECASE)


def require_key(blueprint: Blueprint, keys: Sequence[str]) -> None:
    """Refuse requests to a blueprint without a key: `X-API-Key`, a bearer token or a password.

    Args:
        blueprint: gets a check before each request, when there are keys.
        keys: those that are let in; none lets in everybody.
    """
    if keys:
        blueprint.before_request(_check(keys))


def guard_inside(blueprint: Blueprint, keys: Sequence[str], access: str) -> None:
    """The same for what shows the inside; with LOCAL this machine needs no key, with OPEN nobody.

    Args:
        access: LOCAL, KEY or OPEN.
    """
    if not keys or access == OPEN:
        return
    check = _check(keys)

    @blueprint.before_request
    def check_or_local() -> None:
        if access != LOCAL or not comes_from_here(request.environ):
            check()


def comes_from_here(environ: Mapping[str, Any]) -> bool:
    """True for a request of this machine's own, which no proxy passed on as far as it shows.

    The peer is the loopback, the request names it as its host, and nothing in it is a proxy's.
    nginx, which may add nothing, asks in HTTP/1.0 by default. A proxy that hides itself well is
    not seen: behind one, only `MONITOR_ACCESS=key` is safe.
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
        # Digests have one length, and all are compared: the time tells nothing about a key.
        matches = [hmac.compare_digest(digest, known) for known in digests]
        if not any(matches):
            # A browser that opens a page asks for a password then; a script is only told.
            shown = "text/html" in request.headers.get("Accept", "")
            scheme = 'Basic realm="taxi-duration", charset="UTF-8"' if shown else "Bearer"
            message = "give a key as X-API-Key, as Authorization: Bearer, or as Basic's password"
            raise ApiError(401, "unauthorized", message, headers={"WWW-Authenticate": scheme})

    return check_key


def _given(headers: Headers) -> bytes:
    """The key that came, as UTF-8; WSGI hands bytes over as Latin-1."""
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
