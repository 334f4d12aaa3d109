"""Bytes off the wire: whole, of a known type, and not too many."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from serve.bodies.errors import ApiError

# How much of a body that is refused is read all the same, in parts.
UNREAD_BYTES, UNREAD_PART, UNREAD_SECONDS = 100_000_000, 1_000_000, 5.0


def media_type(request: Request) -> str:
    """Return the body's type without parameters.

    Raises:
        ApiError: compressed, or in another character set than UTF-8.
    """
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise ApiError(415, "unsupported_type", "compressed bodies are not read; send it plain")
    charset = request.mimetype_params.get("charset", "utf-8")
    if charset.lower() not in ("utf-8", "utf8"):
        raise ApiError(
            415, "unsupported_type", f"the charset is {charset[:40]!r}; only UTF-8 is read"
        )
    return request.mimetype


def decode_text(body: bytes) -> str:
    """Return the body as text.

    Raises:
        ApiError: not UTF-8.
    """
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(
            400, "bad_encoding", f"the body is not UTF-8: {error.reason} at byte {error.start}"
        ) from None


def read_body(request: Request) -> bytes:
    """Return the whole body, as large as it may be.

    It is read from the server, which ends it where it ends: werkzeug's limit is a Python loop
    around that, and takes the first part of a chunked body that is too large for all of it.

    Raises:
        RequestEntityTooLarge: it is larger.
        ApiError: it stopped arriving, or did not arrive whole.
    """
    length, most = request.content_length, request.max_content_length
    if length is None and not request.environ.get("wsgi.input_terminated"):
        return b""
    if length is None or length <= most:
        body = _read(request.environ, most + 1 if length is None else length)
        if length is not None and len(body) < length:
            raise ApiError(400, "bad_body", f"{len(body)} bytes came, {length} were announced")
        if len(body) <= most:
            return body
    _read_on(request.environ)
    raise RequestEntityTooLarge


def _read(environ: dict[str, Any], n: int) -> bytes:
    try:
        return environ["wsgi.input"].read(n)
    except BlockingIOError:  # see `serve.worker`
        _hang_up(environ)
        raise ApiError(408, "timeout", "the body stopped arriving") from None
    except OSError as error:  # the client is gone, or its chunks are none
        raise ApiError(400, "bad_body", f"the body cannot be read: {error}") from None


def _read_on(environ: dict[str, Any]) -> None:
    """Let a client finish sending, within limits: before that many do not look for an answer."""
    until = time.monotonic() + UNREAD_SECONDS
    left = UNREAD_BYTES
    with suppress(OSError):
        while left > 0 and time.monotonic() < until:
            part = environ["wsgi.input"].read(UNREAD_PART)
            if not part:
                return
            left -= len(part)
    _hang_up(environ)


def _hang_up(environ: dict[str, Any]) -> None:
    """Receive no more: gunicorn would wait for the rest again, to use the connection again."""
    if "gunicorn.socket" in environ:
        with suppress(OSError):  # it is closed
            environ["gunicorn.socket"].shutdown(socket.SHUT_RD)


def wrong_type(kind: str, *allowed: str) -> ApiError:
    """Return the error for a body of a type that is not read here."""
    return ApiError(
        415, "unsupported_type", f"the Content-Type is {kind[:60]!r}; send {' or '.join(allowed)}"
    )


def check_count(n: int, most: int, what: str = "rides") -> None:
    """Refuse more elements than allowed.

    Raises:
        ApiError: 413.
    """
    if n > most:
        raise ApiError(413, "too_many", f"{n} {what} in one request; at most {most} are allowed")
