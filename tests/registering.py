"""Registers a version by hand: without a model that MLflow could load, which takes a second."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from taxi_duration.errors import TrackingError
from taxi_duration.registry import tracking, versions


def register_by_hand(patch: pytest.MonkeyPatch) -> None:
    """Let versions be registered so; registry/test_versions.py looks at all that MLflow keeps."""
    patch.setattr(versions, "_log_version", _log_version)


def _log_version(run_id: str, name: str, bundle: Path) -> str:
    client = tracking.connect()
    with suppress(TrackingError):  # it is there
        client.create_registered_model(name)
    return str(client.create_model_version(name, bundle.as_uri(), run_id=run_id).version)
