"""A prediction log of many rides: what pages, feedback and the archive cost.

    PYTHONPATH=. python benchmarks/log.py --rides 1000000

Rides of a week are written straight into a database as an older release left it, 70 % with their
true duration. An older release is read with the same script and `PYTHONPATH=its/folder`.
Prints medians; beside other work compare releases in turn, not seconds.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

DAY = 86_400
AT_ONCE = 100_000
TABLES = """
CREATE TABLE predictions (prediction_id TEXT NOT NULL PRIMARY KEY, ride_id TEXT,
  asked_at DOUBLE NOT NULL, "PULocationID" INTEGER NOT NULL, "DOLocationID" INTEGER NOT NULL,
  pickup_at TEXT NOT NULL, trip_distance DOUBLE, duration DOUBLE NOT NULL, p10 DOUBLE NOT NULL,
  p50 DOUBLE NOT NULL, p90 DOUBLE NOT NULL, support INTEGER NOT NULL,
  used_distance BOOLEAN NOT NULL, model TEXT NOT NULL, model_sha256 TEXT NOT NULL,
  arm TEXT NOT NULL, latency_ms DOUBLE);
CREATE INDEX predictions_asked_at ON predictions (asked_at);
CREATE TABLE feedback (prediction_id TEXT NOT NULL PRIMARY KEY, duration DOUBLE NOT NULL,
  received_at DOUBLE NOT NULL);
CREATE INDEX feedback_received_at ON feedback (received_at);
"""


def make_log(path: Path, rides: int, days: float) -> list[str]:
    """Write a log; return the ids of some rides without a true duration."""
    path.parent.mkdir(parents=True)
    untold: list[str] = []
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA auto_vacuum=2; PRAGMA synchronous=OFF;" + TABLES)
    now, rng = time.time(), np.random.default_rng(0)
    for start in range(0, rides, AT_ONCE):
        n = min(AT_ONCE, rides - start)
        asked_at = now - days * DAY * (1 - (start + np.sort(rng.random(n)) * n) / rides)
        rows, told = make_rows(asked_at, rng)
        connection.executemany(f"INSERT INTO predictions VALUES ({','.join('?' * 17)})", rows)
        connection.executemany("INSERT INTO feedback VALUES (?, ?, ?)", told)
        known = {row[0] for row in told}
        untold += [row[0] for row in rows if row[0] not in known][:200]
        connection.commit()
    connection.close()
    return untold


def make_rows(asked_at: np.ndarray, rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
    """Return rows of both tables, as single rides leave them: minutes of full precision."""
    n = len(asked_at)
    chance = rng.bytes(10 * n).hex()
    ids = [f"{int(1000 * at):012x}{chance[20 * i : 20 * i + 20]}" for i, at in enumerate(asked_at)]
    zones = rng.choice(np.arange(1, 264), (2, n), p=rng.dirichlet(np.full(263, 0.3)))
    minutes = rng.lognormal(2.5, 0.6, n).clip(1, 60)
    pickup = np.datetime_as_string((asked_at - 5 * 3600).astype("datetime64[s]"))
    quantiles = [minutes * rng.normal(at, 0.03, n) for at in (0.7, 0.97, 1.4)]
    columns = [
        ids, [None] * n, asked_at.tolist(), *zones.tolist(), pickup.tolist(),
        np.round(minutes / 4, 2).tolist(), minutes.tolist(), *(q.tolist() for q in quantiles),
        rng.geometric(0.01, n).tolist(), [1] * n, ["green-duration:1"] * n, ["ab" * 32] * n,
        np.where(rng.random(n) < 0.2, "challenger", "champion").tolist(),
        rng.lognormal(-1.5, 0.3, n).tolist(),
    ]  # fmt: skip
    true = np.round(minutes * rng.lognormal(0, 0.25, n) * 60) / 60
    rows = zip(ids, true.tolist(), (asked_at + 60 * true + 5).tolist(), strict=True)
    told = [row for row, is_told in zip(rows, rng.random(n) < 0.7, strict=True) if is_told]
    return list(zip(*columns, strict=True)), told


def median_ms(function: Callable[[], object], times: int) -> float:
    """Return the median time of a call in milliseconds."""
    return statistics.median(milliseconds(function) for _ in range(times))


def milliseconds(function: Callable[[], object]) -> float:
    """Return the time of a call."""
    began = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - began)


def show_pages(app: Any, times: int) -> None:
    """Print what the page's data and the metrics take."""
    from serve.core.live_page import LivePage

    answering, client = app.extensions["taxi"], app.test_client()

    def page() -> None:  # a new one each time: one keeps what it read for some seconds
        trouble = LivePage(answering).content()["log"]["trouble"]
        if trouble:
            print(f"  /monitor/data: {trouble}")

    print(f"/monitor/data {median_ms(page, times):,.1f} ms, "
          f"/metrics {median_ms(lambda: client.get('/metrics'), times):,.1f} ms")  # fmt: skip


