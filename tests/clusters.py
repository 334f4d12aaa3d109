"""Dask clusters of the tests' own: real schedulers and workers on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from commands import PROJECT
from servers import free_port

from taxi_duration import environment
from taxi_duration.data.cluster import connected
from taxi_duration.data.window import Part, Window
from taxi_duration.errors import BadMonthError
from taxi_duration.training.boosting import RowBatch

LOOPBACK = "127.0.0.1"


class Cluster:
    """A scheduler and its workers, each a process that a test may kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"tcp://{LOOPBACK}:{free_port()}"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_scheduler(self) -> None:
        port = self.address.rpartition(":")[2]
        self.scheduler = self._start("scheduler", "--host", LOOPBACK, "--port", port)

    def add_worker(self, nanny: bool = False, **env: str) -> subprocess.Popen[bytes]:
        """Start a worker of one thread with these settings, in a process group of its own."""
        here = self.folder / f"worker-{len(self.workers)}"
        kind = "--nanny" if nanny else "--no-nanny"
        env = {"TAXI_HOME": str(here / "home"), **env}
        worker = self._start(
            "worker", self.address, "--nthreads", "1", kind, "--host", LOOPBACK,
            "--local-directory", str(here), **env,
        )  # fmt: skip
        self.workers.append(worker)
        return worker

    def worker_at(self, address: str) -> subprocess.Popen[bytes]:
        """Return the worker of an address, which its log tells."""
        logs = [self.folder / f"worker-{number}.log" for number in range(len(self.workers))]
        return next(
            worker for worker, log in zip(self.workers, logs, strict=True)
            if f"Start worker at: {address}" in " ".join(log.read_text().split())
        )  # fmt: skip

    def wait(self, seconds: float = 300) -> None:
        """Return when the client that is connected sees every worker.

        Raises:
            AssertionError: one ended, or did not come in time.
        """
        until = time.monotonic() + seconds
        while len(connected().nthreads()) < len(self.workers):
            ended = [worker.args for worker in self.workers if worker.poll() is not None]
            assert not ended and time.monotonic() < until, ended or "a worker did not come"
            time.sleep(0.1)

    def _start(self, *args: str, **env: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{args[0]}-{len(self.workers)}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *args, "--dashboard-address", f"{LOOPBACK}:0"],
                env={**os.environ, "PYTHONPATH": str(PROJECT / "tests"), **env},
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def close(self) -> None:
        for process in [*self.workers, self.scheduler]:
            if process is not None:
                kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started, at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def cluster(folder: Path, workers: int = 0, nanny: bool = False, **env: str) -> Iterator[Cluster]:
    """Start a scheduler with so many workers."""
    made = Cluster(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        made.start_scheduler()
        for _ in range(workers):
            made.add_worker(nanny, **env)
        yield made
    finally:
        made.close()


# --- tasks of tests, in a module that workers can import ------------------------------------------


def where(item: int) -> tuple[int, int]:
    """Return the item and the process that it came to."""
    return item, os.getpid()


def home_of(item: int) -> tuple[int, str]:
    return item, os.environ["TAXI_HOME"]


def setting_of(name: str) -> str | None:
    return os.environ.get(name)


def die_once(folder: str, item: int) -> int:
    """Kill the worker at the first try of item 2."""
    mark = Path(folder, "died")
    if item == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def die(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(item: int) -> None:
    raise BadMonthError(f"month {item} is bad")


def note(folder: str, item: int) -> int:
    """Leave a mark that the item was begun."""
    Path(folder, str(item)).touch()
    return item


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def rows_of(window: Window) -> Iterator[RowBatch]:
    """Rows to learn from that depend on each trip alone."""
    for rides, minutes in window.batches():
        hour = rides.pickup_at.astype("datetime64[h]").astype("int64") % 24
        columns = (rides.PULocationID, rides.DOLocationID, rides.trip_distance, hour)
        rows = np.stack(columns, axis=1).astype("float32")
        yield RowBatch(rows, minutes, 1 + (hour % 2).astype("float32"))


def rows_noting_pages(note: str, window: Window) -> Iterator[RowBatch]:
    """As `rows_of`; write how many folders of pages lie where this process keeps them."""
    yield from rows_of(window)
    scratch = environment.scratch_dir()
    Path(note).write_text(str(len(list(scratch.glob("*"))) if scratch.exists() else 0))


def trips_and_minutes(part: Part) -> tuple[int, float]:
    batches = list(part.batches())
    return sum(len(b.minutes) for b in batches), sum(float(b.minutes.sum()) for b in batches)


def process_of(part: Part) -> int:
    return os.getpid()
