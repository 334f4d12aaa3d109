"""A service that has met everything it counts, and what it then exports."""

from __future__ import annotations

from pathlib import Path

import pytest
from cards import make_card
from flask import Flask

from serve import create_app
from serve.app import close_app
from taxi_duration.data.window import Window
from taxi_duration.domain.findings import Drift, ErrorEstimate
from taxi_duration.domain.rides import Rides
from taxi_duration.live.prediction_log import open_log
from taxi_duration.live.verdict import Verdict, write_verdict
from taxi_duration.training.fit import fit_model

RIDE = {"PULocationID": 74, "DOLocationID": 42}
ENDED = {**RIDE, "pickup_datetime": "2021-03-01T08:30:00"}  # long before its truth is told
VERDICT = Verdict(
    at="2021-03-02T04:05:06+00:00",
    verdict="ok",
    source="live log",
    model="green-duration:1",
    rides=1,
    answered=0,
    reasons=[],
    errors=[],
    drift=[Drift("hour", "psi", 0.01, "", "ok", 0.015, 0.05)],
    truths={"scored": 1},
    estimate=ErrorEstimate(1, 3.5, 3.2, 3.8, 0.8, 0.77, 0.83),
)


def a_service(folder: Path) -> Flask:
    """Return a service with a small linear model, and its log in an empty folder."""
    rides = Rides.from_dicts(
        [{**RIDE, "pickup_datetime": "2021-02-15T08:30:00", "trip_distance": 1.0 + i % 7}
         for i in range(120)]
    )  # fmt: skip
    model = fit_model("LR", Window.of(rides, rides.trip_distance * 4 + 3))
    log = open_log(f"sqlite:///{folder / 'log.db'}", folder / "spool")
    return create_app({"BACKGROUND": False}, (model, make_card("LR")), log)


def metrics_text(folder: Path) -> str:
    """Return /metrics after answers, a refusal, feedback and a look of the monitor.

    Args:
        folder: an empty one, for log and verdict.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAXI_HOME", str(folder))
        write_verdict(VERDICT)
        app = a_service(folder)
        client = app.test_client()
        right, odd = client.post("/predict", json=[ENDED, ENDED]).json
        told = [
            {"prediction_id": answer["prediction_id"], "duration": minutes}
            for answer, minutes in ((right, right["duration"]), (odd, 9999.0))
        ]
        client.post("/feedback", json=told)
        client.post("/predict", json={})
        app.extensions["taxi"].traffic.refresh()
        text = client.get("/metrics").text
        close_app(app)
    return text