def show_feedback(app: Any, untold: Iterator[str], seconds: float, is_open: bool) -> None:
    """Print what feedback and /ready take, beside a monitor page that is read on and on."""
    from serve.core.live_page import LivePage

    client, answering, stop = app.test_client(), app.extensions["taxi"], threading.Event()

    def read_on() -> None:
        while not stop.is_set():
            LivePage(answering).content()

    reader = threading.Thread(target=read_on)
    if is_open:
        reader.start()
    took, refused, unready, ends = [], 0, 0, time.monotonic() + seconds
    while time.monotonic() < ends and (ride := next(untold, None)):
        began = time.perf_counter()
        told = client.post("/feedback", json={"prediction_id": ride, "duration": 12.5})
        took.append(1000 * (time.perf_counter() - began))
        refused += told.status_code != 200
        unready += "not logged" in client.get("/ready").text
    stop.set()
    if is_open:
        reader.join()
    where = "beside an open page" if is_open else "alone"
    print(f"feedback {where}: {len(took)} calls, median {statistics.median(took):,.1f} ms, "
          f"longest {max(took):,.0f} ms, refused {refused}; /ready refused {unready}")  # fmt: skip


def show_archive(log: Any, path: Path) -> None:
    """Print how fast rides older than a day are archived, and what they take then."""
    if not hasattr(log, "archive"):
        return
    began, before = time.perf_counter(), path.stat().st_size
    moved = log.archive(1, 0)
    seconds = time.perf_counter() - began
    print(f"archive: {moved.rides:,} rides in {seconds:,.1f} s, {moved.rides / seconds:,.0f} a "
          f"second, {moved.bytes / moved.rides:.1f} bytes a ride; database {before / 1e6:,.0f} MB, "
          f"then {path.stat().st_size / 1e6:,.0f} MB")  # fmt: skip


@click.command()
@click.option("--rides", default=1_000_000, show_default=True)
@click.option("--days", default=7.0, show_default=True, help="Over which they are spread.")
@click.option("--times", default=9, show_default=True, help="Medians are printed.")
@click.option("--seconds", default=10.0, show_default=True, help="Of feedback, each way.")
@click.option("--archive/--no-archive", default=True, show_default=True)
def main(rides: int, days: float, times: int, seconds: float, archive: bool) -> None:
    """Print a line per figure."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"TAXI_HOME": folder, "LOG_URL": "", "LOG_ARCHIVE": ""}
        path = Path(folder, "data", "live", "predictions.db")
        began = time.perf_counter()
        untold = make_log(path, rides, days)
        print(f"{rides:,} rides made in {time.perf_counter() - began:,.0f} s, "
              f"{path.stat().st_size / rides:,.0f} bytes a ride in the database")  # fmt: skip
        measure(path, iter(untold), times, seconds, archive)


def measure(path: Path, ids: Iterator[str], times: int, seconds: float, archive: bool) -> None:
    """Open the log as the service does and print its figures."""
    from serve import create_app
    from taxi_duration.live.prediction_log import open_log

    log = open_log()
    print(f"first opened in {milliseconds(log.last_times) / 1000:,.1f} s")
    app = create_app({"BACKGROUND": False}, log=log)
    try:
        show_pages(app, times)
        for is_open in (False, True):
            show_feedback(app, ids, seconds, is_open)
        if archive:
            show_archive(log, path)
            show_pages(app, times)
    finally:
        log.close()


if __name__ == "__main__":
    main()
