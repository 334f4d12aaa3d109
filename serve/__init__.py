"""The service: the deployed model over HTTP. Start it with `python -m serve`."""

from serve.app import create_app

__all__ = ["create_app"]
