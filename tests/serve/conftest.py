"""A service on tiny models, with a log of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from running import PROJECT, Running, free_port
from service_samples import make_card, make_rides

from serve import create_app
from serve.app import close_app
from taxi_duration import environment
from taxi_duration.data.window import Window
from taxi_duration.domain.version import Version, bundle_folder
from taxi_duration.live.deployment import deploy_champion
from taxi_duration.live.prediction_log import PredictionLog, open_log
from taxi_duration.model.bundle import save_bundle
from taxi_duration.model.duration_model import DurationModel
from taxi_duration.training.fit import fit_model

Start = Callable[..., Running]


@pytest.fixture(scope="session")
def models() -> dict[int, DurationModel]:
    """Version 1 is linear, version 2 ridge: quick to fit, and different."""
    window = Window.of(*make_rides())
    return {1: fit_model("LR", window), 2: fit_model("RIDGE", window)}


@pytest.fixture
def registered(home, models) -> dict[int, Version]:
    """Both versions, saved as bundles in the test's home."""
    return save_versions(models)


def save_versions(models: dict[int, DurationModel]) -> dict[int, Version]:
    """Save the models as bundles in the home of now."""
    key = environment.signing_key()
    return {
        number: Version.of(
            save_bundle(
                bundle_folder("green-duration", number), model, make_card(number, model.kind), key
            )
        )
        for number, model in models.items()
    }


@pytest.fixture
def log(tmp_path) -> Iterator[PredictionLog]:
    """An empty log."""
    log = open_log(f"sqlite:///{tmp_path / 'live' / 'predictions.db'}", tmp_path / "live" / "spool")
    yield log
    log.close()


@pytest.fixture
def make_app(log) -> Iterator[Any]:
    """Make apps that are closed after the test; threads only where asked for."""
    made: list[Flask] = []

    def make(settings: dict[str, Any] | None = None, **others: Any) -> Flask:
        app = create_app({"BACKGROUND": False, **(settings or {})}, **{"log": log, **others})
        made.append(app)
        return app

    yield make
    for app in made:
        close_app(app)


@pytest.fixture
def app(make_app, models) -> Flask:
    """The service with version 1."""
    return make_app(model=(models[1], make_card(1, "LR")))


@pytest.fixture
def client(app) -> FlaskClient:
    """A client of the service with version 1."""
    return app.test_client()


@pytest.fixture
def metric(client):
    """Read the value of a metric's line, 0 when there is none."""

    def read(line: str) -> float:
        for found in client.get("/metrics").text.splitlines():
            if found.startswith(line + " "):
                return float(found.split(" ")[-1])
        return 0.0

    return read


@pytest.fixture
def start(home, tmp_path) -> Iterator[Start]:
    """Start services that are stopped after the test."""
    with starting(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def served(models, tmp_path_factory) -> Iterator[Start]:
    """Gives the service with these settings, of one worker on version 1, started once a module.

    For tests that ask it and leave it as it was; all have the module's home.
    """
    folder = tmp_path_factory.mktemp("served")
    with environment.temporary(TAXI_HOME=str(folder / "home")), starting(folder) as start:
        version = save_versions(models)[1]
        deploy_champion(version, "first")
        yield cache(partial(start, WORKERS="1"))


@contextmanager
def starting(folder: Path) -> Iterator[Start]:
    """Start services on the home of now; their output is written into the folder."""
    running: list[Running] = []

    def start(*arguments: str, wait: bool = True, **settings: str) -> Running:
        port = free_port()
        output = folder / f"serve-{len(running)}.log"
        with output.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "serve", *arguments],
                cwd=PROJECT,
                env={**os.environ, "HOST": "127.0.0.1", "PORT": str(port), **settings},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        service = Running(port, process, output)
        running.append(service)
        deadline = time.monotonic() + 60
        while wait and time.monotonic() < deadline and process.poll() is None:
            try:
                service.ask("/health", verb="GET")
                break
            except OSError:
                time.sleep(0.05)
        return service

    yield start
    for service in running:
        service.process.terminate()
    for service in running:
        service.process.wait(timeout=40)
