"""A home with a deployed model, MLflow's store and a log, free to be spoiled."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest
from cards import make_card

from taxi_duration.data.window import Window
from taxi_duration.domain.rides import Rides
from taxi_duration.domain.version import Version, bundle_folder
from taxi_duration.live.deployment import deploy_champion
from taxi_duration.live.prediction_log import open_log
from taxi_duration.model.bundle import save_bundle
from taxi_duration.registry import tracking
from taxi_duration.training.fit import fit_model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home as a first run and a service leave it; not to be changed."""
    folder = tmp_path_factory.mktemp("doctor") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAXI_HOME", str(folder))
        client = tracking.connect()
        tracking.start_run(client, "a run", {})
        client.create_registered_model("green-duration")
        ride = {"PULocationID": 74, "DOLocationID": 75, "pickup_datetime": "2021-02-15T08:30:00"}
        rides = Rides.from_dicts([{**ride, "trip_distance": 1.0 + i % 7} for i in range(120)])
        model = fit_model("LR", Window.of(rides, rides.trip_distance * 4 + 3))
        card = save_bundle(bundle_folder("green-duration", 1), model, make_card("LR"), None)
        deploy_champion(Version.of(card), "first")
        log = open_log()
        log.counts()
        log.close()
    # Nobody has the store open any more.
    with closing(sqlite3.connect(folder / "tracking" / "mlflow.db")) as store:
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


@pytest.fixture
def home(made, tmp_path, monkeypatch):
    """A copy of it, which no network is asked about."""
    shutil.copytree(made, tmp_path / "home")
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))
    tracking._prepare_local_store()  # follows the move
    monkeypatch.setenv("DATA", "sample")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "LOG_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"
