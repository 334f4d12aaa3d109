"""The service: the deployed model over HTTP. Start it with `python -m serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask


def create_app(*args: Any, **settings: Any) -> Flask:
    """Return the service; see `serve.app.create_app`.

    Imported when called: `python -m serve` must set up the folder of shared metrics before
    prometheus_client is imported, and reports within milliseconds when nothing is deployed.
    """
    from serve import app

    return app.create_app(*args, **settings)
