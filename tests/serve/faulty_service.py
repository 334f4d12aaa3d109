"""A service in processes of its own, clients that use it, and what was promised to them."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from servers import ask
from service_samples import RIDE

from taxi_duration import environment
from taxi_duration.live.prediction_log import open_log

PATIENCE = 30.0  # seconds until it is said, and until it is well again; usually one to eleven


class Client(threading.Thread):
    """Asks rides and tells their durations until it is stopped; remembers what was promised."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.stopped = threading.Event()
        self.promised: list[tuple[float, str]] = []  # when it was asked, and the id in the log
        self.told: list[tuple[float, str]] = []
        self.unlogged = 0
        self.failed: list[tuple[int, str]] = []
        self.broken: list[str] = []  # no answer came
        self.models: set[str] = set()

    def run(self) -> None:
        while not self.stopped.wait(0.02):
            try:
                self._ask()
            except OSError as error:
                self.broken.append(str(error))
            except http.client.HTTPException as error:
                self.broken.append(repr(error))

    def _ask(self) -> None:
        at = time.time()
        status, body = ask(f"{self.address}/predict", RIDE)
        if status != 200:
            self.failed.append((status, body))
            return
        answer = json.loads(body)
        self.models.add(answer["model"])
        if answer.get("logged") is False:
            self.unlogged += 1
            return
        self.promised.append((at, answer["prediction_id"]))
        if len(self.promised) % 5 == 0:
            told = {"prediction_id": answer["prediction_id"], "duration": 9.0}
            at = time.time()
            status, body = ask(f"{self.address}/feedback", told)
            if status == 200 and json.loads(body)["known"]:
                self.told.append((at, answer["prediction_id"]))

    def finish(self) -> None:
        self.stopped.set()
        self.join(60)


class Place:
    """A service, and where its log lies."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.back_after: float | None = None  # seconds of the last wait until all was well
        self.acknowledged = 0
        self.folder = environment.live_dir()
        self.database = self.folder / "predictions.db"
        self.spool = self.folder / "spool"

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("predictions.db*"))

    def wait(self, problem: str | None) -> None:
        """Wait until both workers say this at /ready and in the metrics, or that all is well."""
        began, said = time.monotonic(), "nothing"
        in_a_row = 0
        while in_a_row < 6:  # of two workers, one may be asked again and again
            assert time.monotonic() < began + PATIENCE, f"expected {problem}, found {said}"
            status, said = ask(f"{self.address}/ready")
            writable = "taxi_log_writable 1.0" in ask(f"{self.address}/metrics")[1]
            is_as_wanted = (
                status == 200 and writable
                if problem is None
                else status == 503 and re.search(problem, said) and not writable
            )
            in_a_row = in_a_row + 1 if is_as_wanted else 0
            time.sleep(0.05)
        if problem is None:
            self.back_after = time.monotonic() - began


@contextmanager
def riding(place: Place, breaks: bool = False) -> Iterator[Client]:
    """Let a client ask meanwhile; none of its requests may fail.

    Args:
        breaks: some may get no answer.
    """
    client = Client(place.address)
    client.start()
    try:
        time.sleep(1.5)
        yield client
        time.sleep(1.5)
    finally:
        client.finish()
    place.acknowledged += len(client.promised) + len(client.told)
    assert client.failed == []
    assert breaks or client.broken == []
    assert len(client.promised) > 20


def missing(client: Client, since: float = 0.0) -> list[str]:
    """What was promised since then and is not in the log."""
    with closing(open_log()) as log:
        found = {row["prediction_id"]: row["true_duration"] for row in log.answered()}
    lost = [name for at, name in client.promised if at >= since and name not in found]
    untold = [name for at, name in client.told if at >= since and found.get(name) is None]
    return lost + untold
