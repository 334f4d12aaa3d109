"""Errors as JSON: `{"error": {"code", "message", "field"}}`, never a stack trace."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from serve.bodies.schema import Error, ErrorBody, PlainError
from taxi_duration.domain.refused_values import RefusedError

logger = logging.getLogger(__name__)

JSON = "application/json"
_CODES = {404: "not_found", 405: "method_not_allowed", 500: "internal"}


class ApiError(Exception):
    """A request that cannot be answered; the status says whose fault that is.

    Args:
        status: HTTP status.
        code: short name for programs.
        message: what came and what is allowed.
        field: the field it is about.
        element: position in an array of rides, from 0.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        element: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        where = "" if element is None else f"element {element}: "
        # The message quotes part of what came, which may be no valid UTF-8.
        text = (where + message).encode("utf-8", "backslashreplace").decode()
        self.status = status
        self.headers = headers or {}
        self.error = Error(code, text, field, msgspec.UNSET if element is None else element)

    def response(self) -> Response:
        """Return the answer, below /v2 in the form of the Open Inference Protocol."""
        body = PlainError(self.error.message) if _is_v2(request.path) else ErrorBody(self.error)
        response = json_response(body, self.status)
        response.headers.extend(self.headers)
        return response


def _is_v2(path: str) -> bool:
    return path == "/v2" or path.startswith("/v2/")


def json_response(content: Any, status: int = 200) -> Response:
    """Return any JSON-able content (msgspec structs too) as a response."""
    return Response(msgspec.json.encode(content), status, content_type=JSON)


def add_error_handlers(app: Flask) -> None:
    """Answer every error of the app as JSON."""

    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> Response:
        response = error.response()
        if error.status == 503:
            response.headers["Retry-After"] = "2"
        return response

    @app.errorhandler(RefusedError)
    def refused_error(error: RefusedError) -> Response:
        return ApiError(400, error.code, error.message, error.field, error.element).response()

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        message = error.description or error.name
        methods = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        if status == 404:
            message = f"there is nothing at {request.path[:80]}; /docs lists what there is"
        if status == 405:
            message = f"{request.method} is not possible at {request.path[:80]}"
            if methods:
                message += f"; it takes {methods}"
        response = ApiError(status, _CODES.get(status, "bad_request"), message).response()
        if status == 405 and methods:
            response.headers["Allow"] = methods
        return response

    @app.errorhandler(Exception)
    def bug(error: Exception) -> Response:
        logger.exception("a request failed")
        return ApiError(500, "internal", "the service failed; its log says why").response()
