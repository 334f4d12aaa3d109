"""What stands behind the `?` of an address: each name known, and once."""

from __future__ import annotations

from flask import request

from serve.bodies.errors import ApiError


def check_names(*names: str) -> None:
    """Refuse a query with any other name: what is misspelt would count as left out, in silence.

    Raises:
        ApiError: 400, names it and what is understood; or one of ours that comes twice.
    """
    for name in request.args:
        if name not in names:
            message = f"{name[:40]!r} is no parameter; {request.path} takes {', '.join(names)}"
            raise ApiError(400, "unknown_parameter", message, name[:100])
    for name in names:
        if (times := len(request.args.getlist(name))) > 1:
            message = f"{name} comes {times} times; one is expected"
            raise ApiError(400, "duplicate_key", message, name)
