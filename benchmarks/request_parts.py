#!/usr/bin/env python3
"""What each part of a request costs: one ride over HTTP, checked, answered, logged and counted.

The parts in the process are timed one by one, the best of many rounds; what the server costs is
processor time of its threads under load, less those parts. Beside it, what the same ride costs
by way of Flask. Needs a deployed XGB model and wrk: `python benchmarks/request_parts.py`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from serving import PROJECT, RIDE, Server, _own_log, _script

CALLS, ROUNDS = 50, 200
BODY = json.dumps(RIDE).encode()


def main() -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, _own_log(Path(folder)):
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # counts are shared, as when it serves
        parts, whole, flask = _inside()
        python, hyper = _server(Path(folder))
    print("| part of a request | µs |\n| --- | --- |")
    _print("HTTP (granian's thread, beside the Python one)", hyper)
    _print("hand-over from it and back, the answer's headers", python - whole)
    for name, microseconds in parts.items():
        _print(name, microseconds)
    _print("the rest: dispatch, objects", whole - sum(parts.values()))
    print(f"\nThe Python thread: {python:.0f} µs. By way of Flask: {flask - whole:+.0f} µs.")


def _inside() -> tuple[dict[str, float], float, float]:
    """Return the parts, their whole, and what the whole takes by way of Flask, µs."""
    import msgspec

    from serve.app import create_app, quick_predict
    from serve.bodies.ride_body import parse_rides
    from serve.core.answering import Answering, Beside, _answer, _row, new_ids
    from serve.server.wsgi import call, environ_of
    from taxi_duration.model.features import RideFeatures

    app = create_app({"BACKGROUND": False})
    answering: Answering = app.extensions["taxi"]
    champion = answering.serving().champion
    ride, at, _ = parse_rides(BODY, 1)
    question = (ride.PULocationID, ride.DOLocationID, at, ride.trip_distance)
    features = RideFeatures(champion.model.point.tables).row
    answer = champion.predictor.answer(*question)
    row = _row(ride, at, answer, champion, new_ids(1)[0], 0.1)
    answered = _answer(ride, answer, champion, new_ids(1)[0], True)
    of_features = _time(lambda: features(*question))

    def count() -> None:
        champion.metrics.predicted(answer.duration, 0.0001)
        answering.instruments.count_request("predict.predict", 200)

    parts = {
        "parsing, validation": _time(lambda: parse_rides(BODY, 1)),
        "features": of_features,
        "trees, interval": _time(lambda: champion.predictor.answer(*question)) - of_features,
        "id and row for the log": _time(
            lambda: _row(ride, at, answer, champion, new_ids(1)[0], 0.1)
        ),
        "log": _time(lambda: answering._keep(row, Beside((), ()))),
        "metrics": _time(count),
        "answer": _time(
            lambda: msgspec.json.encode(_answer(ride, answer, champion, "0" * 32, True))
        ),
    }
    assert msgspec.json.encode(answered)
    quick, scope = quick_predict(app), _scope()
    return (
        parts,
        _time(lambda: quick(BODY)),
        _time(lambda: call(app, environ_of(scope, scope.client, BODY))),
    )


def _scope() -> Any:
    """A request's head, as granian gives it."""
    headers = {"host": "127.0.0.1", "content-type": "application/json", "content-length": "62"}
    return SimpleNamespace(
        scheme="http", http_version="1.1", server="127.0.0.1:9696", client="127.0.0.1:40000",
        method="POST", path="/predict", query_string="", headers=headers,
    )  # fmt: skip


def _time(call: Callable[[], object]) -> float:
    """Return the microseconds of processor time of a call, the best round's."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.thread_time_ns()
        for _ in range(CALLS):
            call()
        best = min(best, (time.thread_time_ns() - started) / CALLS / 1000)
    return best


def _server(work: Path) -> tuple[float, float]:
    """Return the processor time of a request in the busiest two threads of a worker, µs."""
    settings = {"PYTHONPATH": str(PROJECT), "HOST": "127.0.0.1", "WORKERS": "1"}
    settings["PROMETHEUS_MULTIPROC_DIR"] = ""
    server = Server("ours", [sys.executable, "-m", "serve"], "/predict", BODY.decode(), settings)
    server.start()
    try:
        server.load(1, _script(work, server))  # warm
        taken = []
        for _ in range(5):
            before = _threads(server)
            server.load(2, _script(work, server))
            requests = server.rates[-1] * 2
            after = _threads(server)
            used = sorted((after[t] - before.get(t, 0) for t in after), reverse=True)
            taken.append([nanoseconds / 1000 / requests for nanoseconds in used[:2]])
    finally:
        server.stop()
    python, hyper = (min(column) for column in zip(*taken, strict=True))
    return python, hyper


def _threads(server: Server) -> dict[str, int]:
    """Processor time of every thread, ns."""
    times = {}
    for pid in server.processes():
        for task in Path(f"/proc/{pid}/task").iterdir():
            times[task.name] = int((task / "schedstat").read_text().split()[0])
    return times


def _print(name: str, microseconds: float) -> None:
    print(f"| {name} | {microseconds:.1f} |")


if __name__ == "__main__":
    main()
