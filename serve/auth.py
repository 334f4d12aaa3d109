"""Optional API keys: with `API_KEYS` set, asking and feedback need one of them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from flask import Blueprint, request

from serve.bodies.errors import ApiError


def require_key(blueprint: Blueprint, keys: Sequence[str]) -> None:
    """Refuse requests to a blueprint without a key (`X-API-Key` or a bearer token).

    Args:
        blueprint: gets a check before each request, when there are keys.
        keys: those that are let in; none lets in everybody.
    """
    if not keys:
        return
    digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    @blueprint.before_request
    def check_key() -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = request.headers.get("X-API-Key") or (token if scheme.lower() == "bearer" else "")
        # WSGI hands bytes over as Latin-1; keys are compared as UTF-8.
        digest = hashlib.sha256(given.encode("latin-1")).digest()
        # Digests have one length, and all are compared: the time tells nothing about a key.
        matches = [hmac.compare_digest(digest, known) for known in digests]
        if not any(matches):
            raise ApiError(401, "unauthorized", "give a key as X-API-Key or Authorization: Bearer")
