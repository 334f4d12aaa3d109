"""Bytes off the wire: whole, of a known type, and not too many."""

from __future__ import annotations

from flask import Request

from serve.bodies.errors import ApiError


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
    """Return the body as text, without a byte order mark.

    Raises:
        ApiError: not UTF-8.
    """
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ApiError(
            400, "bad_encoding", f"the body is not UTF-8: {error.reason} at byte {error.start}"
        ) from None


def read_body(request: Request) -> bytes:
    """Return the whole body, as large as it may be.

    Our own server has received it before anybody is called (`serve.server.intake`). Another
    one ends it where it ends: werkzeug's limit is a Python loop around that, and takes the
    first part of a chunked body that is too large for all of it.

    Raises:
        ApiError: it is larger, or did not arrive whole.
    """
    length, most = request.content_length, request.max_content_length
    assert most is not None  # the factory sets it
    if length is None and not request.environ.get("wsgi.input_terminated"):
        return b""
    if length is not None and length > most:
        raise too_large(most)
    try:
        body: bytes = request.environ["wsgi.input"].read(most + 1 if length is None else length)
    except OSError as error:  # the client is gone, or its chunks are malformed
        raise ApiError(400, "bad_body", f"the body cannot be read: {error}") from None
    if length is not None and len(body) < length:
        raise not_whole(len(body), length)
    if len(body) > most:
        raise too_large(most)
    return body


def too_large(most: int) -> ApiError:
    """Return the error for a body of more bytes than allowed."""
    message = f"the body is too large; at most {most / 1e6:g} MB are allowed"
    return ApiError(413, "too_large", message)


def not_whole(came: int, announced: int | None) -> ApiError:
    """Return the error for a body that ended too early."""
    what = "its end did not" if announced is None else f"{announced} were announced"
    return ApiError(400, "bad_body", f"{came} bytes came, {what}")


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
